#include "runtime/workflow/quantize.h"

#include <fmt/ranges.h>

#include "ir/arithmetic.h"
#include "ir/memory_limit.h"
#include "passes/pass_manager.h"
#include "passes/quantize/group_params.h"
#include "runtime/workflow/small_ranges.h"

namespace qc {
namespace {

Result<QuantizedModel> converted(Graph graph, const Model& model, PassContext& cx) {
  QC_TRY(runPipeline("convert", graph, cx));
  CoverageReport* coverage = cx.get<CoverageReport>();
  QC_CHECK(coverage);
  return QuantizedModel{Model(std::move(graph), model.name()), std::move(*coverage), std::move(cx.remarks), {}};
}

}  // namespace

Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model) {
  return withinMemory([&]() -> Result<Dataset> {
    const DefinedArithmetic defined;
    std::vector<InputInfo> inputs;
    for (const Port& port : model.inputs()) inputs.push_back({port.name, port.type.dtype, port.type.sizes()});
    return Dataset::open(sources, inputs);
  });
}

namespace {

// Those of the rules and those of the options.
Status integerEnds(Model& model, const QConfigMapping& rules, const QuantizeOptions& options) {
  std::vector<int64_t> inputs = rules.quantizedInputs(), outputs = rules.quantizedOutputs();
  inputs.insert(inputs.end(), options.quantizedInputs.begin(), options.quantizedInputs.end());
  outputs.insert(outputs.end(), options.quantizedOutputs.begin(), options.quantizedOutputs.end());
  if (inputs.empty() && outputs.empty()) return {};
  Graph graph = model.graph().clone();
  PassContext cx;
  QC_TRY(runPipeline(fmt::format("quantize-io{{inputs=[{}], outputs=[{}]}}", fmt::join(inputs, ","), fmt::join(outputs, ",")), graph, cx));
  model = Model(std::move(graph), model.name());
  return {};
}

Status compare(const Graph& original, QuantizedModel& quantized, const QuantizeOptions& options) {
  const Dataset* samples = options.recover.check ? options.recover.check : options.samples;
  if (!samples || options.compareSamples <= 0) return {};
  CompareOptions how{.samples = options.compareSamples, .threads = options.recover.threads};
  how.progress = [&](int64_t done, int64_t total) {
    options.recover.tell("compare", static_cast<size_t>(done), static_cast<size_t>(total));
  };
  QC_ASSIGN(Comparison found, compareLayers(original, quantized.model.graph(), *samples, how));
  quantized.layers = std::move(found.layers);
  quantized.compared = found.samples;
  return {};
}

Result<QuantizedModel> quantizePrepared(Graph graph, const Model& model, const QConfigMapping& rules, const Ranges& ranges,
                                        const QuantizeOptions& options, PassContext& cx) {
  QC_TRY(ranges.checkFor(graph));
  QC_ASSIGN(GroupParams params, ranges.params());
  cx.provide(params);
  for (const auto& [id, entry] : ranges.entries())
    if (const int64_t bad = entry.observer->nonFinite(); bad > 0)
      cx.remarks.push_back(
          {"calibrate", entry.name, fmt::format("{} of {} values were not finite and were ignored", bad, entry.observer->elements())});
  QC_ASSIGN(std::vector<Remark> small, smallRanges(graph, ranges));
  cx.remarks.insert(cx.remarks.end(), std::make_move_iterator(small.begin()), std::make_move_iterator(small.end()));
  const Graph original = graph.clone();
  if (options.samples) QC_TRY(recover(graph, params, *options.samples, options.recover, cx));
  QC_ASSIGN(QuantizedModel quantized, converted(std::move(graph), model, cx));
  QC_TRY(compare(original, quantized, options));
  QC_TRY(integerEnds(quantized.model, rules, options));
  return quantized;
}

}  // namespace

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges, const QuantizeOptions& options) {
  return withinMemory([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    PassContext cx;
    QC_ASSIGN(Graph graph, preparedGraph(model, rules, cx));
    return quantizePrepared(std::move(graph), model, rules, ranges, options, cx);
  });
}

Result<QuantizedModel> quantize(const Model& model, Quantizer& quantizer, const Ranges& ranges, const QuantizeOptions& options) {
  return withinMemory([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    PassContext cx;
    QC_ASSIGN(Graph graph, preparedGraph(model, quantizer, cx));
    return quantizePrepared(std::move(graph), model, {}, ranges, options, cx);
  });
}

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const QuantizeOptions& options) {
  return withinMemory([&]() -> Result<QuantizedModel> {
    const DefinedArithmetic defined;
    PassContext cx;
    QC_ASSIGN(Graph graph, preparedGraph(model, rules, cx));
    for (const Node* n = graph.front(); n; n = n->next())
      if (n->is("observe") && !std::holds_alternative<FixedSpec>(n->annotation()->output))
        return fail(ErrorCode::kInvalidArgument, "the rules ask for ranges of values, and no calibration data was given")
            .at(n->location())
            .on(n->operand(0)->name())
            .help("give samples or ranges, or rules that need neither: dynamic, weight-only, fp16-weights");
    const Graph original = graph.clone();
    if (options.recover.smoothQuant) QC_TRY(runPipeline("smooth-quant{dynamic=1}", graph, cx));
    QC_ASSIGN(QuantizedModel quantized, converted(std::move(graph), model, cx));
    QC_TRY(compare(original, quantized, options));
    QC_TRY(integerEnds(quantized.model, rules, options));
    return quantized;
  });
}

}  // namespace qc
