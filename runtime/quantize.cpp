#include "runtime/quantize.h"

#include "passes/group_params.h"
#include "passes/pass_manager.h"

namespace qc {

Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model) {
  std::vector<InputInfo> inputs;
  for (const Port& port : model.inputs()) inputs.push_back({port.name, port.type.dtype, port.type.sizes()});
  return Dataset::open(sources, inputs);
}

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges, const QuantizeOptions& options) {
  PassContext cx;
  QC_ASSIGN(Graph graph, preparedGraph(model, rules, cx));
  QC_TRY(ranges.checkFor(graph));
  QC_ASSIGN(GroupParams params, ranges.params());
  cx.provide(params);
  for (const auto& [id, entry] : ranges.entries())
    if (const int64_t bad = entry.observer->nonFinite(); bad > 0)
      cx.remarks.push_back({"calibrate", entry.name, fmt::format("{} of {} values were not finite and were ignored", bad, entry.observer->elements())});
  const Graph original = graph.clone();
  if (options.samples) QC_TRY(recover(graph, params, *options.samples, options.recover, cx));
  QC_TRY(runPipeline("convert", graph, cx));
  std::vector<LayerNoise> layers;
  if (options.samples && options.compareSamples > 0) {
    QC_ASSIGN(layers, compareLayers(original, graph, *options.samples, options.compareSamples, options.recover.threads));
  }
  CoverageReport* coverage = cx.get<CoverageReport>();
  QC_CHECK(coverage);
  return QuantizedModel{Model(std::move(graph), model.name()), std::move(*coverage), std::move(cx.remarks), std::move(layers)};
}

}  // namespace qc
