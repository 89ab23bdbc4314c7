// What kernels cost.  A family counts what its code does about a node (its Work); what one of each takes is a measured constant in
// kernel_costs.def, for the row and the class of CPU that it is compiled for.  The sum is a time in nanoseconds, on one thread with
// warm caches, on the CPU that the constants come from, which stands beside them with the error of the fit.
//
//   Work work(const FooPlan& plan, const Node&, const Target& target) { return {{"call", 1}, {"vector", vectors(plan)}, {"row",
//   rows(plan)}}; }
//
// A new row, or a new name in a family's work, wants a measurement: docs/costs.md.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "codegen/target.h"

namespace qc {

class ExprAttr;
class Node;

struct WorkItem {
  std::string_view what;  // the same names for every node of a row
  double count = 0;
};
using Work = std::vector<WorkItem>;

struct KernelCost {
  std::string_view kernel;            // the row's id
  CpuClass cpu;                       // that it was measured on
  int samples = 0;                    // that the constants are fitted to; 0: taken from documents
  double median = 0, p90 = 0;         // of the fit's relative error
  std::string_view origin;            // CPU and date of measurement, or the document
  std::vector<WorkItem> nanoseconds;  // of one of each

  double of(std::string_view what) const;  // 0 if it is not among them
};

std::span<const KernelCost> kernelCosts();
// Of the row in this class, else in the nearest one: of CPUs that have a matrix unit as well or have none either, then of the nearest
// width; null if there are none.
const KernelCost* findKernelCost(std::string_view kernel, CpuClass cpu);
// What has no constants counts one nanosecond an item, so that a new row can be run and measured.
double nanosecondsOf(std::string_view kernel, CpuClass cpu, const Work& work);

// What a part of a step must take to be worth another thread: more than twice what telling the thread takes, since it finds cold caches,
// and perhaps another program on its core.
double nanosecondsWorthSplitting();

// Vectors of so many elements, the last one of which need not be full.
double vectorCount(int64_t elements, int64_t lanes);
// Of an expression of primitives, each part that occurs several times once.
struct InstructionCount {
  double all = 0, divisions = 0;  // square roots among the latter
};
InstructionCount instructionsOf(const ExprAttr& expression);
// Instructions of what an epilogue computes behind a product; 0 if there is nothing.
double postInstructions(const Node& node);

}  // namespace qc
