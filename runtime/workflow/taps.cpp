#include "runtime/workflow/taps.h"

#include <cstring>

#include "passes/pass_manager.h"

namespace qc {

Result<Taps> Taps::open(const Graph& graph, const std::vector<std::string>& values, const SessionOptions& options) {
  Graph copy = graph.clone();
  std::vector<Value*> outputs = copy.outputs();
  const size_t first = outputs.size();
  std::vector<std::string> names;
  for (size_t i = 0; i < first; ++i) names.push_back(fmt::format("output_{}", i));
  for (const std::string& name : values) {
    Value* value = copy.findValue(name);
    if (!value) return fail(ErrorCode::kNotFound, "the graph has no such value").on(name);
    outputs.push_back(value);
    names.push_back(fmt::format("tap_{}", outputs.size()));
  }
  copy.setOutputs(std::move(outputs));
  copy.setOutputNames(std::move(names));
  for (Node* node : copy.nodes()) {
    node->annotation().reset();  // nothing is converted here
    if (!node->is("observe")) continue;
    node->result()->replaceAllUsesWith(node->operand(0));
    copy.erase(node);
  }
  PassContext cx;
  QC_TRY(runPipeline("lower", copy, cx));
  Taps taps;
  QC_ASSIGN(SampleRuns runs, SampleRuns::open(std::move(copy), options, {}, first));
  taps.runs_ = std::make_unique<SampleRuns>(std::move(runs));
  taps.first_ = first;
  taps.values_ = values.size();
  return taps;
}

Tensor ownCopy(const Tensor& value) {
  Tensor copy(value.dtype(), value.sizes());
  if (value.numElements() > 0) std::memcpy(copy.mutableData(), value.data(), usize(value.byteSize()));
  return copy;
}

}  // namespace qc
