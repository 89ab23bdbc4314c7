#include "codegen/jit.h"

#include <gtest/gtest.h>

#include "codegen/plan/kernel.h"
#include "ir/op_def.h"

namespace qc {
namespace {

// A small convolution, packed for `def`.
struct Packed {
  Graph graph;
  Node* node = nullptr;
  KernelPlanPtr plan;
};
Result<Packed> packed(const KernelDef& def, float xScale = 0.1f, int64_t outputs = 8) {
  Packed p;
  Builder b(p.graph);
  Value* x = p.graph.addInput("x", TensorType(quantPerTensor(DType::u8, xScale, 3), {4, 16}));
  Value* w = b.constant("w", Tensor(DType::s8, {outputs, 16}), quantPerTensor(DType::s8, 0.2f, 0));
  QC_ASSIGN(Node * source, b.createNode("q.linear", {x, w}, {{"to", QuantAttr{quantPerTensor(DType::u8, 0.5f, 9)}}}));
  b.before(source);
  Target target = Target::host();
  target.isas = def.isas;  // where nothing better would be chosen
  p.plan = def.supports(*source, target);
  QC_CHECK(p.plan, "not supported");
  QC_ASSIGN(p.node, packKernel({&def, p.plan}, *source, b));
  return p;
}

TEST(Kernels, IdsAreUniqueAndRowsComplete) {
  for (const KernelDef& def : kernelTable()) {
    EXPECT_EQ(findKernel(def.id), &def) << def.id;
    EXPECT_TRUE(def.supports && def.plan && def.emit && !def.ops.empty()) << def.id;
  }
  EXPECT_EQ(findKernel("no such kernel"), nullptr);
}

TEST(Kernels, KeyIgnoresScalesAndSeesShapes) {
  const KernelDef& def = *findKernel("gemm_s16_generic");
  const Packed a = packed(def).value(), b = packed(def, 0.7f).value(), c = packed(def, 0.1f, 9).value();
  EXPECT_EQ(kernelKey(def, *a.node, Target{}), kernelKey(def, *b.node, Target{}));
  EXPECT_NE(kernelKey(def, *a.node, Target{}), kernelKey(def, *c.node, Target{}));
  EXPECT_NE(kernelKey(def, *a.node, Target{}), kernelKey(def, *a.node, Target::parse("avx2").value()));
}

TEST(Kernels, ParamsFollowTheTypes) {
  const Packed p = packed(*findKernel("gemm_s16_generic"), 0.25f).value();
  const std::vector<ParamRecord> params = kernelParams(*p.node);
  ASSERT_EQ(static_cast<int>(params.size()), p.node->numOperands() + 1);
  EXPECT_EQ(params.front().scale, 0.25f);
  EXPECT_EQ(params.front().zeroPoint, 3);
  EXPECT_EQ(params.back().inverseScale, 2.0f);
  EXPECT_EQ(params.back().qmax, 255);
}

TEST(Jit, CompilesOnThreadsLoadsAndFinds) {
  const KernelDef& def = *findKernel("gemm_s16_generic");
  std::vector<Packed> graphs;
  for (int64_t i = 1; i <= 4; ++i) graphs.push_back(packed(def, 0.1f, 8 * i).value());
  std::vector<KernelJob> jobs;
  for (size_t i = 0; i < graphs.size(); ++i) jobs.push_back({&def, graphs[i].node, graphs[i].plan, fmt::format("k{}", i)});
  const Result<std::vector<KernelObject>> objects = compileKernels(jobs, Target::host().cap(Target{}), 3);
  ASSERT_TRUE(objects.has_value()) << objects.error().render();
  const auto jit = Jit::create(Target::host().cap(Target{}));
  ASSERT_TRUE(jit.has_value()) << jit.error().render();
  ASSERT_TRUE((*jit)->add(*objects).has_value());
  for (const KernelJob& job : jobs) EXPECT_TRUE((*jit)->lookup(job.symbol).has_value());
  EXPECT_FALSE((*jit)->lookup("absent").has_value());
  EXPECT_FALSE((*jit)->add(*objects).has_value()) << "the same symbols twice";
}

TEST(Jit, FatalErrorsOfLlvmComeBackAsErrors) {
  const KernelDef& def = *findKernel("gemm_u8s8_avx512vnni");
  const Packed p = packed(def).value();
  const KernelJob job{&def, p.node, p.plan, "kernel"};
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Result<std::vector<KernelObject>> objects = compileKernels({&job, 1}, Target::parse("x86-64").value(), 1);
    ASSERT_FALSE(objects.has_value());  // the target lacks the instruction
    EXPECT_EQ(objects.error().code(), ErrorCode::kInternal);
  }
  EXPECT_TRUE(compileKernels({&job, 1}, Target::parse("avx512vnni").value(), 1).has_value());
}

TEST(Jit, RefusesBytesThatAreNoObject) {
  const auto jit = Jit::create(Target::host().cap(Target{}));
  ASSERT_TRUE(jit.has_value());
  KernelObject broken;
  broken.symbol = "k";
  broken.bytes = "not an object file";
  const bool accepted = (*jit)->add({&broken, 1}).has_value() && (*jit)->lookup("k").has_value();
  EXPECT_FALSE(accepted);
}

TEST(Jit, WritesTextForAnyTarget) {
  const KernelDef& def = *findKernel("gemm_s16_generic");
  const Packed p = packed(def).value();
  const KernelJob job{&def, p.node, p.plan, "kernel"};
  EXPECT_NE(kernelText(job, Target{}, KernelText::ir).value().find(" i32 @kernel("), std::string::npos);
  EXPECT_NE(kernelText(job, Target::parse("aarch64").value(), KernelText::assembly).value().find("kernel:"), std::string::npos);
  const KernelDef& vnni = *findKernel("gemm_u8s8_avx512vnni");
  const Packed q = packed(vnni).value();
  EXPECT_NE(
      kernelText({&vnni, q.node, q.plan, "kernel"}, Target::parse("avx512vnni").value(), KernelText::assembly).value().find("vpdpbusd"),
      std::string::npos);
}

}  // namespace
}  // namespace qc
