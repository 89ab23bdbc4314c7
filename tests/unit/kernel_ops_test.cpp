// k.conv as an op: what it accepts, what it refuses.  Its values are compared with the kernels' in tests/kernels.
#include <gtest/gtest.h>

#include "ir/graph.h"
#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {
namespace {

constexpr const char* kPacking = "s8 panel=16 lanes=16 group=4 pad=4 natural rows";

struct Operands {
  TensorType x = TensorType(quantPerTensor(DType::u8, 0.1f, 3), {5, 8});
  int64_t weights = 8 * 16, columns = 16;
  bool scale = true;
  std::vector<int64_t> weightShape = {10, 8};
  std::string packing = kPacking, post;
};

Result<Node*> build(const Operands& o) {
  static std::vector<std::unique_ptr<Graph>> graphs;
  graphs.push_back(std::make_unique<Graph>());
  Builder b(*graphs.back());
  Value* x = b.graph().addInput("x", o.x);
  Value* w = b.constant("w", Tensor(DType::s8, {o.weights}));
  Value* scale = o.scale ? b.constant("s", Tensor(DType::f32, {o.columns})) : nullptr;
  Value* bias = b.constant("b", Tensor(DType::s32, {o.columns}));
  return b.createNode(
      "k.conv", {x, w, scale, bias},
      {{"weight_shape", o.weightShape}, {"packing", o.packing}, {"post", o.post}, {"to", QuantAttr{quantPerTensor(DType::u8, 1, 0)}}});
}

TEST(KernelOps, InfersAndVerifies) {
  const Result<Node*> node = build({});
  ASSERT_TRUE(node.has_value()) << node.error().render();
  EXPECT_EQ((*node)->result()->type().shape, (Shape{5, 10}));
  EXPECT_FALSE(verify((*node)->graph(), Stage::kKernel).has_value());  // which kernel?
  (*node)->attrs().set("kernel", std::string("gemm_u8s8_generic"));
  EXPECT_TRUE(verify((*node)->graph(), Stage::kKernel).has_value());
  EXPECT_FALSE(verify((*node)->graph(), Stage::kQuant).has_value());
}

TEST(KernelOps, RefusesWhatDoesNotFit) {
  const auto refused = [](auto change) {
    Operands o;
    change(o);
    return !build(o).has_value();
  };
  EXPECT_TRUE(refused([](Operands& o) { o.weights = 64; }));
  EXPECT_TRUE(refused([](Operands& o) { o.columns = 10; }));
  EXPECT_TRUE(refused([](Operands& o) { o.scale = false; }));
  EXPECT_TRUE(refused([](Operands& o) { o.packing = "dense"; }));
  EXPECT_TRUE(refused([](Operands& o) { o.packing = "f32 panel=16 lanes=16 group=1 pad=1 natural rows"; }));
  EXPECT_TRUE(refused([](Operands& o) { o.post = "a0 + a1"; }));
  EXPECT_TRUE(refused([](Operands& o) { o.post = "a0 +"; }));
  EXPECT_TRUE(refused([](Operands& o) { o.weightShape = {10, 9}; }));
  EXPECT_TRUE(refused([](Operands& o) { o.weightShape = {int64_t{1} << 40, 8}; }));
  EXPECT_TRUE(refused([](Operands& o) { o.weightShape = {0, 8}; }));
  EXPECT_TRUE(refused([](Operands& o) { o.weightShape = {10}; }));
  EXPECT_TRUE(refused([](Operands& o) { o.x = TensorType(DType::f32, {5, 8}); }));
  EXPECT_TRUE(refused([](Operands& o) { o.x = TensorType(quantPerTensor(DType::s8, 0.1f, 0), {5, 8}); }));
}

}  // namespace
}  // namespace qc
