#include "runtime/quantize.h"

#include "ir/memory_limit.h"
#include "passes/group_params.h"
#include "passes/pass_manager.h"

namespace qc {
Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model) {
  std::vector<InputInfo> inputs;
  for (const Port& port : model.inputs()) inputs.push_back({port.name, port.type.dtype, port.type.sizes()});
  return Dataset::open(sources, inputs);
}

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges) {
  PassContext cx;
  QC_ASSIGN(Graph graph, preparedGraph(model, rules, cx));
  QC_TRY(ranges.checkFor(graph));
  QC_ASSIGN(GroupParams params, ranges.params());
  cx.provide(std::move(params));
  for (const auto& [id, entry] : ranges.entries())
    if (const int64_t bad = entry.observer->nonFinite(); bad > 0)
      cx.remarks.push_back({"calibrate", entry.name, fmt::format("{} of {} values were not finite and were ignored", bad, entry.observer->elements())});
  QC_TRY(runPipeline("convert", graph, cx));
  CoverageReport* coverage = cx.get<CoverageReport>();
  QC_CHECK(coverage);
  return QuantizedModel{Model(std::move(graph), model.name()), std::move(*coverage), std::move(cx.remarks)};
}

}  // namespace qc
