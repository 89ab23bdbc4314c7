#include "runtime/workflow/taps.h"

#include "passes/lower/bound_graph.h"
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
  QC_ASSIGN(taps.workspace_, makeWorkspace(options));
  taps.parts_ = std::make_shared<ProgramParts>(copy);
  taps.first_ = first;
  taps.values_ = values.size();
  taps.free_ = hasFreeDims(copy);
  taps.lowered_ = std::move(copy);
  if (taps.free_) return taps;
  QC_ASSIGN(taps.here_, taps.runners_.at({}, [&](const Shapes&) { return taps.runnerOf(std::move(taps.lowered_)); }));
  return taps;
}

Result<Taps::Runner> Taps::runnerOf(Graph lowered) const {
  QC_ASSIGN(const Executable exe, Executable::fromGraph(std::move(lowered), Target::host(), {.remember = true, .parts = parts_}));
  QC_ASSIGN(Session session, exe.sessionIn(workspace_));
  Runner runner{std::move(session), exe.inputs(), {}};
  for (const Port& p : exe.outputs()) runner.outputs.emplace_back(p.type.dtype, p.type.sizes());
  return runner;
}

Status Taps::run(const TensorMap& sample) {
  if (free_) {
    QC_ASSIGN(here_, runners_.at(shapesOf(sample), [&](const Shapes& shapes) -> Result<Runner> {
      QC_ASSIGN(Graph bound, boundGraph(lowered_, shapes));
      return runnerOf(std::move(bound));
    }));
  }
  std::vector<Tensor> inputs;
  for (const Port& p : here_->inputs) {
    const auto it = sample.find(p.name);
    if (it == sample.end()) return fail(ErrorCode::kInvalidData, "a sample has no array for this input").on(p.name);
    inputs.push_back(it->second);
  }
  return here_->session.run(inputs, here_->outputs);
}

}  // namespace qc
