#include "runtime/calibrate.h"

namespace qc {

Result<Ranges> observeSamples(Graph graph, const Dataset& samples, const CalibrateOptions& options) {
  QC_ASSIGN(Ranges ranges, Ranges::forGraph(graph));
  QC_ASSIGN(const Executable exe, Executable::fromGraph(std::move(graph), Target::host()));
  QC_ASSIGN(Session session, exe.session({.threads = options.threads}));
  std::vector<Tensor> outputs;
  for (const Port& p : exe.outputs()) outputs.emplace_back(p.type.dtype, p.type.sizes());
  const Session::StepHook observe = [&](const Step& step, std::span<const TensorRef> results, double) -> Status {
    return step.node->is("observe") ? ranges.observe(step.node->integer("id"), results[0]) : Status();
  };
  const int64_t count = options.limit >= 0 ? std::min(options.limit, samples.size()) : samples.size();
  if (count == 0) return fail(ErrorCode::kInvalidData, "there are no calibration samples").help("check the path and the limit");
  for (int64_t i = 0; i < count; ++i) {
    QC_ASSIGN(const TensorMap sample, samples.sample(i));
    std::vector<Tensor> inputs;
    for (const Port& p : exe.inputs()) {
      const auto it = sample.find(p.name);
      if (it == sample.end()) return fail(ErrorCode::kInvalidData, "sample '{}' has no array for this input", samples.sampleName(i)).on(p.name);
      inputs.push_back(it->second);
    }
    QC_TRY(session.run(inputs, outputs, observe));
    ranges.countSample();
    if (options.progress) options.progress(i + 1, count);
  }
  return ranges;
}

}  // namespace qc
