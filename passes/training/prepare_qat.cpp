// prepare-qat: fake quantization in the place of observers, and between weights and what reads them.
// A moving average is a pair of inputs "min.NAME" and "max.NAME" with outputs "next.min.NAME" and "next.max.NAME"; the input "observing" is
// 1 while they follow.  So with the running statistics of BatchNorm and the input "by_batch".  A scale that learns is a constant
// "scale.NAME", which train-step finds as it finds weights. Parameters come from cx.provide(GroupParams); the option `range` stands in for
// them.  Tests: tests/golden/prepare_qat, tests/unit/prepare_qat_test.cpp.
#include "passes/training/prepare_qat.h"

#include <algorithm>

#include "passes/passes.h"
#include "passes/training/qat_activations.h"
#include "passes/training/qat_weights.h"
#include "quantizer/observers/observer.h"

namespace qc {
namespace {

Status checkOptions(const QatOptions& options) {
  const auto isOneOf = [](const char* what, const std::string& value, std::initializer_list<const char*> choices) -> Status {
    if (std::find(choices.begin(), choices.end(), value) != choices.end()) return {};
    return fail(ErrorCode::kInvalidArgument, "unknown way for {}: '{}'", what, value);
  };
  QC_TRY(isOneOf("weights", options.weights, {"observed", "learned"}));
  QC_TRY(isOneOf("activations", options.activations, {"auto", "observed", "learned", "fixed"}));
  QC_TRY(isOneOf("activations", options.ofManyBits, {"observed", "learned", "fixed"}));
  if (!(options.averagingConstant > 0 && options.averagingConstant <= 1))
    return fail(ErrorCode::kInvalidArgument, "an averaging constant of {}", options.averagingConstant);
  return {};
}

Result<QatPlan> prepared(Graph& graph, const GroupParams& params, const QatOptions& options, const FoldedBatchNorms& batchNorms,
                         int& inserted) {
  QC_TRY(checkOptions(options));
  QatPlan plan;
  QatRounding rounding(graph);
  QatActivations activations(rounding, params, options, plan);
  QatWeights weights(rounding, options, plan);
  std::vector<std::string> names = graph.outputNames();
  if (options.batchNorm) QC_TRY(weights.takeOut(batchNorms));
  std::vector<Value*> outputs = graph.outputs();
  for (Node* node : graph.nodes()) {
    if (node->is("observe")) {
      QC_TRY(activations.round(node, outputs));
    } else if (node->annotation()) {
      const QuantAnnotation annotation = *node->annotation();
      for (size_t i = 0; i < annotation.inputs.size(); ++i) QC_TRY(weights.round(node, static_cast<int>(i), annotation.inputs[i]));
      node->annotation().reset();
    }
  }
  weights.giveStates(outputs, names);
  activations.giveStates(outputs, names);
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(std::move(names));
  inserted = rounding.inserted;
  return plan;
}

// For golden tests: the same parameters for every observer.
Result<GroupParams> paramsOfRange(const Graph& graph, const std::vector<double>& range) {
  GroupParams params;
  if (range.empty()) return params;
  if (range.size() != 2 || !(range[0] <= range[1])) return fail(ErrorCode::kInvalidArgument, "range wants [low, high]");
  for (const Node* n = graph.front(); n; n = n->next()) {
    const auto* spec = n->is("observe") && n->annotation() ? std::get_if<ObservedSpec>(&n->annotation()->output) : nullptr;
    if (!spec) continue;
    QC_ASSIGN(const ScaleZero sz, calculateQParams(static_cast<float>(range[0]), static_cast<float>(range[1]), requestFor(*spec)));
    params[n->integer("id")] =
        std::make_shared<const QuantParams>(QuantParams{spec->dtype, spec->qmin, spec->qmax, -1, 0, {sz.scale}, {sz.zeroPoint}});
  }
  return params;
}

}  // namespace

Result<QatPlan> prepareQat(Graph& graph, const GroupParams& params, const QatOptions& options, const FoldedBatchNorms& batchNorms) {
  int inserted = 0;
  return prepared(graph, params, options, batchNorms, inserted);
}

Status prepareQat(Graph& graph, PassContext& cx) {
  const QatOptions options{cx.options.string("weights"), cx.options.string("activations"), cx.options.real("averaging_constant"),
                           cx.options.integer("batch_norm") != 0};
  GroupParams params;
  if (const auto* given = cx.get<GroupParams>()) {
    params = *given;
  } else {
    QC_ASSIGN(params, paramsOfRange(graph, cx.options.reals("range")));
  }
  const auto* kept = cx.get<FoldedBatchNorms>();
  const FoldedBatchNorms batchNorms = kept ? *kept : FoldedBatchNorms();
  int inserted = 0;
  QC_TRY(prepared(graph, params, options, batchNorms, inserted));
  cx.countHits({{"fake_quantizations", inserted}});
  return {};
}

}  // namespace qc
