// The table of constants against the kernels: every row has some, and they name what its work counts.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "codegen/plan/kernel.h"
#include "codegen/program.h"
#include "tests/bench/problem.h"

namespace qc {
namespace {

TEST(Costs, EveryRowHasConstants) {
  for (const KernelDef& def : kernelTable()) {
    const KernelCost* cost = findKernelCost(def.id, {.vectorBytes = 16});
    EXPECT_TRUE(cost) << def.id << " is not in kernel_costs.def: measure it (docs/costs.md)";
    EXPECT_FALSE(cost && cost->origin.empty()) << def.id;
  }
  EXPECT_GT(nanosecondsWorthSplitting(), 0);
}

TEST(Costs, ConstantsAreOfKernelsThatThereAre) {
  for (const KernelCost& cost : kernelCosts()) {
    EXPECT_TRUE(cost.kernel == "thread_pool" || cost.kernel == "step" || findKernel(cost.kernel)) << cost.kernel;
    EXPECT_TRUE(cost.samples > 0 || cost.origin.starts_with("not measured")) << cost.kernel;
    double sum = 0;
    for (const WorkItem& item : cost.nanoseconds) {
      EXPECT_GE(item.count, 0) << cost.kernel << " " << item.what;
      sum += item.count;
    }
    EXPECT_GT(sum, 0) << cost.kernel;
  }
}

TEST(Costs, NearestClassStandsIn) {
  const CpuClass cpu{.vectorBytes = 64};
  const KernelCost* wide = findKernelCost("softmax", cpu);
  ASSERT_TRUE(wide);
  EXPECT_EQ(wide->cpu, cpu);
  EXPECT_EQ(findKernelCost("softmax", {.vectorBytes = 1024}), wide);
  EXPECT_FALSE(findKernelCost("no_such_kernel", cpu));
  EXPECT_EQ(nanosecondsOf("no_such_kernel", cpu, {{"call", 1}, {"row", 3}}), 4);
  EXPECT_DOUBLE_EQ(nanosecondsOf("softmax", cpu, {{"call", 2}, {"row", 3}}), 2 * wide->of("call") + 3 * wide->of("row"));
  // A CPU with a matrix unit is told apart where it was measured.
  const KernelCost* withUnit = findKernelCost("softmax", Target::parse("amx-int8")->cpuClass());
  ASSERT_TRUE(withUnit);
  EXPECT_TRUE(withUnit->cpu.matrixUnit);
  EXPECT_NE(withUnit, wide);
  EXPECT_TRUE(findKernelCost("gemm_u8s8_amx", cpu)->cpu.matrixUnit);
}

// What only moves bytes is counted as that, whatever they stand for: integers that keep their parameters are rounded by q.resize alone.
TEST(Costs, MovedIntegersAreBytes) {
  const std::string head = " !u[1,20,20,96] {sizes=[1,40,40,96], scales=[1,2,2,1], mode=\"nearest\", layout=\"channels_last\"";
  const Target target = Target::parse("x86-64+avx2").value();
  double nanoseconds[2] = {};
  for (const bool rescales : {false, true}) {
    const auto problem = bench::buildProblem((rescales ? "q.resize" + head + ", to=!u}" : "resize" + head + "}") + " : !u[1,40,40,96]");
    ASSERT_TRUE(problem) << problem.error().render();
    const auto candidates = candidateKernels(*problem->node, target);
    ASSERT_FALSE(candidates.empty());
    nanoseconds[rescales] = candidates[0].plan->nanoseconds;
    for (const WorkItem& item : candidates[0].def->work(*problem->node, target, *candidates[0].plan))
      EXPECT_TRUE(item.what != std::string_view("conversion") || (item.count > 0) == rescales);
  }
  EXPECT_LT(nanoseconds[0], nanoseconds[1] / 4);
}

// On every tier, whether this machine runs it or not: choosing needs no code.
TEST(Costs, WorkIsWhatTheConstantsName) {
  const auto problems = bench::readProblems(QC_SOURCE_DIR "/tests/bench/problems.txt");
  ASSERT_TRUE(problems) << problems.error().render();
  std::set<std::string_view> seen;
  for (const char* tier : {"generic", "x86-64+avx2", "x86-64+avxvnni", "x86-64+avx512", "x86-64+avx512vnni", "x86-64+amx-int8",
                           "aarch64+i8mm", "aarch64+dotprod"}) {
    const Target target = Target::parse(tier).value();
    for (const std::string& text : *problems) {
      const auto problem = bench::buildProblem(text);
      ASSERT_TRUE(problem) << problem.error().render();
      const auto candidates = candidateKernels(*problem->node, target);
      EXPECT_FALSE(candidates.empty()) << text << " on " << tier;
      for (const KernelChoice& choice : candidates) {
        seen.insert(choice.def->id);
        const KernelCost* cost = findKernelCost(choice.def->id, target.cpuClass());
        ASSERT_TRUE(cost) << choice.def->id;
        std::set<std::string_view> named;
        for (const WorkItem& item : cost->nanoseconds) named.insert(item.what);
        for (const WorkItem& item : choice.def->work(*problem->node, target, *choice.plan)) {
          EXPECT_TRUE(item.count == 0 || named.contains(item.what))
              << choice.def->id << " counts '" << item.what << "', which has no constant";
          EXPECT_TRUE(item.count >= 0 && std::isfinite(item.count)) << text << " " << item.what;
        }
        EXPECT_GT(choice.plan->nanoseconds, 0) << text << " with " << choice.def->id;
      }
    }
  }
  for (const KernelDef& def : kernelTable()) EXPECT_TRUE(seen.contains(def.id)) << "no problem of problems.txt is for " << def.id;
}

}  // namespace
}  // namespace qc
