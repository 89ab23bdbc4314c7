#include "runtime/workflow/compiled_graph.h"

#include "ir/memory_limit.h"
#include "ir/op_def.h"
#include "passes/pass_manager.h"

namespace qc {

Result<CompiledGraph> CompiledGraph::of(Graph graph, const std::shared_ptr<Workspace>& workspace, int64_t memoryLimit) {
  PassContext cx;
  QC_TRY(runPipeline("lower", graph, cx));
  CompileOptions options{.remember = true};
  if (memoryLimit > 0) {
    options.insertions.push_back(PassInsertion::after("select-kernels", *PassRegistry::get().find("recompute")));
    options.insertions.back().options.set("limit", memoryLimit);
  }
  QC_ASSIGN(const Executable exe, Executable::fromGraph(std::move(graph), Target::host(), options));
  QC_ASSIGN(Session session, exe.sessionIn(workspace));
  CompiledGraph c{std::move(session), exe.inputs(), exe.outputs(), {}, {}, {}, {}};
  for (const Step& s : exe.program().steps()) c.withoutKernel += !s.function && !s.node->def().has(kView);
  int64_t bytes = 0;
  for (const auto* ports : {&c.inputs, &c.outputs})
    for (const Port& p : *ports) bytes += p.type.byteSize();
  QC_TRY(checkMemory(bytes, "what is trained"));
  for (const Port& p : c.inputs) {
    c.inputAt[p.name] = c.in.size();
    c.in.emplace_back(p.type.dtype, p.type.sizes());
  }
  for (const Port& p : c.outputs) {
    c.outputAt[p.name] = c.out.size();
    c.out.emplace_back(p.type.dtype, p.type.sizes());
  }
  return c;
}

Status CompiledGraph::run(const Session::StepHook& hook) {
  for (Tensor& t : out)
    if (!t.ownsBytes()) t = Tensor(t.dtype(), t.sizes());
  return session.run(in, out, hook);
}

Tensor* CompiledGraph::input(const std::string& name) {
  const auto it = inputAt.find(name);
  return it == inputAt.end() ? nullptr : &in[it->second];
}

Tensor* CompiledGraph::output(const std::string& name) {
  const auto it = outputAt.find(name);
  return it == outputAt.end() ? nullptr : &out[it->second];
}

std::vector<CompiledGraph::Carried> CompiledGraph::carried() const {
  std::vector<Carried> found;
  for (const auto& [name, input] : inputAt)
    if (const auto next = outputAt.find("next." + name); next != outputAt.end()) found.push_back({name, input, next->second});
  return found;
}

void CompiledGraph::carry(std::span<const Carried> values) {
  for (const Carried& c : values) std::swap(in[c.input], out[c.output]);
}

}  // namespace qc
