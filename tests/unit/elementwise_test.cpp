// Elementwise ops, map, lut and cast: values against ONNX Runtime, broadcasting, dtype rules, edge cases.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "ir/interp.h"
#include "ir/lut.h"
#include "ir/op_def.h"
#include "ir/ops/broadcast.h"
#include "ir/qmath.h"

namespace qc {
namespace {

using testing::ElementsAre;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Operand {
  Tensor tensor;
  QuantPtr quant = nullptr;
};

Result<Value*> build(Graph& g, std::string_view op, const std::vector<TensorType>& types, AttrDict attrs = {}) {
  std::vector<Value*> operands;
  for (const TensorType& t : types) operands.push_back(g.addInput("x", t));
  QC_ASSIGN(Value * y, Builder(g).create(op, operands, std::move(attrs)));
  g.setOutputs({y});
  return y;
}

Tensor evaluate(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  Graph g;
  std::vector<TensorType> types;
  std::vector<Tensor> tensors;
  for (const Operand& o : operands) {
    types.push_back(o.quant ? TensorType(o.quant, toShape(o.tensor.sizes())) : o.tensor.type());
    tensors.push_back(o.tensor);
  }
  const auto y = build(g, op, types, std::move(attrs));
  EXPECT_TRUE(y) << op << ": " << (y ? "" : y.error().render());
  if (!y) return {};
  auto out = interpret(g, tensors);
  EXPECT_TRUE(out) << op << ": " << (out ? "" : out.error().render());
  return out ? out->front() : Tensor();
}

// The error of building, or the result type.
std::string inferred(std::string_view op, const std::vector<TensorType>& types, AttrDict attrs = {}) {
  Graph g;
  const auto y = build(g, op, types, std::move(attrs));
  return y ? (*y)->type().str() : "error: " + y.error().message();
}

Tensor floats(std::vector<float> v) {
  const auto n = static_cast<int64_t>(v.size());
  return Tensor::ofFloats({n}, v);
}
Tensor tensor(DType dtype, std::vector<double> v) {
  Tensor t(dtype, {static_cast<int64_t>(v.size())});
  for (size_t i = 0; i < v.size(); ++i) storeElement(dtype, t.mutableData(), static_cast<int64_t>(i), v[i]);
  return t;
}
Tensor bools(std::vector<double> v) { return tensor(DType::boolean, std::move(v)); }
std::vector<double> list(const Tensor& t) {
  std::vector<double> v;
  for (int64_t i = 0; i < t.numElements(); ++i) v.push_back(t.at(i));
  return v;
}
std::vector<double> of(std::string_view op, const std::vector<Operand>& operands, AttrDict attrs = {}) {
  return list(evaluate(op, operands, std::move(attrs)));
}

// ---- values ---------------------------------------------------------------------------------------------------------

struct Expected {
  const char* op;
  AttrDict attrs;
  std::vector<float> values;
};

// ONNX Runtime 1.31 on x (silu: double arithmetic).
TEST(Elementwise, UnaryValuesAgreeWithOnnxRuntime) {
  const Tensor x = floats({-12.5f, -3, -1.25f, -0.3f, -1e-6f, 0, 1e-6f, 0.3f, 0.5f, 1.25f, 2.5f, 20});
  const Expected table[] = {
      {"relu", {}, {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 1e-06f, 0.3f, 0.5f, 1.25f, 2.5f, 20.f}},
      {"clip", {{"min", -1.0}, {"max", 2.0}}, {-1.f, -1.f, -1.f, -0.3f, -1e-06f, 0.f, 1e-06f, 0.3f, 0.5f, 1.25f, 2.f, 2.f}},
      {"leaky_relu", {}, {-0.125f, -0.03f, -0.012499999f, -0.003f, -1e-08f, 0.f, 1e-06f, 0.3f, 0.5f, 1.25f, 2.5f, 20.f}},
      {"thresholded_relu", {{"alpha", 0.4}}, {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.5f, 1.25f, 2.5f, 20.f}},
      {"shrink", {{"lambd", 0.4}, {"bias", 0.25}}, {-12.25f, -2.75f, -1.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.25f, 1.f, 2.25f, 19.75f}},
      {"elu",
       {{"alpha", 1.5}},
       {-1.4999944f, -1.4253194f, -1.0702428f, -0.3887727f, -1.5199184e-06f, 0.f, 1e-06f, 0.3f, 0.5f, 1.25f, 2.5f, 20.f}},
      {"selu",
       {},
       {-1.7580928f, -1.6705687f, -1.2543954f, -0.45566735f, -1.781445e-06f, 0.f, 1.050701e-06f, 0.3152103f, 0.5253505f, 1.3133763f,
        2.6267526f, 21.01402f}},
      {"celu",
       {{"alpha", 2.0}},
       {-1.996139f, -1.5537397f, -0.9294771f, -0.278584f, -9.536743e-07f, 0.f, 1e-06f, 0.3f, 0.5f, 1.25f, 2.5f, 20.f}},
      {"sigmoid",
       {},
       {3.7252903e-06f, 0.047425866f, 0.22270015f, 0.4255575f, 0.49999976f, 0.5f, 0.50000024f, 0.5744425f, 0.6224593f, 0.7772999f,
        0.9241418f, 1.f}},
      {"tanh",
       {},
       {-1.f, -0.9950547f, -0.84828365f, -0.2913126f, -9.999999e-07f, 0.f, 9.999999e-07f, 0.2913126f, 0.46211717f, 0.84828365f, 0.98661435f,
        1.f}},
      {"hardsigmoid", {}, {0.f, 0.f, 0.25f, 0.44f, 0.4999998f, 0.5f, 0.5000002f, 0.56f, 0.6f, 0.75f, 1.f, 1.f}},
      {"hardswish",
       {},
       {-0.f, -0.f, -0.3645833f, -0.135f, -4.999998e-07f, 0.f, 5.0000017e-07f, 0.165f, 0.29166666f, 0.88541675f, 2.2916667f, 20.f}},
      {"softplus",
       {},
       {3.7266461e-06f, 0.048587356f, 0.2519291f, 0.5543552f, 0.69314665f, 0.6931472f, 0.69314766f, 0.8543552f, 0.974077f, 1.501929f,
        2.5788898f, 20.f}},
      {"softsign",
       {},
       {-0.9259259f, -0.75f, -0.5555556f, -0.23076925f, -9.999991e-07f, 0.f, 9.999991e-07f, 0.23076925f, 0.33333334f, 0.5555556f,
        0.71428573f, 0.95238096f}},
      {"erf",
       {},
       {-1.f, -0.9999779f, -0.92290014f, -0.32862678f, -1.1283792e-06f, 0.f, 1.1283792e-06f, 0.32862678f, 0.5204999f, 0.92290014f,
        0.9995931f, 1.f}},
      {"gelu",
       {},
       {-0.f, -0.0040496886f, -0.13206221f, -0.11462658f, -4.999996e-07f, 0.f, 5.000004e-07f, 0.18537344f, 0.34573123f, 1.1179378f,
        2.484476f, 20.f}},
      {"gelu",
       {{"approximate", std::string("tanh")}},
       {-0.f, -0.0036375225f, -0.13228577f, -0.11462908f, -4.999996e-07f, 0.f, 5.000004e-07f, 0.18537092f, 0.345714f, 1.1177142f,
        2.4849157f, 20.f}},
      {"mish",
       {},
       {-4.6583074e-05f, -0.14564745f, -0.30841395f, -0.15113318f, -5.999997e-07f, 0.f, 6.000003e-07f, 0.20800139f, 0.37524524f, 1.1318702f,
        2.4713924f, 20.f}},
      {"exp",
       {},
       {3.7266532e-06f, 0.049787067f, 0.2865048f, 0.7408182f, 0.999999f, 1.f, 1.000001f, 1.3498588f, 1.6487212f, 3.4903429f, 12.182494f,
        4.851652e+08f}},
      {"log", {}, {kNan, kNan, kNan, kNan, kNan, -kInf, -13.815511f, -1.2039728f, -0.6931472f, 0.22314355f, 0.91629076f, 2.9957323f}},
      {"sqrt", {}, {kNan, kNan, kNan, kNan, kNan, 0.f, 0.001f, 0.5477226f, 0.70710677f, 1.118034f, 1.5811388f, 4.472136f}},
      {"reciprocal", {}, {-0.08f, -0.33333334f, -0.8f, -3.3333333f, -1e+06f, kInf, 1e+06f, 3.3333333f, 2.f, 0.8f, 0.4f, 0.05f}},
      {"sin",
       {},
       {0.066321895f, -0.14112f, -0.9489846f, -0.29552022f, -1e-06f, 0.f, 1e-06f, 0.29552022f, 0.47942555f, 0.9489846f, 0.5984722f,
        0.9129453f}},
      {"cos",
       {},
       {0.99779826f, -0.9899925f, 0.31532237f, 0.9553365f, 1.f, 1.f, 1.f, 0.9553365f, 0.87758255f, 0.31532237f, -0.8011436f, 0.40808207f}},
      {"tan",
       {},
       {0.06646824f, 0.14254655f, -3.0095696f, -0.30933627f, -1e-06f, 0.f, 1e-06f, 0.30933627f, 0.5463025f, 3.0095696f, -0.74702233f,
        2.237161f}},
      {"floor", {}, {-13.f, -3.f, -2.f, -1.f, -1.f, 0.f, 0.f, 0.f, 0.f, 1.f, 2.f, 20.f}},
      {"ceil", {}, {-12.f, -3.f, -1.f, -0.f, -0.f, 0.f, 1.f, 1.f, 1.f, 2.f, 3.f, 20.f}},
      {"round", {}, {-12.f, -3.f, -1.f, -0.f, -0.f, 0.f, 0.f, 0.f, 0.f, 1.f, 2.f, 20.f}},
      {"neg", {}, {12.5f, 3.f, 1.25f, 0.3f, 1e-06f, -0.f, -1e-06f, -0.3f, -0.5f, -1.25f, -2.5f, -20.f}},
      {"abs", {}, {12.5f, 3.f, 1.25f, 0.3f, 1e-06f, 0.f, 1e-06f, 0.3f, 0.5f, 1.25f, 2.5f, 20.f}},
      {"sign", {}, {-1.f, -1.f, -1.f, -1.f, -1.f, 0.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f}},
      {"silu",
       {},
       {-4.658299e-05f, -0.14227761f, -0.27837518f, -0.12766725f, -4.9999977e-07f, 0.f, 5.000002e-07f, 0.17233276f, 0.31122968f,
        0.97162485f, 2.3103545f, 20.f}},
  };
  for (const Expected& e : table) {
    const Tensor y = evaluate(e.op, {{x}}, e.attrs);
    ASSERT_EQ(y.numElements(), 12) << e.op;
    for (size_t i = 0; i < 12; ++i) {
      const float got = y.as<float>()[i], want = e.values[i];
      if (std::isnan(want) || std::isinf(want))
        EXPECT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << e.op << " of " << x.as<float>()[i];
      else
        EXPECT_NEAR(got, want, 1e-7 + 2e-6 * std::fabs(want)) << e.op << " of " << x.as<float>()[i];
    }
  }
}

TEST(Elementwise, EveryUnaryFloatOpAgreesWithItselfInDoubleAndHalf) {
  std::mt19937 rng(3);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(5000);
  for (float& v : values) v = bfloatToFloat(floatToBfloat(halfToFloat(floatToHalf(normal(rng)))));  // exact in every type
  const Tensor x = floats(values);
  for (const auto& [name, def] : OpRegistry::get().ops()) {
    if (!def.has(kElementwise) || def.operands.size() != 1 || name == "map" || name == "not") continue;
    const Tensor single = evaluate(name, {{x}});
    for (const DType wide : {DType::f64, DType::f16, DType::bf16}) {
      Tensor xs(wide, x.sizes());
      for (int64_t i = 0; i < x.numElements(); ++i) storeElement(wide, xs.mutableData(), i, x.at(i));
      const Tensor other = evaluate(name, {{xs}});
      if (name == "isnan" || name == "isinf") {
        EXPECT_TRUE(other.sameBytes(single));
        continue;
      }
      ASSERT_EQ(other.dtype(), wide) << name;
      const double relative = wide == DType::f64 ? 4e-6 : wide == DType::f16 ? 1e-3 : 8e-3;
      for (int64_t i = 0; i < x.numElements(); ++i) {
        const double a = single.at(i), b = other.at(i);
        if (a == b || (std::isnan(a) && std::isnan(b))) continue;
        if (wide == DType::f16 && std::fabs(a) > 65000) continue;
        ASSERT_NEAR(a, b, 1e-6 + relative * std::fabs(a)) << name << " of " << x.at(i) << " in " << toString(wide);
      }
    }
  }
}

TEST(Elementwise, NanAndInfinityAsInOnnxRuntime) {
  const Tensor x = floats({kNan, -kInf, kInf});
  const Expected table[] = {{"relu", {}, {kNan, 0, kInf}},
                            {"clip", {{"min", -1.0}, {"max", 1.0}}, {kNan, -1, 1}},
                            {"hardsigmoid", {}, {kNan, 0, 1}},
                            {"hardswish", {}, {kNan, kNan, kInf}},
                            {"elu", {}, {kNan, -1, kInf}},
                            {"celu", {}, {kNan, -1, kInf}},
                            {"leaky_relu", {}, {kNan, -kInf, kInf}},
                            {"thresholded_relu", {}, {0, 0, kInf}},
                            {"shrink", {}, {0, -kInf, kInf}},
                            {"softplus", {}, {kNan, 0, kInf}},
                            {"softsign", {}, {kNan, kNan, kNan}},
                            {"erf", {}, {kNan, -1, 1}},
                            {"gelu", {}, {kNan, kNan, kInf}},
                            {"mish", {}, {kNan, kNan, kInf}},
                            {"sign", {}, {kNan, -1, 1}},
                            {"sigmoid", {}, {kNan, 0, 1}},
                            {"tanh", {}, {kNan, -1, 1}},
                            {"exp", {}, {kNan, 0, kInf}},
                            {"log", {}, {kNan, kNan, kInf}},
                            {"round", {}, {kNan, -kInf, kInf}},
                            {"reciprocal", {}, {kNan, 0, 0}},
                            {"isnan", {}, {1, 0, 0}},
                            {"isinf", {}, {0, 1, 1}}};
  for (const Expected& e : table) {
    const std::vector<float> got = evaluate(e.op, {{x}}, e.attrs).toFloats();
    for (size_t i = 0; i < 3; ++i)
      EXPECT_TRUE(got[i] == e.values[i] || (std::isnan(got[i]) && std::isnan(e.values[i])))
          << e.op << " of " << x.at(static_cast<int64_t>(i)) << " is " << got[i];
  }
  for (const char* op : {"min", "max"})
    for (const double v : of(op, {{floats({kNan, 1, kNan})}, {floats({1, kNan, kNan})}})) EXPECT_TRUE(std::isnan(v));
}

TEST(Elementwise, BinaryFloats) {
  const Tensor a = floats({5.5f, -5.5f, 2, 0}), b = floats({2, 2, -4, 1});
  EXPECT_THAT(of("add", {{a}, {b}}), ElementsAre(7.5, -3.5, -2, 1));
  EXPECT_THAT(of("sub", {{a}, {b}}), ElementsAre(3.5, -7.5, 6, -1));
  EXPECT_THAT(of("mul", {{a}, {b}}), ElementsAre(11, -11, -8, 0));
  EXPECT_THAT(of("div", {{a}, {b}}), ElementsAre(2.75, -2.75, -0.5, 0));
  EXPECT_THAT(of("min", {{a}, {b}}), ElementsAre(2, -5.5, -4, 0));
  EXPECT_THAT(of("max", {{a}, {b}}), ElementsAre(5.5, 2, 2, 1));
  EXPECT_THAT(of("mod", {{a}, {b}}), ElementsAre(1.5, 0.5, -2, 0));
  EXPECT_THAT(of("mod", {{a}, {b}}, {{"fmod", int64_t{1}}}), ElementsAre(1.5, -1.5, 2, 0));
  EXPECT_THAT(of("pow", {{floats({2, -2, 9, 4})}, {floats({3, 3, 0.5f, -1})}}), ElementsAre(8, -8, 3, 0.25));
  EXPECT_THAT(of("prelu", {{a}, {floats({0.5f})}}), ElementsAre(5.5, -2.75, 2, 0));
  EXPECT_THAT(of("less", {{a}, {b}}), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(of("less_equal", {{a}, {a}}), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(of("greater", {{a}, {b}}), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(of("greater_equal", {{a}, {b}}), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(of("equal", {{floats({1, kNan, -0.f})}, {floats({1, kNan, 0.f})}}), ElementsAre(1, 0, 1));
}

TEST(Elementwise, Integers) {
  const Tensor a = tensor(DType::s64, {7, -7, 7, -7, 5}), b = tensor(DType::s64, {3, 3, -3, -3, 0});
  EXPECT_THAT(of("div", {{a}, {b}}), ElementsAre(2, -2, -2, 2, 0));
  EXPECT_THAT(of("mod", {{a}, {b}}), ElementsAre(1, 2, -2, -1, 0));
  EXPECT_THAT(of("mod", {{a}, {b}}, {{"fmod", int64_t{1}}}), ElementsAre(1, -1, 1, -1, 0));
  EXPECT_THAT(of("pow", {{a}, {b}}), ElementsAre(343, -343, 0, 0, 1));
  EXPECT_THAT(of("relu", {{a}}), ElementsAre(7, 0, 7, 0, 5));
  EXPECT_THAT(of("sign", {{a}}), ElementsAre(1, -1, 1, -1, 1));
  EXPECT_THAT(of("add", {{tensor(DType::s32, {2147483647})}, {tensor(DType::s32, {1})}}), ElementsAre(-2147483648.0));
  EXPECT_THAT(of("sub", {{tensor(DType::u8, {3})}, {tensor(DType::u8, {5})}}), ElementsAre(254));
  EXPECT_THAT(of("abs", {{tensor(DType::s8, {-128, -5})}}), ElementsAre(-128, 5));
  EXPECT_THAT(of("neg", {{tensor(DType::s16, {7, -32768})}}), ElementsAre(-7, -32768));
  EXPECT_THAT(of("clip", {{tensor(DType::s32, {-50000000, 33554433, 50000000})}}, {{"min", -33554433.0}, {"max", 33554431.0}}),
              ElementsAre(-33554433, 33554431, 33554431));
  EXPECT_THAT(of("clip", {{tensor(DType::u8, {0, 200})}}, {{"min", 3.0}}), ElementsAre(3, 200));
  EXPECT_THAT(of("less", {{a}, {b}}), ElementsAre(0, 1, 0, 1, 0));
  const uint64_t big[] = {uint64_t{1} << 63, 3}, small[] = {1, 2};
  const Tensor x = Tensor::of<uint64_t>(DType::u64, {2}, big), y = Tensor::of<uint64_t>(DType::u64, {2}, small);
  EXPECT_THAT(of("less", {{y}, {x}}), ElementsAre(1, 1));
  EXPECT_EQ(evaluate("div", {{x}, {y}}).as<uint64_t>()[0], uint64_t{1} << 63);
  EXPECT_EQ(evaluate("max", {{x}, {y}}).as<uint64_t>()[0], uint64_t{1} << 63);
}

// The upper half of u64 is above the lower one, in every function of integers.
TEST(Elementwise, NaturalNumbersHaveNoSign) {
  constexpr uint64_t kHalf = uint64_t{1} << 63, kMost = ~uint64_t{0};
  const auto eval = [](std::string_view op, const std::vector<uint64_t>& a, const std::vector<uint64_t>& b, AttrDict attrs = {}) {
    const auto tensorOf = [](const std::vector<uint64_t>& v) { return Tensor::of<uint64_t>(DType::u64, {std::ssize(v)}, v); };
    const Tensor y = evaluate(op, {{tensorOf(a)}, {tensorOf(b)}}, std::move(attrs));
    return std::vector<uint64_t>(y.as<uint64_t>().begin(), y.as<uint64_t>().end());
  };
  const std::vector<uint64_t> a = {kHalf, kHalf + 5, 7, kMost, 5}, b = {kMost, 10, kHalf, 10, 0};
  EXPECT_THAT(eval("mod", a, b), ElementsAre(kHalf, 3, 7, 5, 0));
  EXPECT_THAT(eval("mod", a, b, {{"fmod", int64_t{1}}}), ElementsAre(kHalf, 3, 7, 5, 0));
  EXPECT_THAT(eval("div", a, b), ElementsAre(0, (kHalf + 5) / 10, 0, kMost / 10, 0));
  EXPECT_THAT(eval("pow", {3, 2, kMost, 1}, {kHalf + 1, kHalf, kHalf + 1, kMost}), ElementsAre(3, 0, kMost, 1));
  EXPECT_THAT(eval("min", a, b), ElementsAre(kHalf, 10, 7, 10, 0));
}

TEST(Elementwise, LogicAndWhere) {
  const Tensor a = bools({0, 0, 1, 1}), b = bools({0, 1, 0, 1});
  EXPECT_THAT(of("and", {{a}, {b}}), ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(of("or", {{a}, {b}}), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(of("xor", {{a}, {b}}), ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(of("not", {{a}}), ElementsAre(1, 1, 0, 0));
  EXPECT_THAT(of("equal", {{a}, {b}}), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(of("where", {{a}, {floats({1, 2, 3, 4})}, {floats({9})}}), ElementsAre(9, 9, 3, 4));
  EXPECT_THAT(of("where", {{a}, {tensor(DType::s64, {1, 2, 3, 4})}, {tensor(DType::s64, {9})}}), ElementsAre(9, 9, 3, 4));
  EXPECT_THAT(of("where", {{a}, {b}, {a}}), ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(of("where", {{a}, {tensor(DType::f16, {1, 2, 3, 4})}, {tensor(DType::f16, {9})}}), ElementsAre(9, 9, 3, 4));
}

// ---- broadcasting -----------------------------------------------------------------------------------------------------

TEST(Broadcast, AllRankThreeShapesAgreeWithPlainIndexing) {
  const int64_t sizes[] = {1, 2, 3};
  for (int code = 0; code < 729; ++code) {
    std::vector<int64_t> a(3), b(3);
    int rest = code;
    bool fits = true;
    for (size_t d = 0; d < 3; ++d) {
      a[d] = sizes[rest % 3];
      rest /= 3;
      b[d] = sizes[rest % 3];
      rest /= 3;
      fits = fits && (a[d] == b[d] || a[d] == 1 || b[d] == 1);
    }
    ASSERT_EQ(broadcastShapes(toShape(a), toShape(b)).has_value(), fits);
    if (!fits) continue;
    Tensor x(DType::f32, a), y(DType::f32, b);
    for (size_t i = 0; i < x.as<float>().size(); ++i) x.mutableAs<float>()[i] = static_cast<float>(i);
    for (size_t i = 0; i < y.as<float>().size(); ++i) y.mutableAs<float>()[i] = static_cast<float>(100 * i);
    const Tensor z = evaluate("add", {{x}, {y}});
    size_t n = 0;
    const auto index = [](const std::vector<int64_t>& s, int64_t i, int64_t j, int64_t k) {
      return usize(((s[0] == 1 ? 0 : i) * s[1] + (s[1] == 1 ? 0 : j)) * s[2] + (s[2] == 1 ? 0 : k));
    };
    for (int64_t i = 0; i < z.sizes()[0]; ++i)
      for (int64_t j = 0; j < z.sizes()[1]; ++j)
        for (int64_t k = 0; k < z.sizes()[2]; ++k, ++n)
          ASSERT_EQ(z.as<float>()[n], x.as<float>()[index(a, i, j, k)] + y.as<float>()[index(b, i, j, k)]);
  }
}

TEST(Broadcast, LargeTensorsCrossChunks) {
  Tensor x(DType::f32, {3, 5, 700}), c(DType::f32, {5, 1}), row(DType::f32, {700});
  for (size_t i = 0; i < x.as<float>().size(); ++i) x.mutableAs<float>()[i] = static_cast<float>(i);
  for (size_t i = 0; i < 5; ++i) c.mutableAs<float>()[i] = static_cast<float>(i);
  for (size_t i = 0; i < 700; ++i) row.mutableAs<float>()[i] = static_cast<float>(i);
  const Tensor y = evaluate("mul", {{evaluate("add", {{x}, {c}})}, {row}});
  for (size_t i = 0; i < y.as<float>().size(); ++i)
    ASSERT_EQ(y.as<float>()[i], (static_cast<float>(i) + static_cast<float>(i / 700 % 5)) * static_cast<float>(i % 700));
}

TEST(Broadcast, EmptyAndScalar) {
  EXPECT_EQ(evaluate("add", {{Tensor(DType::f32, {0, 3})}, {floats({1, 2, 3})}}).sizes(), (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(evaluate("add", {{Tensor(DType::f32, {0})}, {floats({1})}}).sizes(), std::vector<int64_t>{0});
  EXPECT_EQ(evaluate("add", {{Tensor(DType::f32, {})}, {Tensor(DType::f32, {})}}).rank(), 0);
}

TEST(Broadcast, SymbolicDims) {
  const Dim n = Dim::symbol("N"), m = Dim::symbol("M");
  const auto add = [](const Shape& a, const Shape& b) { return inferred("add", {{DType::f32, a}, {DType::f32, b}}); };
  EXPECT_EQ(add({n, 3}, {n, 3}), "f32[N,3]");
  EXPECT_EQ(add({n, 3}, {1, 3}), "f32[N,3]");
  EXPECT_EQ(add({n, 3}, {3}), "f32[N,3]");
  EXPECT_EQ(add({n}, {4}), "f32[4]");
  EXPECT_EQ(add({n}, {m}), "f32[max(M,N)]");
  EXPECT_EQ(add({Dim::unknown()}, {1}), "f32[?]");
}

// ---- rules ------------------------------------------------------------------------------------------------------------

TEST(Elementwise, WrongTypesAreErrorsInTheUsersWords) {
  const TensorType f{DType::f32, {2}}, h{DType::f16, {2}}, i{DType::s64, {2}}, b{DType::boolean, {2}}, three{DType::f32, {3}},
      q{quantPerTensor(DType::u8, 0.5f, 3), {2}};
  EXPECT_EQ(inferred("add", {f, h}), "error: operand b is f16, but operand a is f32");
  EXPECT_EQ(inferred("add", {b, b}), "error: operand a is bool, not a float or integer type");
  EXPECT_EQ(inferred("exp", {i}), "error: operand x is s64, not a float type");
  EXPECT_EQ(inferred("and", {f, f}), "error: operand a is f32, not bool");
  EXPECT_EQ(inferred("where", {f, f, f}), "error: operand condition is f32, not bool");
  EXPECT_EQ(inferred("where", {b, f, i}), "error: operand b is s64, but operand a is f32");
  EXPECT_EQ(inferred("add", {f, three}), "error: shapes [2] and [3] do not broadcast: 2 against 3");
  EXPECT_EQ(inferred("relu", {q}), "error: operand x is quantized (q<u8, scale=0.5, zp=3>[2]); dequantize it first");
  EXPECT_EQ(inferred("identity", {q}), "q<u8, scale=0.5, zp=3>[2]");
  EXPECT_EQ(inferred("less", {i, i}), "bool[2]");
  EXPECT_EQ(inferred("isnan", {h}), "bool[2]");
  EXPECT_EQ(inferred("gelu", {f}, {{"approximate", std::string("fast")}}),
            "error: approximate is \"fast\"; it must be \"none\" or \"tanh\"");
  EXPECT_THAT(of("isinf", {{floats({-kInf, kInf, 1})}}, {{"detect_positive", int64_t{0}}}), ElementsAre(1, 0, 0));
  EXPECT_EQ(inferred("mod", {i, i}, {{"fmod", int64_t{2}}}), "error: fmod is 2; it must be 0 or 1");
}

TEST(Elementwise, MeaningsAreReadable) {
  const auto meaning = [](std::string_view op) { return OpRegistry::get().at(op).summary; };
  EXPECT_EQ(meaning("hardswish"), "a0 * min(6, max(0, a0 + 3)) / 6");
  EXPECT_EQ(meaning("silu"), "a0 * sigmoid(a0)");
  EXPECT_EQ(meaning("leaky_relu"), "select(lt(a0, 0), 0.01 * a0, a0)");
}

// ---- cast -------------------------------------------------------------------------------------------------------------

TEST(Cast, BetweenAllTypes) {
  const auto cast = [](const Tensor& x, DType to) { return of("cast", {{x}}, {{"to", to}}); };
  const Tensor f = floats({kNan, kInf, -kInf, 300.7f, -300.7f, 2.9f, -2.9f, 0.5f});
  EXPECT_THAT(cast(f, DType::s8), ElementsAre(0, 127, -128, 127, -128, 2, -2, 0));
  EXPECT_THAT(cast(f, DType::u8), ElementsAre(0, 255, 0, 255, 0, 2, 0, 0));
  EXPECT_THAT(cast(f, DType::s32), ElementsAre(0, 2147483647, -2147483648.0, 300, -300, 2, -2, 0));
  EXPECT_THAT(cast(f, DType::u32), ElementsAre(0, 4294967295.0, 0, 300, 0, 2, 0, 0));
  EXPECT_THAT(cast(f, DType::boolean), ElementsAre(1, 1, 1, 1, 1, 1, 1, 1));
  EXPECT_THAT(cast(floats({0, -0.f, 1e-45f}), DType::boolean), ElementsAre(0, 0, 1));
  EXPECT_THAT(cast(f, DType::s4), ElementsAre(0, 7, -8, 7, -8, 2, -2, 0));
  const Tensor wide = evaluate("cast", {{floats({kInf, -kInf, 1e19f, -1e30f})}}, {{"to", DType::s64}});
  EXPECT_THAT(wide.as<int64_t>(), ElementsAre(INT64_MAX, INT64_MIN, INT64_MAX, INT64_MIN));
  const Tensor natural = evaluate("cast", {{floats({kInf, -1, 1e19f})}}, {{"to", DType::u64}});
  EXPECT_THAT(natural.as<uint64_t>(), ElementsAre(UINT64_MAX, 0, 9999999980506447872u));
  EXPECT_THAT(cast(tensor(DType::s64, {300, -300, 8589934592.0}), DType::s8), ElementsAre(44, -44, 0));
  EXPECT_THAT(cast(tensor(DType::s32, {-1, 17}), DType::u4), ElementsAre(15, 1));
  EXPECT_THAT(cast(tensor(DType::s32, {-1, 9}), DType::s4), ElementsAre(-1, -7));
  EXPECT_THAT(cast(tensor(DType::s32, {16777217, -3}), DType::f32), ElementsAre(16777216, -3));
  EXPECT_THAT(cast(bools({0, 1}), DType::f16), ElementsAre(0, 1));
  EXPECT_THAT(cast(tensor(DType::f64, {1e300, 0.1}), DType::f32), ElementsAre(kInf, 0.1f));
  EXPECT_THAT(cast(tensor(DType::f32, {65504, 70000, 0.1}), DType::f16), ElementsAre(65504, kInf, halfToFloat(floatToHalf(0.1f))));
}

// ---- map and lut --------------------------------------------------------------------------------------------------------

TEST(Map, DequantizesComputesAndFinishes) {
  const QuantPtr qa = quantPerTensor(DType::u8, 0.02f, 114), qb = quantPerTensor(DType::s8, 0.05f, -3),
                 to = quantPerTensor(DType::u8, 0.03f, 7);
  std::mt19937 rng(11);
  Tensor a(DType::u8, {4, 300}), b(DType::s8, {4, 1}), f(DType::f32, {300});
  for (auto& v : a.mutableAs<uint8_t>()) v = static_cast<uint8_t>(rng());
  for (auto& v : b.mutableAs<int8_t>()) v = static_cast<int8_t>(rng());
  for (auto& v : f.mutableAs<float>()) v = static_cast<float>(rng() % 1000) / 500;
  const Tensor y = evaluate("map", {{a, qa}, {b, qb}, {f}}, {{"expr", std::string("max(0, a0 + a1 * a2)")}, {"to", QuantAttr{to}}});
  ASSERT_EQ(y.dtype(), DType::u8);
  for (size_t i = 0; i < 1200; ++i) {
    const float x0 = qmath::dequantize(a.as<uint8_t>()[i], 0.02f, 114), x1 = qmath::dequantize(b.as<int8_t>()[i / 300], 0.05f, -3);
    const float product = x1 * f.as<float>()[i % 300];
    const float sum = x0 + product;
    ASSERT_EQ(y.as<uint8_t>()[i], qmath::finish(0 > sum ? 0 : sum, 1.0f / 0.03f, 7, 0, 255));
  }
  const Tensor plain = evaluate("map", {{a, qa}}, {{"expr", std::string("a0")}});
  EXPECT_EQ(plain.dtype(), DType::f32);
}

TEST(Map, OverOneOperandIsItsTable) {
  const char* expressions[] = {"a0", "a0 * sigmoid(a0)", "tanh(a0)", "exp(a0)", "log(a0)", "1 / a0", "min(6, max(0, a0))"};
  for (const char* text : expressions)
    for (const DType in : {DType::u8, DType::s8})
      for (const DType out : {DType::u8, DType::s8}) {
        const QuantPtr q = quantPerTensor(in, 0.047f, in == DType::u8 ? 120 : 5), to = quantPerTensor(out, 0.021f, 11);
        Tensor x(in, {256});
        for (size_t i = 0; i < 256; ++i) static_cast<uint8_t*>(x.mutableData())[i] = static_cast<uint8_t>(255 - i);
        const ScalarExpr e = *ScalarExpr::parse(text);
        const Tensor mapped = evaluate("map", {{x, q}}, {{"expr", std::string(text)}, {"to", QuantAttr{to}}});
        const Tensor looked = evaluate("lut", {{x, q}, {buildLut(e, *q, to.get())}}, {{"to", QuantAttr{to}}});
        EXPECT_TRUE(mapped.sameBytes(looked)) << text;
        const Tensor real = evaluate("map", {{x, q}}, {{"expr", std::string(text)}});
        const Tensor table = evaluate("lut", {{x, q}, {buildLut(e, *q, nullptr)}});
        for (size_t i = 0; i < 256; ++i) {
          const float a = real.as<float>()[i], b = table.as<float>()[i];
          ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b))) << text;
        }
      }
}

TEST(Map, RefusesWhatItCannotMean) {
  const TensorType f{DType::f32, {2}}, i{DType::s32, {2}};
  const auto map = [](const std::vector<TensorType>& types, std::string text, QuantPtr to = nullptr) {
    return inferred("map", types, {{"expr", std::move(text)}, {"to", QuantAttr{std::move(to)}}});
  };
  EXPECT_EQ(map({f}, "a0 + a1"), "error: the expression uses a1, but there are 1 operands");
  EXPECT_THAT(map({f}, "a0 +"), testing::StartsWith("error: scalar expression, column"));
  EXPECT_EQ(map({i}, "a0"), "error: operand 0 is s32[2]; map takes f32 and quantized operands, or f64");
  EXPECT_EQ(map({}, "1"), "error: map needs at least one operand");
  const QuantParams perChannel{DType::s8, -128, 127, 0, 0, {0.1f, 0.2f}, {0}};
  EXPECT_THAT(map({f}, "a0", std::make_shared<QuantParams>(perChannel)), testing::HasSubstr("only per-tensor"));
  EXPECT_EQ(map({f, f}, "a1", quantPerTensor(DType::u8, 0.5f, 1)), "q<u8, scale=0.5, zp=1>[2]");
  EXPECT_EQ(inferred("lut", {f, {DType::u8, {256}}}), "error: operand x is f32[2]; a table is indexed by 8-bit values");
  EXPECT_EQ(inferred("lut", {{DType::u8, {2}}, {DType::u8, {255}}}), "error: operand table is u8[255], not 256 entries of u8, s8 or f32");
  EXPECT_EQ(inferred("lut", {{DType::u8, {2}}, {DType::s8, {256}}}), "s8[2]");
}

}  // namespace
}  // namespace qc
