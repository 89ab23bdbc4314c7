#include "codegen/program.h"

#include <algorithm>
#include <map>
#include <set>
#include <thread>

#include "codegen/object_cache.h"
#include "codegen/plan/select_kernels.h"
#include "ir/arithmetic.h"
#include "ir/verify.h"
#include "passes/lower/memory_plan.h"
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
    QC_TRY(checkInsertions(options.insertions, kCompileSteps));
    cx.provide(options.insertions);
    if (options.parts) cx.provide(&options.parts->packed);
    PassManagerOptions manager;
    manager.verifyEach = options.verifyEach;
    QC_TRY(runPipeline("compile", graph(), cx, manager));
    // A pass of the caller's may have come behind selection, and changed nodes.
    if (auto* plans = cx.get<KernelPlans>(); plans && options.insertions.empty()) plans_ = std::move(*plans);
    return {};
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

  // The plan by which the kernel was chosen, or a new one.
  Result<KernelPlanPtr> planOf(const KernelDef& def, const Node& node) const {
    if (const auto it = plans_.find(&node); it != plans_.end()) return it->second;
    if (KernelPlanPtr plan = def.plan(node, program_.target_)) return plan;
    return fail(ErrorCode::kInvalidModel, "kernel '{}' has no code for this node", def.id).at(node.location());
  }

  // Gives the key of its code; empty: it has none.
  Result<std::string> addStep(const Node& node) {
    Step step;
    std::string key;
    step.node = &node;
    step.kernel = findKernel(node.string("kernel"));
    step.numOperands = node.numOperands();
    const auto values = usize(node.numOperands() + node.numResults());
    step.buffers.reserve(values + (step.kernel ? 1 : 0));
    step.sizes.reserve(values);
    for (const Value* v : node.operands()) {
      step.buffers.push_back(locate(v));
      step.sizes.push_back(v ? v->type().sizes() : std::vector<int64_t>());
    }
    for (int i = 0; i < node.numResults(); ++i) {
      step.buffers.push_back(locate(node.result(i)));
      step.sizes.push_back(node.result(i)->type().sizes());
    }
    if (step.kernel) {
      QC_ASSIGN(step.plan, planOf(*step.kernel, node));
      program_.params_.push_back(kernelParams(node, step.plan->numbers));
      step.buffers.push_back({BufferRef::Kind::fixed, 0, program_.params_.back().data()});
      key = codeKey(*step.kernel, node, program_.target_, *step.plan);
    }
    program_.steps_.push_back(std::move(step));
    return key;
  }

  Status generateCode(const CompileOptions& options) {
    std::vector<std::string> keys;  // of unique kernels
    std::map<std::string, size_t> stepOf;
    std::vector<std::string> keyOfStep;
    for (const Node* node = graph().front(); node; node = node->next()) {
      if (node->is("const") || (node->def().has(kView) && node->def().has(kPure))) continue;
      QC_ASSIGN(const std::string key, addStep(*node));
      keyOfStep.push_back(key);
      if (!key.empty() && stepOf.emplace(key, program_.steps_.size() - 1).second) keys.push_back(key);
    }
    program_.uniqueKernels_ = static_cast<int>(keys.size());
    if (!options.load) return {};
    QC_ASSIGN(const std::vector<LoadedKernel> kernels, kernelsFor(keys, stepOf, options));
    std::map<std::string, const LoadedKernel*> byKey;
    for (size_t i = 0; i < keys.size(); ++i) byKey[keys[i]] = &kernels[i];
    std::set<std::shared_ptr<Jit>> code;
    for (size_t i = 0; i < program_.steps_.size(); ++i) {
      Step& step = program_.steps_[i];
      if (!step.kernel) continue;
      const LoadedKernel& kernel = *byKey.at(keyOfStep[i]);
      code.insert(kernel.code);
      step.function = kernel.function;
      step.shape = step.plan->shapeOf(kernel.shape);
      program_.scratchBytes_ = std::max(program_.scratchBytes_, (step.shape.scratchBytes + 63) / 64 * 64);
    }
    program_.code_.assign(code.begin(), code.end());
    return {};
  }

  // Those that the parts have; the others are loaded, and shared.
  Result<std::vector<LoadedKernel>> kernelsFor(const std::vector<std::string>& keys, const std::map<std::string, size_t>& stepOf,
                                               const CompileOptions& options) {
    std::vector<LoadedKernel> kernels(keys.size());
    std::vector<std::string> missing;
    std::vector<size_t> places;
    for (size_t i = 0; i < keys.size(); ++i) {
      std::optional<LoadedKernel> found = options.parts ? options.parts->find(keys[i]) : std::nullopt;
      if (found) {
        kernels[i] = *std::move(found);
        ++program_.cachedKernels_;
        continue;
      }
      missing.push_back(keys[i]);
      places.push_back(i);
    }
    if (missing.empty()) return kernels;
    QC_ASSIGN(const std::vector<KernelObject> objects, objectsFor(missing, stepOf, options));
    QC_ASSIGN(const std::shared_ptr<Jit> jit, Jit::create(program_.target_));
    QC_TRY(jit->add(objects));
    for (size_t i = 0; i < missing.size(); ++i) {
      LoadedKernel& kernel = kernels[places[i]];
      QC_ASSIGN(const KernelFn function, jit->lookup(objects[i].symbol));
      kernel = {jit, function, objects[i].shape};
      if (options.parts) options.parts->store(missing[i], kernel);
    }
    return kernels;
  }

  // From a cache where one has them; the rest are compiled, and remembered.
  Result<std::vector<KernelObject>> objectsFor(const std::vector<std::string>& keys, const std::map<std::string, size_t>& stepOf,
                                               const CompileOptions& options) {
    const ObjectCache cache(options.cacheFolder, options.cacheBytes);
    ObjectMemory* memory = options.remember ? &ObjectMemory::ofProcess() : nullptr;
    std::vector<KernelObject> objects(keys.size());
    std::vector<KernelJob> jobs;
    std::vector<size_t> places;
    for (size_t i = 0; i < keys.size(); ++i) {
      std::optional<KernelObject> found = memory ? memory->find(keys[i]) : std::nullopt;
      if (!found) found = cache.find(keys[i]);
      if (found) {
        objects[i] = std::move(*found);
        ++program_.cachedKernels_;
        continue;
      }
      const Step& step = program_.steps_[stepOf.at(keys[i])];
      jobs.push_back({step.kernel, step.node, step.plan, ObjectCache::symbolFor(keys[i])});
      places.push_back(i);
    }
    const int threads = options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    QC_ASSIGN(std::vector<KernelObject> compiled, compileKernels(jobs, program_.target_, threads));
    for (size_t i = 0; i < compiled.size(); ++i) {
      cache.store(keys[places[i]], compiled[i]);
      if (memory) memory->store(keys[places[i]], compiled[i]);
      objects[places[i]] = std::move(compiled[i]);
    }
    return objects;
  }

  Program program_;
  MemoryPlan plan_;
  KernelPlans plans_;
  std::map<const Value*, int64_t> inputOf_, outputOf_;
};

const Graph& Program::graph() const {
  static const Graph kNone;
  return graph_ ? *graph_ : kNone;
}

Result<Program> buildProgram(Graph graph, const Target& target, const CompileOptions& options) {
  const DefinedArithmetic defined;
  for (const Value* v : graph.inputs())
    if (!v->type().isStatic())
      return fail(ErrorCode::kInvalidArgument, "the shape [{}] is not known", toString(v->type().shape))
          .on(v->name())
          .help("bind it with LoadOptions::shapes");
  QC_TRY(checkNoSizesDecided(graph));
  return ProgramBuilder(std::move(graph), target).build(options);
}

}  // namespace qc
