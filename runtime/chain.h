// A model whose data decides sizes, as a chain: the graph is cut behind what decides (passes/lower/segments.h), and each segment is
// compiled for the sizes that come out, which are remembered like those of a model's inputs.
#pragma once

#include <memory>
#include <vector>

#include "passes/lower/segments.h"
#include "runtime/specialize.h"

namespace qc {

class Chain {
 public:
  // Of a graph as compile() starts from it.
  static Result<std::shared_ptr<const Chain>> create(const Graph& lowered, const SpecializeOptions& options);
  int64_t compiled() const;  // programs so far
  size_t size() const;       // in memory

 private:
  friend class ChainSession;
  CutGraph cut_;
  std::vector<std::shared_ptr<Specializer>> segments_;  // null: one that runs no program
};

// One thread's use of it.
class ChainSession {
 public:
  ChainSession(std::shared_ptr<const Chain> chain, const SessionOptions& options, std::shared_ptr<Workspace> workspace);
  Result<TensorMap> run(const TensorMap& inputs, const RunWatch& watch);
  // Of all segments that have run.
  std::vector<std::shared_ptr<const Executable>> latest() const;

 private:
  std::shared_ptr<const Chain> chain_;
  std::vector<std::unique_ptr<DynamicSession>> sessions_;
};

}  // namespace qc
