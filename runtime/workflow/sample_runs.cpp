#include "runtime/workflow/sample_runs.h"

#include <algorithm>
#include <utility>

#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "ir/memory_limit.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"

namespace qc {

SampleRuns::Part SampleRuns::partOf(Graph graph, std::shared_ptr<ProgramParts> parts) { return {std::move(graph), std::move(parts), {}}; }

// Behind the first `needed` outputs one of a branch is looked at: that it is not taken has to be seen, though sizes decide it.
bool SampleRuns::looksIntoBranches(const Graph& graph, size_t needed) {
  const std::vector<Value*>& outputs = graph.outputs();
  const std::span<Value* const> looked = std::span(outputs).subspan(std::min(needed, outputs.size()));
  if (looked.empty()) return false;
  const std::map<const Node*, Conditions> branches = conditionsOf(graph, {looked.begin(), looked.end()});
  return std::ranges::any_of(looked, [&](const Value* v) { return v->producer() && branches.contains(v->producer()); });
}

Result<SampleRuns> SampleRuns::open(Graph graph, const SessionOptions& options, std::string passes, size_t needed) {
  QC_ASSIGN(auto workspace, makeWorkspace(options));
  return openIn(std::move(workspace), std::move(graph), std::move(passes), needed);
}

Result<SampleRuns> SampleRuns::openIn(std::shared_ptr<Workspace> workspace, Graph graph, std::string passes, size_t needed) {
  SampleRuns runs;
  runs.passes_ = std::move(passes);
  runs.workspace_ = std::move(workspace);
  const auto parts = std::make_shared<ProgramParts>(graph);
  if (!firstDecidingByData(graph) && !looksIntoBranches(graph, needed)) {
    runs.parts_.push_back(std::make_unique<Part>(partOf(std::move(graph), parts)));
    return runs;
  }
  QC_ASSIGN(CutGraph cut, cutAtDecidedSizes(graph, needed));
  runs.cut_ = std::make_unique<CutGraph>(std::move(cut));
  for (const Segment& s : runs.cut_->segments) {
    runs.parts_.push_back(s.decides ? nullptr : std::make_unique<Part>(partOf(s.graph.clone(), parts)));
    runs.bodies_.push_back(nullptr);
    if (!s.decides || !s.program()) continue;
    QC_ASSIGN(SampleRuns body, openIn(runs.workspace_, s.program()->clone(), runs.passes_));
    runs.bodies_.back() = std::make_unique<SampleRuns>(std::move(body));
  }
  return runs;
}

Result<SampleRuns::Runner> SampleRuns::madeAt(const Part& part, const Shapes& shapes) const {
  QC_ASSIGN(Graph graph, boundGraph(part.graph, shapes));
  PassContext cx;
  if (!passes_.empty()) QC_TRY(runPipeline(passes_, graph, cx));
  QC_ASSIGN(const Executable exe, Executable::fromGraph(std::move(graph), Target::host(), {.remember = true, .parts = part.parts}));
  QC_ASSIGN(Session session, exe.sessionIn(workspace_));
  Runner runner{std::move(session), exe.inputs(), exe.outputs(), {}};
  int64_t bytes = 0;
  for (const Port& p : runner.ports) bytes += p.type.byteSize();
  QC_TRY(checkMemory(bytes, "the outputs"));
  for (const Port& p : runner.ports) runner.outputs.emplace_back(p.type.dtype, p.type.sizes());
  return runner;
}

Result<SampleRuns::Runner*> SampleRuns::runnerAt(Part& part, const Shapes& shapes) {
  return part.runners.at(shapes, [&](const Shapes& own) { return madeAt(part, own); });
}

Status SampleRuns::prepare(const Shapes& shapes) {
  if (cut_) {
    QC_TRY(bindingsOf(cut_->interface, shapes));
    return {};
  }
  QC_TRY(runnerAt(*parts_.front(), shapes));
  return {};
}

Status SampleRuns::runIn(Runner& runner, const TensorMap& sample, const Session::StepHook& hook) {
  std::vector<Tensor> inputs;
  for (const Port& p : runner.inputs) {
    const auto it = sample.find(p.name);
    if (it == sample.end()) return fail(ErrorCode::kInvalidData, "a sample has no array for this input").on(p.name);
    inputs.push_back(it->second);
  }
  return runner.session.run(inputs, runner.outputs, hook);
}

// A run writes to tensors that nobody else holds.
static Tensor taken(Tensor& out) { return std::exchange(out, Tensor(out.dtype(), out.sizes())); }

Status SampleRuns::run(const TensorMap& sample, const Session::StepHook& hook) {
  if (!cut_) {
    QC_ASSIGN(Runner * runner, runnerAt(*parts_.front(), shapesOf(sample)));
    outputs_ = &runner->outputs;
    return runIn(*runner, sample, hook);
  }
  TensorMap inputs;  // a sample may hold more
  for (const Value* v : cut_->interface.inputs())
    if (const auto it = sample.find(v->name()); it != sample.end()) inputs.insert(*it);
  QC_ASSIGN(const TensorMap results, cut_->run(inputs, [&](size_t i, const TensorMap& own) -> Result<TensorMap> {
    TensorMap values;
    if (SampleRuns* body = bodies_[i].get()) {  // whose steps are no layers of the model
      QC_TRY(body->run(own));
      const std::vector<std::string>& names = cut_->segments[i].program()->outputNames();
      for (size_t k = 0; k < names.size(); ++k) values[names[k]] = taken((*body->outputs_)[k]);
      return values;
    }
    QC_ASSIGN(Runner * runner, runnerAt(*parts_[i], shapesOf(own)));
    QC_TRY(runIn(*runner, own, hook));
    for (size_t k = 0; k < runner->ports.size(); ++k) values[runner->ports[k].name] = taken(runner->outputs[k]);
    return values;
  }));
  joined_.clear();
  for (const std::string& name : cut_->outputs) joined_.push_back(results.at(name));
  outputs_ = &joined_;
  return {};
}

}  // namespace qc
