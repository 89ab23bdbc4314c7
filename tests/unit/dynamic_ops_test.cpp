// Parameters found at run time: worked examples of the specification, rows, integer layers against their float meaning.
#include <cmath>
#include <limits>

#include "op_testing.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(DynamicParams, WorkedExample) {
  const std::vector<Tensor> p = runAll("dynamic_qparams", {floats({3}, {-1, 0.5f, 2})});
  EXPECT_FLOAT_EQ(static_cast<float>(p[0].at(0)), 0.0117647061f);
  EXPECT_EQ(p[1].at(0), 85);
  EXPECT_THAT(list(run("quantize_with", {floats({3}, {-1, 0.5f, 2}), p[0], p[1]})), ElementsAre(0, 127, 255));
}

TEST(DynamicParams, RowsAndSpecialValues) {
  const Tensor x = floats({3, 2}, {-1, 2, 0, 0, std::numeric_limits<float>::infinity(), 4});
  const AttrDict token{{"granularity", std::string("token")}, {"eps", 0.0}};
  const std::vector<Tensor> p = runAll("dynamic_qparams", {x}, token);
  EXPECT_EQ(p[0].sizes(), (Ints{3, 1}));
  EXPECT_THAT(list(p[1]), ElementsAre(85, 0, 0));
  EXPECT_EQ(p[0].at(1), 1) << "nothing but zeros";
  EXPECT_FLOAT_EQ(static_cast<float>(p[0].at(2)), 4.0f / 255) << "what is not finite does not count";
  EXPECT_THAT(list(run("quantize_with", {x, p[0], p[1]})), ElementsAre(0, 255, 0, 0, 255, 255));
}

// y = linear(dequantize_with(q), dequantize(w)) + bias, up to the rounding of float sums.
void expectMeaning(const Tensor& x, bool token, const QuantPtr& wq, const Tensor& w) {
  Random random(5);
  const int64_t outputs = w.sizes()[0];
  const Tensor bias = random.normal({outputs});
  const std::vector<Tensor> p = runAll("dynamic_qparams", {x}, {{"granularity", std::string(token ? "token" : "tensor")}});
  const Tensor q = run("quantize_with", {x, p[0], p[1]});
  const Tensor y = run("q.dynamic_linear", {q, Operand::constant(w, wq), bias, p[0], p[1]});
  const Tensor expected = run("linear", {run("dequantize_with", {q, p[0], p[1]}), run("dequantize", {Operand(w, wq)}), bias});
  ASSERT_EQ(y.sizes(), expected.sizes());
  for (int64_t i = 0; i < y.numElements(); ++i) EXPECT_NEAR(y.at(i), expected.at(i), 1e-4 * (1 + std::fabs(expected.at(i)))) << i;
}

TEST(DynamicLinear, MeansTheFloatLayer) {
  Random random(1);
  const Tensor x = random.normal({2, 3, 10});
  expectMeaning(x, false, perChannel(DType::s8, 0, {0.1f, 0.2f, 0.05f, 0.4f}, {0}), random.full(DType::s8, {4, 10}));
  expectMeaning(x, true, perChannel(DType::s8, 0, {0.1f, 0.2f, 0.05f, 0.4f}, {3, -5, 0, 1}), random.full(DType::s8, {4, 10}));
  QuantParams groups = *perChannel(DType::s4, 1, {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f}, {0});
  groups.blockSize = 4;  // groups of 4, 4 and 2
  expectMeaning(x, true, std::make_shared<QuantParams>(groups), random.full(DType::s4, {2, 10}));
}

TEST(DynamicLinear, Refusals) {
  const TensorType x(DType::u8, Shape{2, 4}), s(DType::f32, Shape{}), z(DType::s32, Shape{});
  const TensorType w(quantPerTensor(DType::s8, 1, 0), Shape{3, 4}), none(DType::f32, Shape{3});
  EXPECT_EQ(inferred("q.dynamic_linear", {x, w, none, s, z}), "f32[2,3]");
  EXPECT_THAT(inferred("q.dynamic_linear", {TensorType(DType::f32, Shape{2, 4}), w, none, s, z}), HasSubstr("8-bit integers"));
  EXPECT_THAT(inferred("q.dynamic_linear", {x, w, none, TensorType(DType::f32, Shape{4}), z}), HasSubstr("one value per row"));
  EXPECT_THAT(inferred("q.dynamic_linear",
                       {TensorType(DType::u8, Shape{2, 40000}), TensorType(quantPerTensor(DType::s8, 1, 0), Shape{3, 40000}), none, s, z}),
              HasSubstr("overflow"));
}

TEST(DynamicConv, PaddingIsTheZeroPoint) {
  Random random(2);
  const Tensor x = random.normal({2, 3, 5, 5}), w = random.full(DType::s8, {4, 3, 3, 3}), bias = random.normal({4});
  const QuantPtr wq = perChannel(DType::s8, 0, {0.1f, 0.2f, 0.05f, 0.4f}, {0});
  const AttrDict attrs{{"pads", Ints{1, 1, 1, 1}}, {"strides", Ints{2, 1}}};
  const std::vector<Tensor> p = runAll("dynamic_qparams", {x});
  const Tensor q = run("quantize_with", {x, p[0], p[1]});
  const Tensor y = run("q.dynamic_conv", {q, Operand::constant(w, wq), bias, p[0], p[1]}, attrs);
  const Tensor expected = run("conv", {run("dequantize_with", {q, p[0], p[1]}), run("dequantize", {Operand(w, wq)}), bias}, attrs);
  ASSERT_EQ(y.sizes(), expected.sizes());
  for (int64_t i = 0; i < y.numElements(); ++i) EXPECT_NEAR(y.at(i), expected.at(i), 1e-3) << i;
}

struct RecurrentCase {
  const char* op;
  int64_t gates;
  const char* direction;
  int64_t linearBeforeReset;
};

class DynamicRecurrent : public testing::TestWithParam<RecurrentCase> {};

// With 8 bits for inputs and states the result stays near the float layer over the same weights.
TEST_P(DynamicRecurrent, StaysNearTheFloatLayer) {
  const RecurrentCase& c = GetParam();
  constexpr int64_t kSteps = 6, kBatch = 2, kInput = 5, kHidden = 4;
  const int64_t directions = std::string_view(c.direction) == "bidirectional" ? 2 : 1, rows = c.gates * kHidden;
  Random random(3);
  const Tensor x = random.normal({kSteps, kBatch, kInput}), bias = random.normal({directions, 2 * rows});
  const Tensor w = random.integers(DType::s8, {directions, rows, kInput}, -100, 100),
               r = random.integers(DType::s8, {directions, rows, kHidden}, -100, 100);
  const Tensor lengths = tensorOf(DType::s32, {kBatch}, {kSteps, kSteps - 2});
  const auto perRow = [&](int64_t depth) {
    QuantParams q{DType::s8, -128, 127, 2, depth, {}, {0}};
    for (int64_t i = 0; i < directions * rows; ++i) q.scales.push_back(0.004f + 0.0003f * static_cast<float>(i));
    return std::make_shared<const QuantParams>(q);
  };
  AttrDict attrs{{"hidden_size", kHidden}, {"direction", std::string(c.direction)}};
  if (c.linearBeforeReset >= 0) attrs.set("linear_before_reset", c.linearBeforeReset);
  const std::vector<Tensor> expected = runAll(
      c.op, {x, run("dequantize", {Operand(w, perRow(kInput))}), run("dequantize", {Operand(r, perRow(kHidden))}), bias, lengths}, attrs);
  for (const char* granularity : {"tensor", "token"}) {
    attrs.set("granularity", std::string(granularity));
    const std::vector<Tensor> y =
        runAll("q.dynamic_" + std::string(c.op),
               {x, Operand::constant(w, perRow(kInput)), Operand::constant(r, perRow(kHidden)), bias, lengths}, attrs);
    for (size_t o = 0; o < expected.size(); ++o)
      for (int64_t i = 0; i < expected[o].numElements(); ++i)
        EXPECT_NEAR(y[o].at(i), expected[o].at(i), 0.06) << granularity << o << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, DynamicRecurrent,
                         testing::Values(RecurrentCase{"lstm", 4, "forward", -1}, RecurrentCase{"lstm", 4, "bidirectional", -1},
                                         RecurrentCase{"gru", 3, "reverse", 0}, RecurrentCase{"gru", 3, "bidirectional", 1},
                                         RecurrentCase{"rnn", 1, "forward", -1}));

// One step from a state of zeros: the input's products are those of q.dynamic_linear, which are exact.
TEST(DynamicRecurrent, ProductsAreThoseOfALinearLayer) {
  Random random(4);
  const Tensor x = random.normal({1, 3, 5}), w = random.full(DType::s8, {1, 4, 5}), r = random.full(DType::s8, {1, 4, 4});
  const QuantPtr q = quantPerTensor(DType::s8, 0.01f, 0);
  const std::vector<Tensor> y = runAll("q.dynamic_rnn", {x, Operand::constant(w, q), Operand::constant(r, q)},
                                       {{"hidden_size", int64_t{4}}, {"activations", std::string("Affine")}});
  const std::vector<Tensor> p = runAll("dynamic_qparams", {x});
  const Tensor product = run(
      "q.dynamic_linear", {run("quantize_with", {x, p[0], p[1]}), Operand::constant(w.reshaped({4, 5}), q), Operand::none(), p[0], p[1]});
  for (int64_t i = 0; i < product.numElements(); ++i) EXPECT_EQ(y[0].at(i), product.at(i)) << i;
}

TEST(DynamicRecurrent, RefusesScalesWithinARow) {
  QuantParams q{DType::s8, -128, 127, 2, 0, {1, 1, 1, 1, 1}, {0}};
  const TensorType w(std::make_shared<const QuantParams>(q), Shape{1, 4, 5}), r(quantPerTensor(DType::s8, 1, 0), Shape{1, 4, 4});
  EXPECT_THAT(inferred("q.dynamic_rnn", {TensorType(DType::f32, Shape{1, 1, 5}), w, r}, {{"hidden_size", int64_t{4}}}),
              HasSubstr("one scale per row"));
}

}  // namespace
}  // namespace qc
