#include "runtime/quantize.h"

#include "ir/memory_limit.h"
#include "passes/group_params.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

// The float graph, simplified, annotated by the rules, with observers in place.
Result<Graph> preparedGraph(const Model& model, const QConfigMapping& rules, PassContext& cx) {
  if (model.isQuantized())
    return fail(ErrorCode::kInvalidArgument, "'{}' is quantized already", model.name()).help("start from the float model");
  Graph graph = model.graph().clone();
  cx.provide(rules);
  QC_TRY(runPipeline("simplify,annotate,prepare", graph, cx));
  return graph;
}

Result<std::vector<Tensor>> inputsOf(const Executable& exe, const Dataset& samples, int64_t i) {
  QC_ASSIGN(const TensorMap sample, samples.sample(i));
  std::vector<Tensor> inputs;
  for (const Port& p : exe.inputs()) {
    const auto it = sample.find(p.name);
    if (it == sample.end()) return fail(ErrorCode::kInvalidData, "sample '{}' has no array for this input", samples.sampleName(i)).on(p.name);
    inputs.push_back(it->second);
  }
  return inputs;
}

}  // namespace

Result<Dataset> openDataset(const std::vector<std::string>& sources, const Model& model) {
  std::vector<InputInfo> inputs;
  for (const Port& port : model.inputs()) inputs.push_back({port.name, port.type.dtype, port.type.sizes()});
  return Dataset::open(sources, inputs);
}

Result<Ranges> calibrate(const Model& model, const QConfigMapping& rules, const Dataset& samples, const CalibrateOptions& options) {
  PassContext cx;
  QC_ASSIGN(Graph graph, preparedGraph(model, rules, cx));
  QC_ASSIGN(Ranges ranges, Ranges::forGraph(graph));
  QC_TRY(runPipeline("fuse-elementwise,fold-constants,dce", graph, cx));
  QC_ASSIGN(const Executable exe, Executable::fromGraph(std::move(graph), Target::host()));
  QC_ASSIGN(Session session, exe.session({.threads = options.threads}));
  std::vector<Tensor> outputs;
  int64_t bytes = 0;
  for (const Port& p : exe.outputs()) bytes += p.type.byteSize();
  QC_TRY(checkMemory(bytes, "the outputs"));
  for (const Port& p : exe.outputs()) outputs.emplace_back(p.type.dtype, p.type.sizes());
  const Session::StepHook observe = [&](const Step& step, std::span<const TensorRef> results, double) -> Status {
    return step.node->is("observe") ? ranges.observe(step.node->integer("id"), results[0]) : Status();
  };
  const int64_t count = options.limit >= 0 ? std::min(options.limit, samples.size()) : samples.size();
  if (count == 0) return fail(ErrorCode::kInvalidData, "there are no calibration samples").help("check the path and the limit");
  for (int64_t i = 0; i < count; ++i) {
    QC_ASSIGN(const std::vector<Tensor> inputs, inputsOf(exe, samples, i));
    QC_TRY(session.run(inputs, outputs, observe));
    ranges.countSample();
    if (options.progress) options.progress(i + 1, count);
  }
  return ranges;
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
