// What programs of one model have in common, whatever the shapes they are made for: packed weights and machine code.
//
//   const auto parts = std::make_shared<ProgramParts>(graph);       // with free dims
//   for (...) buildProgram(boundGraph(graph, shapes), target, {.parts = parts});
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "codegen/jit.h"
#include "codegen/plan/packed_nodes.h"

namespace qc {

// A function, and the code that it is part of, which lives as long as one of its functions is held.
struct LoadedKernel {
  std::shared_ptr<Jit> code;
  KernelFn function = nullptr;
  KernelShape shape;
};

class ProgramParts {
 public:
  // Of programs whose weights are the constants of this graph.
  explicit ProgramParts(const Graph& graph) : packed(graph) {}

  PackedNodes packed;

  // Code that a living program holds.  Any thread may ask.
  std::optional<LoadedKernel> find(const std::string& key);
  void store(const std::string& key, const LoadedKernel& kernel);

 private:
  struct Entry {
    std::weak_ptr<Jit> code;
    KernelFn function = nullptr;
    KernelShape shape;
  };
  std::mutex mutex_;
  std::map<std::string, Entry> loaded_;
};

}  // namespace qc
