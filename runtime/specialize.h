// A model whose input shapes are known only when it runs: it is read and lowered once, and compiled for each new combination on first use,
// which is remembered.  Packed weights, and code that does not depend on the shapes, are there once for all of them.
//
//   auto model = std::make_shared<Specializer>("m.onnx");
//   DynamicSession session(model, {.threads = 2});
//   QC_ASSIGN(TensorMap out, session.run({{"ids", ids}}));      // whatever the length of ids
#pragma once

#include <condition_variable>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "runtime/any_shape.h"

namespace qc {

struct SpecializeOptions {
  LoadOptions load = {};  // shapes that are fixed beforehand
  BuildOptions build = {};
  size_t remembered = 64;  // combinations; those used longest ago are forgotten
};

// Shared by any number of threads; a combination that several ask for at once is compiled once.
class Specializer {
 public:
  explicit Specializer(std::string path, SpecializeOptions options = {})
      : model_(std::move(path), options.load), options_(std::move(options)) {}
  explicit Specializer(Model model, SpecializeOptions options = {}) : model_(std::move(model)), options_(std::move(options)) {}

  // For inputs of these shapes.  Errors: what load and compile say, with the shapes.
  Result<std::shared_ptr<const Executable>> executableFor(const TensorMap& inputs);
  size_t size() const;       // combinations in memory
  int64_t compiled() const;  // combinations compiled so far

 private:
  friend class DynamicSession;
  Result<std::shared_ptr<const Executable>> build(const Shapes& shapes);
  Result<Executable> compileAt(const Shapes& shapes);
  const Graph* lowered();  // with free dims; null: the model has to be lowered for every shape

  ModelOfAnyShape model_;
  SpecializeOptions options_;
  std::once_flag lowering_;
  std::optional<Graph> lowered_;
  mutable std::mutex mutex_;
  std::condition_variable done_;
  std::set<Shapes> building_;
  std::list<std::pair<Shapes, std::shared_ptr<const Executable>>> recent_;  // latest first
  int64_t compiled_ = 0;
};

// One thread's use of it.  Without a model, or moved from, its run() is an error.
class DynamicSession {
 public:
  explicit DynamicSession(std::shared_ptr<Specializer> model, SessionOptions options = {}) : model_(std::move(model)), options_(options) {}
  Result<TensorMap> run(const TensorMap& inputs);

 private:
  struct Entry {
    std::shared_ptr<const Executable> executable;
    Session session;
  };
  std::shared_ptr<Specializer> model_;
  SessionOptions options_;
  std::shared_ptr<Workspace> workspace_;  // of all sessions; made when first used
  std::map<const Executable*, Entry> sessions_;
};

}  // namespace qc
