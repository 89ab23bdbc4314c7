// A program: a graph whose every node has a kernel, the machine code of those kernels, and where each value lives.
// Immutable once built, free of threads and of memory for activations: runtime/ adds those.
//
//   QC_ASSIGN(Program program, buildProgram(std::move(graph), target, {.threads = 2}));
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "codegen/plan/kernel.h"
#include "codegen/program_parts.h"
#include "ir/graph.h"
#include "passes/insertion.h"

namespace qc {

struct CompileOptions {
  int threads = 0;                           // compiling threads; 0: as many as the machine has
  bool verifyEach = false;                   // verify the graph after every pass
  bool load = true;                          // false: chosen and planned, without machine code; for compileToObject()
  std::string cacheFolder = {};              // of compiled kernels, see object_cache.h; empty: none
  int64_t cacheBytes = int64_t{256} << 20;   // bound of the folder
  PassInsertions insertions = {};            // passes of one's own at the steps of `lower` (compile() alone) and `compile`
  bool remember = false;                     // kernels in the memory of this process, for the next model that is compiled so
  std::shared_ptr<ProgramParts> parts = {};  // shared with other programs of the model; null: all its own
};

// Where a step finds one of its buffers.
struct BufferRef {
  enum class Kind : uint8_t { none, input, output, arena, fixed };
  Kind kind = Kind::none;
  int64_t index = 0;              // input, output: which; arena: byte offset
  const void* address = nullptr;  // fixed: constants and parameter blocks
};

struct Step {
  const Node* node = nullptr;
  const KernelDef* kernel = nullptr;  // null: the op's reference evaluation on the host
  KernelPlanPtr plan = nullptr;       // the kernel's of the node
  KernelFn function = nullptr;
  KernelShape shape;
  std::vector<BufferRef> buffers;  // operands, results, parameter block
  int numOperands = 0;
  std::vector<std::vector<int64_t>> sizes;  // of operands and results, for host steps

  // Whether threads share the step: two of them save half of it.
  bool splits() const { return kernel && plan->nanoseconds > 2 * nanosecondsWorthSplitting(); }
};

class Program {
 public:
  Program() = default;
  Program(Program&&) = default;
  Program& operator=(Program&&) = default;

  const Graph& graph() const;  // an empty one where it was moved from
  const Target& target() const { return target_; }
  const std::vector<Step>& steps() const { return steps_; }
  int64_t arenaBytes() const { return arenaBytes_; }
  int64_t scratchBytes() const { return scratchBytes_; }  // per chunk of parallel work
  int64_t constantBytes() const { return constantBytes_; }
  int uniqueKernels() const { return uniqueKernels_; }
  int cachedKernels() const { return cachedKernels_; }  // of these, found in a cache
  // Outputs that no step writes: input or constant passed through, or one value returned twice.
  struct Copy {
    BufferRef from;
    int64_t output, bytes;
  };
  const std::vector<Copy>& copies() const { return copies_; }

 private:
  friend class ProgramBuilder;
  std::unique_ptr<Graph> graph_;
  Target target_;
  std::vector<std::shared_ptr<Jit>> code_;  // that the functions of steps are part of
  std::vector<Step> steps_;                 // views without a reader outside the program (reshape) have none
  std::vector<std::vector<ParamRecord>> params_;
  std::vector<Copy> copies_;
  int64_t arenaBytes_ = 0, scratchBytes_ = 0, constantBytes_ = 0;
  int uniqueKernels_ = 0, cachedKernels_ = 0;
};

// From a float or quant stage graph: runs the pipeline to kernels, generates code, plans memory.
Result<Program> buildProgram(Graph graph, const Target& target, const CompileOptions& options = {});

}  // namespace qc
