#include "codegen/plan/cost.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <string>
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
  const auto distance = [&](const KernelCost& cost) {
    return std::pair(cost.cpu.matrixUnit != cpu.matrixUnit, std::abs(cost.cpu.vectorBytes - cpu.vectorBytes));
  };
  const KernelCost* best = nullptr;
  for (const KernelCost& cost : kernelCosts())
    if (cost.kernel == kernel && (!best || distance(cost) < distance(*best))) best = &cost;
  return best;
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

double postInstructions(const Node& node) {
  const Attr* attr = node.attrs().find("post");
  const auto* post = attr ? std::get_if<ExprAttr>(attr) : nullptr;
  if (!post || !post->tree()) return 0;
  // Asked for every layer and row, of a handful of expressions, each of which takes longer to expand than a row to plan.
  constexpr size_t kMost = 64;
  thread_local std::map<std::string, double, std::less<>> known;
  if (const auto it = known.find(post->text()); it != known.end()) return it->second;
  const auto count = static_cast<double>(ExprProgram(post->tree()->expand()).instructions().size());
  if (known.size() >= kMost) known.clear();
  return known[post->text()] = count;
}

}  // namespace qc
