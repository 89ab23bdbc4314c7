// A model whose input shapes are known only when it runs: it is read and lowered once, and compiled for each new combination on first use,
// which is remembered.  Packed weights, and code that does not depend on the shapes, are there once for all of them.
//
//   auto model = std::make_shared<Specializer>("m.onnx");
//   DynamicSession session(model, {.threads = 2});
//   QC_ASSIGN(TensorMap out, session.run({{"ids", ids}}));      // whatever the length of ids
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "passes/lower/segments.h"
#include "runtime/any_shape.h"
#include "runtime/per_shapes.h"

namespace qc {

struct SpecializeOptions {
  LoadOptions load = {};  // shapes that are fixed beforehand
  BuildOptions build = {};
  size_t remembered = 64;  // combinations; those used longest ago are forgotten
  bool lowered = false;    // the model is in the form that compile() starts from
};

class Chain;

// Shared by any number of threads; a combination that several ask for at once is compiled once.
class Specializer {
 public:
  explicit Specializer(std::string path, SpecializeOptions options = {})
      : model_(std::move(path), options.load), options_(std::move(options)), recent_(options_.remembered) {}
  explicit Specializer(Model model, SpecializeOptions options = {})
      : model_(std::move(model)), options_(std::move(options)), recent_(options_.remembered) {}

  // For inputs of these shapes.  Errors: what load and compile say, with the shapes; a model whose data decides sizes has no one program,
  // and is run by DynamicSession.
  Result<std::shared_ptr<const Executable>> executableFor(const TensorMap& inputs);
  size_t size() const;       // programs in memory: one for each combination, and for each segment of a model whose data decides sizes
  int64_t compiled() const;  // programs compiled so far

 private:
  friend class DynamicSession;
  // One program, or, where data decides sizes, a chain of them.
  struct Plan {
    std::shared_ptr<const Executable> executable;
    std::shared_ptr<const Chain> chain;
  };
  Result<Plan> planFor(const TensorMap& inputs);
  Result<Plan> planOf(Graph lowered);
  Result<Plan> build(const Shapes& shapes);
  Result<std::shared_ptr<const Chain>> chainOfAll();  // null: there is none for all shapes
  const Graph* lowered();                             // with free dims; null: the model has to be lowered for every shape

  ModelOfAnyShape model_;
  SpecializeOptions options_;
  std::once_flag lowering_;
  std::optional<Graph> lowered_;
  bool decides_ = false;  // data decides sizes in lowered_
  mutable std::mutex mutex_;
  std::condition_variable done_;
  std::set<Shapes> building_;
  PerShapes<Plan> recent_;
  std::mutex chaining_;
  std::shared_ptr<const Chain> chain_;  // of all shapes
  int64_t compiled_ = 0;
};

// What is told of a run while it goes on.
struct RunWatch {
  Session::StepHook step = {};
  CutGraph::SeeDecision decision = {};
  // Behind each program that has run, of which there are several where data decides: with what had to hold for it.
  using SeeProgram = std::function<void(const Executable&, const std::vector<std::pair<std::string, bool>>& guards)>;
  SeeProgram program = {};
};

// One thread's use of it.  Without a model, or moved from, its run() is an error.
class DynamicSession {
 public:
  explicit DynamicSession(std::shared_ptr<Specializer> model, SessionOptions options = {}, std::shared_ptr<Workspace> workspace = nullptr);
  DynamicSession(DynamicSession&&) noexcept;
  DynamicSession& operator=(DynamicSession&&) noexcept;
  ~DynamicSession();
  Result<TensorMap> run(const TensorMap& inputs, const RunWatch& watch = {});
  // The programs that ran last: one, or those of a chain.
  std::vector<std::shared_ptr<const Executable>> latest() const;

 private:
  struct Entry;
  std::shared_ptr<Specializer> model_;
  SessionOptions options_;
  std::shared_ptr<Workspace> workspace_;                    // of all sessions; made when first used
  std::map<const void*, std::unique_ptr<Entry>> sessions_;  // by program or chain
  Entry* latest_ = nullptr;
};

}  // namespace qc
