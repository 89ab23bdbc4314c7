#include "runtime/workflow/taps.h"

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
  QC_ASSIGN(const Executable exe, Executable::fromGraph(std::move(copy), Target::host(), {.remember = true}));
  QC_ASSIGN(Session session, exe.session(options));
  Taps taps(std::move(session), exe.inputs());
  for (const Port& p : exe.outputs()) taps.outputs_.emplace_back(p.type.dtype, p.type.sizes());
  taps.first_ = first;
  taps.values_ = values.size();
  return taps;
}

Status Taps::run(const TensorMap& sample) {
  std::vector<Tensor> inputs;
  for (const Port& p : inputs_) {
    const auto it = sample.find(p.name);
    if (it == sample.end()) return fail(ErrorCode::kInvalidData, "a sample has no array for this input").on(p.name);
    inputs.push_back(it->second);
  }
  return session_.run(inputs, outputs_);
}

}  // namespace qc
