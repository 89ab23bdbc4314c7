// Integers between a QuantizeLinear and a DequantizeLinear are plain numbers, as ONNX has them: what computes on them computes on them, and
// the DequantizeLinear says what the result means.  As imported, and lowered to integers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "runtime/model.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;
using testing::integer;
using testing::ints;
using testing::Model;
using ::testing::Pointwise;

constexpr int kU8 = onnx::TensorProto::UINT8, kBool = onnx::TensorProto::BOOL, kFloat = onnx::TensorProto::FLOAT;
using testing::Ints;
using Floats = std::vector<float>;

// x = -1, 0.2, 0.6, 3 of scale 0.1 and zero point 10: the integers 0, 12, 16, 40 in q.
Model quantizedModel(const Ints& sizes = {4}) {
  Model m;
  m.input("x", sizes).floats("s", {}, {0.1f}).small("z", {}, kU8, {10}).node("QuantizeLinear", {"x", "s", "z"}, {"q"}, {}, "quantize");
  return m;
}

Floats run(const Graph& graph) {
  const Tensor x = Tensor::ofFloats(graph.inputs()[0]->type().sizes(), Floats{-1.0f, 0.2f, 0.6f, 3.0f});
  const auto y = interpret(graph, std::vector{x});
  EXPECT_TRUE(y) << y.error().render();
  return y ? y->front().toFloats() : Floats();
}

// The result `r` of the model, read with the parameters of q.
void expectResult(Model m, const Floats& expected, const char* what, bool dequantize = true) {
  if (dequantize) m.node("DequantizeLinear", {"r", "s", "z"}, {"y"}, {}, "dequantize");
  auto imported = importOnnx(m.output(dequantize ? "y" : "r").bytes(), {});
  ASSERT_TRUE(imported) << what << ": " << imported.error().render();
  EXPECT_THAT(run(*imported), Pointwise(FloatNear(1e-6f), expected)) << what;
  PassContext cx;
  const auto lowered = lowerModel(qc::Model(imported->clone(), "m"), cx);
  ASSERT_TRUE(lowered) << what << ": " << lowered.error().render();
  EXPECT_THAT(run(*lowered), Pointwise(FloatNear(1e-6f), expected)) << what << lowered->str();
}

TEST(OnnxIntegers, AreClipped) {
  Model m = quantizedModel();
  m.small("low", {}, kU8, {5}).small("high", {}, kU8, {20}).node("Clip", {"q", "low", "high"}, {"r"});
  expectResult(m, {-0.5f, 0.2f, 0.6f, 1.0f}, "Quantize - Clip - Dequantize");
  Graph g = importOnnx(m.node("DequantizeLinear", {"r", "s", "z"}, {"y"}).output("y").bytes(), {}).value();
  EXPECT_NE(g.str().find("u8[5:20]"), std::string::npos) << "the range of the quantize, and no op of its own: " << g.str();
  Model mostly = quantizedModel();
  expectResult(mostly.small("least", {}, kU8, {15}).node("Max", {"q", "least"}, {"r"}), {0.5f, 0.5f, 0.6f, 3.0f}, "Max");
  Model least = quantizedModel();
  expectResult(least.small("most", {}, kU8, {15}).node("Min", {"q", "most"}, {"r"}), {-1.0f, 0.2f, 0.5f, 0.5f}, "Min");
}

TEST(OnnxIntegers, ArePaddedWithIntegers) {
  Model with = quantizedModel();
  with.int64s("pads", {1, 1}).small("v", {}, kU8, {7}).node("Pad", {"q", "pads", "v"}, {"r"});
  expectResult(with, {-0.3f, -1.0f, 0.2f, 0.6f, 3.0f, -0.3f}, "a value");
  Model without = quantizedModel();
  expectResult(without.int64s("pads", {1, 1}).node("Pad", {"q", "pads"}, {"r"}), {-1.0f, -1.0f, 0.2f, 0.6f, 3.0f, -1.0f}, "0");
}

TEST(OnnxIntegers, AreReadWithOtherParameters) {
  Model m = quantizedModel();
  m.floats("s2", {}, {0.5f}).small("z2", {}, kU8, {0}).node("DequantizeLinear", {"q", "s2", "z2"}, {"r"});
  expectResult(m, {0.0f, 6.0f, 8.0f, 20.0f}, "another scale", false);
  Model joined = quantizedModel();
  joined.floats("s2", {}, {0.2f}).small("z2", {}, kU8, {0}).node("QuantizeLinear", {"x", "s2", "z2"}, {"q2"});
  joined.node("Concat", {"q", "q2"}, {"r"}, {integer("axis", 0)});
  expectResult(joined, {-1.0f, 0.2f, 0.6f, 3.0f, -1.0f, -0.9f, -0.7f, 0.5f}, "Concat of unlike scales");
}

TEST(OnnxIntegers, AreClippedBesideOthers) {
  Model m = quantizedModel();
  m.small("low", {}, kU8, {5}).small("high", {}, kU8, {20}).node("Clip", {"q", "low", "high"}, {"c"});
  m.node("Concat", {"c", "q"}, {"r"}, {integer("axis", 0)});
  expectResult(m, {-0.5f, 0.2f, 0.6f, 1.0f, -1.0f, 0.2f, 0.6f, 3.0f}, "Concat of clipped integers and others");
}

TEST(OnnxIntegers, ArePassedOn) {
  Model pooled = quantizedModel({1, 1, 4});
  expectResult(pooled.node("MaxPool", {"q"}, {"r"}, {ints("kernel_shape", {2})}), {0.2f, 0.6f, 3.0f}, "MaxPool");
  Model chosen = quantizedModel();
  chosen.small("c", {4}, kBool, {1, 0, 1, 0}).small("hundred", {}, kU8, {100}).node("Where", {"c", "q", "hundred"}, {"r"});
  expectResult(chosen, {-1.0f, 9.0f, 0.6f, 9.0f}, "Where");
  Model table = quantizedModel();
  table.small("t", {3}, kU8, {10, 20, 30}).int64s("i", {2, 0, 2, 1}).node("Gather", {"t", "i"}, {"g"}).node("Max", {"g", "q"}, {"r"});
  expectResult(table, {2.0f, 0.2f, 2.0f, 3.0f}, "a table beside them");
  Model cast = quantizedModel();
  expectResult(cast.node("Cast", {"q"}, {"r"}, {integer("to", kFloat)}), {0.0f, 12.0f, 16.0f, 40.0f}, "Cast", false);
}

// A scale of 0 stands for zeros, of the whole or of a channel.
TEST(OnnxIntegers, OfScaleZeroAreZero) {
  Model whole = quantizedModel();
  whole.floats("s0", {}, {0.0f}).node("DequantizeLinear", {"q", "s0", "z"}, {"d"}).node("Add", {"d", "x"}, {"r"});
  expectResult(whole, {-1.0f, 0.2f, 0.6f, 3.0f}, "all", false);
  Model channel;
  channel.input("x", {2, 2}).small("w", {2, 2}, onnx::TensorProto::INT8, {1, 2, 3, 4}).floats("ws", {2}, {0.5f, 0.0f});
  channel.node("DequantizeLinear", {"w", "ws"}, {"d"}, {integer("axis", 1)}).node("MatMul", {"x", "d"}, {"r"});
  expectResult(channel, {-1.0f * 0.5f + 0.2f * 1.5f, 0, 0.6f * 0.5f + 3.0f * 1.5f, 0}, "a channel", false);
}

// Of a negative scale the integers count from the other end: of a channel, and in blocks along rows, one of them of scale 0.
TEST(OnnxIntegers, OfNegativeScales) {
  Model channel;
  channel.input("x", {2, 2}).small("w", {2, 2}, onnx::TensorProto::INT8, {1, -128, 3, 127}).floats("ws", {2}, {0.5f, -0.25f});
  channel.small("wz", {2}, onnx::TensorProto::INT8, {1, -1}).node("DequantizeLinear", {"w", "ws", "wz"}, {"d"}, {integer("axis", 1)});
  channel.node("MatMul", {"x", "d"}, {"r"});  // 0, 31.75; 1, -32
  expectResult(channel, {0.2f, -31.75f - 0.2f * 32, 3.0f, 0.6f * 31.75f - 3.0f * 32}, "a channel", false);
  Model blocks(21);
  blocks.input("x", {2, 2}).small("w", {2, 4}, onnx::TensorProto::INT8, {1, 2, 3, 4, 5, 6, 7, 8}).floats("ws", {2, 2}, {-1, 0.5f, 0, -2});
  blocks.node("DequantizeLinear", {"w", "ws"}, {"d"}, {integer("axis", 1), integer("block_size", 2)}).node("MatMul", {"x", "d"}, {"p"});
  blocks.int64s("from", {1}).int64s("to", {3}).int64s("axes", {1}).node("Slice", {"p", "from", "to", "axes"}, {"r"});
  // columns 1 and 2: -2, 1.5; 0, -14
  expectResult(blocks, {2.0f, -1.5f - 0.2f * 14, -1.2f, 0.9f - 3.0f * 14}, "blocks", false);
}

TEST(OnnxIntegers, AreMultiplied) {
  Model m = quantizedModel({2, 2});
  m.small("w", {2, 2}, onnx::TensorProto::INT8, {1, -2, 3, 4}).floats("scale", {2}, {0.5f, 0.25f});
  m.node("MatMulInteger", {"q", "w", "z"}, {"i"}).node("Cast", {"i"}, {"f"}, {integer("to", kFloat)}).node("Mul", {"f", "scale"}, {"r"});
  // (0, 12; 16, 40) - 10 = (-10, 2; 6, 30)
  expectResult(m, {(-10.0f + 6) * 0.5f, (20.0f + 8) * 0.25f, (6.0f + 90) * 0.5f, (-12.0f + 120) * 0.25f}, "MatMulInteger", false);
}

}  // namespace
}  // namespace qc
