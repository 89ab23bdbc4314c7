#include "runtime/specialize.h"

#include <algorithm>

#include "ir/arithmetic.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"

namespace qc {

const Graph* Specializer::lowered() {
  std::call_once(lowering_, [&] {
    const Model* free = model_.free();
    if (!free) return;
    PassContext cx;
    cx.provide(options_.build.compile.insertions);
    auto graph = lowerModel(*free, cx);
    if (!graph) return;
    // Layers over run-time parameters look through their weights: once, where no pass of the caller's is to come before it.
    PassContext own;
    if (options_.build.compile.insertions.empty() && !runPipeline("expand-dynamic", *graph, own)) return;
    lowered_ = *std::move(graph);
    options_.build.compile.parts = std::make_shared<ProgramParts>(*lowered_);
  });
  return lowered_ ? &*lowered_ : nullptr;
}

Result<Executable> Specializer::compileAt(const Shapes& shapes) {
  const Graph* graph = lowered();
  const bool all =
      graph && std::all_of(graph->inputs().begin(), graph->inputs().end(), [&](const Value* v) { return shapes.contains(v->name()); });
  if (!all) {
    QC_ASSIGN(const Model model, model_.at(shapes));
    return compile(model, options_.build);
  }
  QC_ASSIGN(Graph bound, boundGraph(*graph, shapes));
  return Executable::fromGraph(std::move(bound), options_.build.target, options_.build.compile);
}

Result<std::shared_ptr<const Executable>> Specializer::build(const Shapes& shapes) {
  QC_ASSIGN(Executable exe, compileAt(shapes));
  return std::make_shared<const Executable>(std::move(exe));
}

Result<std::shared_ptr<const Executable>> Specializer::executableFor(const TensorMap& inputs) {
  const Shapes key = shapesOf(inputs);
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto it = std::find_if(recent_.begin(), recent_.end(), [&](const auto& e) { return e.first == key; });
    if (it != recent_.end()) {
      recent_.splice(recent_.begin(), recent_, it);
      return it->second;
    }
    if (building_.insert(key).second) break;
    done_.wait(lock);
  }
  lock.unlock();
  auto built = build(key);
  lock.lock();
  building_.erase(key);
  done_.notify_all();
  if (!built) return built;
  ++compiled_;
  recent_.emplace_front(key, *built);
  if (recent_.size() > std::max<size_t>(options_.remembered, 1)) recent_.pop_back();
  return built;
}

size_t Specializer::size() const {
  const std::lock_guard lock(mutex_);
  return recent_.size();
}

int64_t Specializer::compiled() const {
  const std::lock_guard lock(mutex_);
  return compiled_;
}

Result<TensorMap> DynamicSession::run(const TensorMap& inputs) {
  const DefinedArithmetic defined;
  if (!model_) return fail(ErrorCode::kInvalidArgument, "this session has no model").help("it was moved from, or made of a null pointer");
  QC_ASSIGN(std::shared_ptr<const Executable> exe, model_->executableFor(inputs));
  auto it = sessions_.find(exe.get());
  if (it == sessions_.end()) {
    // Sessions of combinations that were forgotten would keep their code in memory.
    if (sessions_.size() >= std::max<size_t>(model_->options_.remembered, 1)) sessions_.clear();
    if (!workspace_) {
      QC_ASSIGN(workspace_, makeWorkspace(options_));
    }
    QC_ASSIGN(Session session, exe->sessionIn(workspace_));
    const Executable* key = exe.get();
    it = sessions_.emplace(key, Entry{std::move(exe), std::move(session)}).first;
  }
  return it->second.session.run(inputs);
}

}  // namespace qc
