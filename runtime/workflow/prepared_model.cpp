#include "runtime/workflow/prepared_model.h"

#include <algorithm>
#include <cmath>

#include "ir/guarded.h"
#include "passes/correspondence.h"
#include "passes/pass_manager.h"
#include "runtime/workflow/loop_bodies.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

// NaN in a weight makes every result NaN, which ranges ignore: no int8 model of it is worth anything.
Status refuseNaN(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next()) {
    for (const Value* v : n->operands()) {
      const Tensor* t = v ? v->constant() : nullptr;
      if (!t || t->dtype() != DType::f32) continue;
      const auto x = t->as<float>();
      if (const auto bad = std::count_if(x.begin(), x.end(), [](float e) { return std::isnan(e); }))
        return fail(ErrorCode::kInvalidModel, "{} of {} values of this constant are NaN", bad, t->numElements())
            .at(n->location())
            .on(v->name())
            .help("export the model again from weights that are numbers");
    }
  }
  return {};
}

Result<CoverageReport> decided(Quantizer& quantizer, Graph& graph) {
  return guarded("the quantizer", [&]() -> Result<CoverageReport> {
    QC_TRY(quantizer.transform(graph));
    QC_TRY(quantizer.annotate(graph));
    QC_TRY(quantizer.validate(graph));
    return quantizer.report(graph);
  });
}

Result<PreparedModel> prepared(const Model& model, Quantizer& quantizer, std::optional<QConfigMapping> rules,
                               const PrepareOptions& options) {
  if (model.isQuantized())
    return fail(ErrorCode::kInvalidArgument, "'{}' is quantized already", model.name()).help("start from the float model");
  Graph graph = model.graph().clone();
  QC_TRY(refuseNaN(graph));
  if (!options.simplified) forgetMoves(graph);
  PassContext cx;
  if (rules) cx.provide(*rules);
  QC_TRY(RecoverOptions().under(rules).checkChoices());
  QC_TRY(checkInsertions(options.insertions, kQuantizeSteps));
  if (!options.simplified) cx.provide(options.insertions);
  cx.provide(FoldedBatchNorms());
  QC_TRY(runPipeline("simplify", graph, cx));
  FoldedBatchNorms batchNorms = std::move(*cx.get<FoldedBatchNorms>());
  keepUnchanged(batchNorms, graph);
  Graph simplified = graph.clone();
  QC_ASSIGN(CoverageReport coverage, decided(quantizer, graph));
  cx.provide(options.insertions);
  QC_TRY(runPipeline("prepare", graph, cx));
  PreparedModel ready{.name = model.name(),
                      .rules = std::move(rules),
                      .simplified = std::make_shared<const Graph>(std::move(simplified)),
                      .observed = std::make_shared<const Graph>(std::move(graph)),
                      .coverage = std::move(coverage),
                      .remarks = std::move(cx.remarks),
                      .timings = std::move(cx.timings),
                      .insertions = options.insertions,
                      .batchNorms = std::move(batchNorms)};
  QC_TRY(quantizeBodies(ready));
  return ready;
}

}  // namespace

Result<PreparedModel> prepareModel(const Model& model, const QConfigMapping& rules, const PrepareOptions& options) {
  return withoutExceptions([&] {
    DefaultQuantizer quantizer(rules, {.quantizedOutputs = rules.quantizedOutputs()});
    return prepared(model, quantizer, rules, options);
  });
}

Result<PreparedModel> prepareModel(const Model& model, Quantizer& quantizer, const PrepareOptions& options) {
  return withoutExceptions([&] { return prepared(model, quantizer, std::nullopt, options); });
}

Status checkPrepared(const PreparedModel& model) {
  if (model.simplified && model.observed) return {};
  return fail(ErrorCode::kInvalidArgument, "this PreparedModel holds no graph")
      .help("make it with prepareModel(), and do not move from it");
}

Result<Graph> convertedGraph(const Graph& observed, const GroupParams& params) {
  Graph graph = observed.clone();
  PassContext cx;
  cx.provide(params);
  QC_TRY(runPipeline("convert", graph, cx));
  return graph;
}

}  // namespace qc
