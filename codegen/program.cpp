#include "codegen/program.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "codegen/select_kernels.h"
#include "ir/verify.h"
#include "passes/memory_plan.h"
#include "passes/pass_manager.h"

namespace qc {

class ProgramBuilder {
 public:
  ProgramBuilder(Graph graph, const Target& target) {
    program_.graph_ = std::make_unique<Graph>(std::move(graph));
    program_.target_ = target;
  }

  Result<Program> build(const CompileOptions& options) {
    QC_TRY(lower(options));
    QC_TRY(assignStorage());
    QC_TRY(generateCode(options));
    return std::move(program_);
  }

 private:
  Graph& graph() { return *program_.graph_; }

  Status lower(const CompileOptions& options) {
    registerCodegenPasses();
    PassContext cx;
    cx.provide(program_.target_);
    PassManagerOptions manager;
    manager.verifyEach = options.verifyEach;
    return runPipeline("compile", graph(), cx, manager);
  }

  // Outputs that a node writes get the caller's buffer; all other results a place in the arena.
  Status assignStorage() {
    std::set<const Value*> external;
    for (size_t i = 0; i < graph().outputs().size(); ++i) {
      const Value* storage = storageOf(graph().outputs()[i]);
      if (!storage->producer() || storage->constant() || external.contains(storage)) continue;
      external.insert(storage);
      outputOf_[storage] = static_cast<int64_t>(i);
    }
    plan_ = planMemory(graph(), external);
    QC_TRY(checkPlan(graph(), external, plan_));
    program_.arenaBytes_ = plan_.bytes;
    for (size_t i = 0; i < graph().inputs().size(); ++i) inputOf_[graph().inputs()[i]] = static_cast<int64_t>(i);
    for (size_t i = 0; i < graph().outputs().size(); ++i) {
      const Value* v = graph().outputs()[i];
      const BufferRef from = locate(v);
      if (from.kind != BufferRef::Kind::output || from.index != static_cast<int64_t>(i))
        program_.copies_.push_back({from, static_cast<int64_t>(i), v->type().byteSize()});
    }
    for (const auto& [name, tensor] : graph().constants().entries()) program_.constantBytes_ += tensor.byteSize();
    return {};
  }

  BufferRef locate(const Value* v) const {
    if (!v) return {};
    v = storageOf(v);
    if (const Tensor* t = v->constant()) return {BufferRef::Kind::fixed, 0, t->data()};
    if (const auto it = inputOf_.find(v); it != inputOf_.end()) return {BufferRef::Kind::input, it->second, nullptr};
    if (const auto it = outputOf_.find(v); it != outputOf_.end()) return {BufferRef::Kind::output, it->second, nullptr};
    return {BufferRef::Kind::arena, plan_.offsets.at(v), nullptr};
  }

  void addStep(const Node& node) {
    Step step;
    step.node = &node;
    step.kernel = findKernel(node.string("kernel"));
    step.numOperands = node.numOperands();
    for (const Value* v : node.operands()) {
      step.buffers.push_back(locate(v));
      step.sizes.push_back(v ? v->type().sizes() : std::vector<int64_t>());
    }
    for (int i = 0; i < node.numResults(); ++i) {
      step.buffers.push_back(locate(node.result(i)));
      step.sizes.push_back(node.result(i)->type().sizes());
    }
    if (step.kernel) {
      program_.params_.push_back(kernelParams(node));
      step.buffers.push_back({BufferRef::Kind::fixed, 0, program_.params_.back().data()});
      step.cost = step.kernel->cost(*step.kernel, node, program_.target_);
    }
    program_.steps_.push_back(std::move(step));
  }

  Status generateCode(const CompileOptions& options) {
    std::map<std::string, std::string> symbols;  // kernel key -> symbol
    std::vector<KernelJob> jobs;
    std::vector<std::string> symbolOfStep;
    for (const Node* node = graph().front(); node; node = node->next()) {
      if (node->is("const") || (node->def().has(kView) && node->def().has(kPure))) continue;
      addStep(*node);
      const Step& step = program_.steps_.back();
      symbolOfStep.emplace_back();
      if (!step.kernel) continue;
      const auto [it, isNew] = symbols.emplace(kernelKey(*step.kernel, *node, program_.target_), fmt::format("k{}", symbols.size()));
      if (isNew) jobs.push_back({step.kernel, node, it->second});
      symbolOfStep.back() = it->second;
    }
    const int threads = options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    QC_ASSIGN(const std::vector<KernelObject> objects, compileKernels(jobs, program_.target_, threads));
    QC_ASSIGN(program_.jit_, Jit::create(program_.target_));
    QC_TRY(program_.jit_->add(objects));
    std::map<std::string, const KernelObject*> bySymbol;
    for (const KernelObject& o : objects) bySymbol[o.symbol] = &o;
    for (size_t i = 0; i < program_.steps_.size(); ++i) {
      Step& step = program_.steps_[i];
      if (!step.kernel) continue;
      QC_ASSIGN(step.function, program_.jit_->lookup(symbolOfStep[i]));
      step.shape = bySymbol.at(symbolOfStep[i])->shape;
      program_.scratchBytes_ = std::max(program_.scratchBytes_, (step.shape.scratchBytes + 63) / 64 * 64);
    }
    program_.uniqueKernels_ = static_cast<int>(jobs.size());
    return {};
  }

  Program program_;
  MemoryPlan plan_;
  std::map<const Value*, int64_t> inputOf_, outputOf_;
};

Result<Program> buildProgram(Graph graph, const Target& target, const CompileOptions& options) {
  for (const Value* v : graph.inputs())
    if (!v->type().isStatic())
      return fail(ErrorCode::kInvalidArgument, "the shape [{}] is not known", toString(v->type().shape)).on(v->name()).help("bind it with --shape");
  return ProgramBuilder(std::move(graph), target).build(options);
}

}  // namespace qc
