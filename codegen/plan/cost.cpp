#include "codegen/plan/cost.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "ir/graph.h"
#include "ir/scalar_expr.h"

namespace qc {

std::span<const KernelCost> kernelCosts() {
  static const std::vector<KernelCost> table = {
#include "codegen/plan/kernel_costs.def"
  };
  return table;
}

double KernelCost::of(std::string_view what) const {
  for (const WorkItem& item : nanoseconds)
    if (item.what == what) return item.count;
  return 0;
}

const KernelCost* findKernelCost(std::string_view kernel, CpuClass cpu) {
  static const std::unordered_map<std::string_view, std::vector<const KernelCost*>> byKernel = [] {
    std::unordered_map<std::string_view, std::vector<const KernelCost*>> all;
    for (const KernelCost& cost : kernelCosts()) all[cost.kernel].push_back(&cost);
    return all;
  }();
  const auto distance = [&](const KernelCost& cost) {
    return std::pair(cost.cpu.matrixUnit != cpu.matrixUnit, std::abs(cost.cpu.vectorBytes - cpu.vectorBytes));
  };
  const auto it = byKernel.find(kernel);
  if (it == byKernel.end()) return nullptr;
  return *std::min_element(it->second.begin(), it->second.end(), [&](const auto* a, const auto* b) { return distance(*a) < distance(*b); });
}

double nanosecondsOf(std::string_view kernel, CpuClass cpu, const Work& work) {
  const KernelCost* cost = findKernelCost(kernel, cpu);
  double sum = 0;
  for (const WorkItem& item : work) sum += item.count * (cost ? cost->of(item.what) : 1);
  return sum;
}

double nanosecondsWorthSplitting() {
  constexpr double kTimesTheTelling = 2.5;
  static const double worth = [] {
    const KernelCost* cost = findKernelCost("thread_pool", {});
    return cost ? kTimesTheTelling * cost->of("wake") : 0;
  }();
  return worth;
}

double vectorCount(int64_t elements, int64_t lanes) { return static_cast<double>((elements + lanes - 1) / lanes); }

InstructionCount instructionsOf(const ExprAttr& expression) {
  if (!expression.tree()) return {};
  // Asked for every layer and row, of a handful of expressions, each of which takes longer to expand than a row to plan.
  constexpr size_t kMost = 64;
  thread_local std::map<std::string, InstructionCount, std::less<>> known;
  if (const auto it = known.find(expression.text()); it != known.end()) return it->second;
  InstructionCount count;
  const ExprProgram program(expression.tree()->expand());
  for (const auto& i : program.instructions()) {
    ++count.all;
    if (i.op == ScalarExpr::Op::div || i.op == ScalarExpr::Op::sqrt) ++count.divisions;
  }
  if (known.size() >= kMost) known.clear();
  return known[expression.text()] = count;
}

double postInstructions(const Node& node) {
  const Attr* attr = node.attrs().find("post");
  const auto* post = attr ? std::get_if<ExprAttr>(attr) : nullptr;
  return post ? instructionsOf(*post).all : 0;
}

}  // namespace qc
