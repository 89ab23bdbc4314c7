#include "runtime/specialize.h"

#include <algorithm>

#include "codegen/plan/select_kernels.h"
#include "ir/arithmetic.h"
#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "ir/verify.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "runtime/chain.h"

namespace qc {

const Graph* Specializer::lowered() {
  std::call_once(lowering_, [&] {
    const Model* free = model_.free();
    if (!free) return;
    PassContext cx;
    cx.provide(options_.build.compile.insertions);
    auto graph = options_.lowered ? Result<Graph>(free->graph().clone()) : lowerModel(*free, cx);
    if (!graph) return;
    // Recurrent layers and those over run-time parameters make other weights of theirs, and nodes that are alike: once, where no pass of
    // the caller's is to come before.
    PassContext own;
    if (options_.build.compile.insertions.empty() && !runPipeline("project-recurrences,expand-dynamic,canonicalize,cse,dce", *graph, own))
      return;
    lowered_ = *std::move(graph);
    decides_ = firstDecidingByData(*lowered_);
    // Segments of one chain share theirs: branches have weights in common.
    if (!options_.build.compile.parts) options_.build.compile.parts = std::make_shared<ProgramParts>(*lowered_);
    model_.forget();
  });
  return lowered_ ? &*lowered_ : nullptr;
}

Result<Specializer::Plan> Specializer::planOf(Graph lowered) {
  if (firstDeciding(lowered)) {
    QC_ASSIGN(auto chain, Chain::create(lowered, options_));
    return Plan{nullptr, std::move(chain)};
  }
  QC_ASSIGN(Executable exe, Executable::fromGraph(std::move(lowered), options_.build.target, options_.build.compile));
  return Plan{std::make_shared<const Executable>(std::move(exe)), nullptr};
}

Result<Specializer::Plan> Specializer::build(const Shapes& shapes) {
  const Graph* graph = lowered();
  if (!graph || (model_.isFile() && brokenAt(*graph, shapes))) {
    QC_ASSIGN(const Model model, model_.at(shapes));
    registerCodegenPasses();  // whose names are steps as well
    QC_TRY(checkInsertions(options_.build.compile.insertions, kCompileSteps));
    PassContext cx;
    cx.provide(options_.build.compile.insertions);
    QC_ASSIGN(Graph own, lowerModel(model, cx));
    return planOf(std::move(own));
  }
  Shapes whole = shapes;
  for (const Value* input : graph->inputs()) {
    if (input->type().isStatic()) whole.emplace(input->name(), input->type().sizes());
    if (!whole.contains(input->name())) return fail(ErrorCode::kInvalidArgument, "no array was given for this input").on(input->name());
  }
  QC_ASSIGN(Graph bound, boundGraph(*graph, whole));
  return planOf(std::move(bound));
}

Result<std::shared_ptr<const Chain>> Specializer::chainOfAll() {
  const Graph* graph = lowered();
  if (!graph || !decides_) return std::shared_ptr<const Chain>();
  const std::lock_guard once(chaining_);
  const auto made = [&] {
    const std::lock_guard lock(mutex_);
    return chain_;
  };
  if (auto chain = made()) return chain;
  QC_ASSIGN(auto chain, Chain::create(*graph, options_));
  const std::lock_guard lock(mutex_);
  return chain_ = std::move(chain);
}

Result<Specializer::Plan> Specializer::planFor(const TensorMap& inputs) {
  QC_ASSIGN(std::shared_ptr<const Chain> chain, chainOfAll());
  if (chain) return Plan{nullptr, std::move(chain)};
  const Shapes key = shapesOf(inputs);
  std::unique_lock lock(mutex_);
  for (;;) {
    if (const auto* known = recent_.find(key)) return *known;
    if (building_.insert(key).second) break;
    done_.wait(lock);
  }
  lock.unlock();
  auto built = withoutExceptions([&] { return build(key); });
  lock.lock();
  building_.erase(key);
  done_.notify_all();
  if (!built) return built;
  if (built->executable) ++compiled_;
  recent_.add(key, *built);
  return built;
}

Result<std::shared_ptr<const Executable>> Specializer::executableFor(const TensorMap& inputs) {
  QC_ASSIGN(Plan plan, planFor(inputs));
  if (plan.executable) return std::move(plan.executable);
  if (const Graph* graph = lowered()) {
    QC_TRY(checkNoSizesDecided(*graph));
  } else {
    QC_ASSIGN(const Model model, model_.at(shapesOf(inputs)));
    QC_TRY(checkNoSizesDecided(model.graph()));
  }
  return fail(ErrorCode::kUnsupported, "the data decides sizes of this model");
}

size_t Specializer::size() const {
  const std::lock_guard lock(mutex_);
  size_t all = chain_ ? chain_->size() : 0;
  for (const auto& [shapes, plan] : recent_) all += plan.chain ? plan.chain->size() : 1;
  return all;
}

int64_t Specializer::compiled() const {
  const std::lock_guard lock(mutex_);
  int64_t all = compiled_ + (chain_ ? chain_->compiled() : 0);
  for (const auto& [shapes, plan] : recent_) all += plan.chain ? plan.chain->compiled() : 0;
  return all;
}

struct DynamicSession::Entry {
  Specializer::Plan plan;
  std::optional<Session> session;     // of a program
  std::optional<ChainSession> chain;  // or of a chain of them
};

DynamicSession::DynamicSession(std::shared_ptr<Specializer> model, SessionOptions options, std::shared_ptr<Workspace> workspace)
    : model_(std::move(model)), options_(options), workspace_(std::move(workspace)) {}
DynamicSession::DynamicSession(DynamicSession&&) noexcept = default;
DynamicSession& DynamicSession::operator=(DynamicSession&&) noexcept = default;
DynamicSession::~DynamicSession() = default;

Result<TensorMap> DynamicSession::run(const TensorMap& inputs, const RunWatch& watch) {
  const DefinedArithmetic defined;
  if (!model_) return fail(ErrorCode::kInvalidArgument, "this session has no model").help("it was moved from, or made of a null pointer");
  QC_ASSIGN(Specializer::Plan plan, model_->planFor(inputs));
  const void* key = plan.executable ? static_cast<const void*>(plan.executable.get()) : plan.chain.get();
  auto it = sessions_.find(key);
  if (it == sessions_.end()) {
    // Sessions of combinations that were forgotten would keep their code in memory.
    if (sessions_.size() >= std::max<size_t>(model_->options_.remembered, 1)) sessions_.clear();
    latest_ = nullptr;
    if (!workspace_) {
      QC_ASSIGN(workspace_, makeWorkspace(options_));
    }
    auto entry = std::make_unique<Entry>();
    if (plan.executable) {
      QC_ASSIGN(entry->session, plan.executable->sessionIn(workspace_));
    } else {
      entry->chain.emplace(plan.chain, options_, workspace_);
    }
    entry->plan = std::move(plan);
    it = sessions_.emplace(key, std::move(entry)).first;
  }
  latest_ = it->second.get();
  if (latest_->chain) return latest_->chain->run(inputs, watch);
  QC_ASSIGN(TensorMap outputs, latest_->session->run(inputs, watch.step));
  if (watch.program) watch.program(*latest_->plan.executable, {});
  return outputs;
}

std::vector<std::shared_ptr<const Executable>> DynamicSession::latest() const {
  if (!latest_) return {};
  if (latest_->plan.executable) return {latest_->plan.executable};
  return latest_->chain->latest();
}

}  // namespace qc
