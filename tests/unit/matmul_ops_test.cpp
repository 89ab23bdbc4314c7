// linear, matmul and their integer forms: plain loops over the definition, numpy shapes, errors.
#include <cmath>

#include "ir/qmath.h"
#include "op_testing.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(Linear, FollowsTheDefinitionBitForBit) {
  Random r(3);
  for (int i = 0; i < 40; ++i) {
    const int64_t m = r.integer(1, 9), n = r.pick({1, 3, 17, 300}), k = r.pick({0, 1, 5, 70, 200});
    const Tensor x = r.normal({2, m, k}), w = r.normal({n, k}), b = r.normal({n}), residual = r.normal({2, m, n});
    std::vector<float> plain, joined;
    for (int64_t row = 0; row < 2 * m; ++row)
      for (int64_t o = 0; o < n; ++o) {
        float sum = 0;
        for (int64_t j = 0; j < k; ++j) sum = std::fma(nth(x.as<float>(), row * k + j), nth(w.as<float>(), o * k + j), sum);
        plain.push_back(sum + nth(b.as<float>(), o));
        joined.push_back((plain.back() + residual.as<float>()[joined.size()]) * 0.5f);
      }
    EXPECT_EQ(run("linear", {x, w, b}).toFloats(), plain);
    EXPECT_EQ(run("linear", {x, w, b, residual}, {{"post", std::string("(a0 + a1) * 0.5")}}).toFloats(), joined);
    EXPECT_EQ(run("linear", {x.reshaped({2 * m, k}), w, b}).sizes(), (Ints{2 * m, n}));
  }
}

TEST(Linear, IntegerFormsFollowTheDefinitionBitForBit) {
  Random r(4);
  for (int i = 0; i < 40; ++i) {
    const int64_t m = r.integer(1, 6), n = r.pick({1, 3, 17}), k = r.pick({1, 5, 70});
    const DType wt = r.integer(0, 1) ? DType::u8 : DType::s8;
    const QuantPtr xq = quantPerTensor(DType::s8, 0.02f, -9), to = quantPerTensor(DType::s8, 0.3f, 11);
    std::vector<float> scales(usize(n), 0.004f);
    std::vector<int32_t> zeros;
    for (float& s : scales) {
      s *= static_cast<float>(r.integer(1, 5));
      zeros.push_back(static_cast<int32_t>(r.integer(rangeOf(wt).min, rangeOf(wt).max)));
    }
    const QuantPtr wq = perChannel(wt, 0, scales, zeros);
    const Tensor x = r.full(DType::s8, {m, k}), w = r.full(wt, {n, k}), b = r.integers(DType::s32, {n}, -900, 900);
    std::vector<double> integers, reals;
    for (int64_t row = 0; row < m; ++row)
      for (int64_t o = 0; o < n; ++o) {
        int64_t acc = nth(b.as<int32_t>(), o);
        for (int64_t j = 0; j < k; ++j)
          acc += (static_cast<int64_t>(x.at(row * k + j)) + 9) * (static_cast<int64_t>(w.at(o * k + j)) - wq->zeroPoint(o));
        const float s = 0.02f * wq->scale(o);
        integers.push_back(qmath::requantize(static_cast<int32_t>(acc), s / 0.3f, 11, -128, 127));
        reals.push_back(static_cast<float>(acc) * s);
      }
    EXPECT_EQ(list(run("q.linear", {Operand(x, xq), Operand(w, wq), b}, {{"to", QuantAttr{to}}})), integers);
    EXPECT_EQ(list(run("q.linear", {Operand(x, xq), Operand(w, wq), b})), reals);
  }
}

TEST(Linear, WorkedExampleOfTheSpecification) {
  const QuantPtr xq = quantPerTensor(DType::u8, 0.05f, 128), to = quantPerTensor(DType::u8, 0.1f, 60);
  const QuantPtr wq = perChannel(DType::s8, 0, {0.01f, 0.02f, 0.01f}, {0});
  const Operand x(tensorOf(DType::u8, {1, 4}, {130, 120, 255, 0}), xq);
  const Operand w(tensorOf(DType::s8, {3, 4}, {10, -20, 30, -40, -128, 127, 64, 1, -50, 10, -30, 5}), wq);
  EXPECT_THAT(list(run("q.linear", {x, w}, {{"to", QuantAttr{to}}})), ElementsAre(106, 127, 37));
  const Operand bias = tensorOf(DType::s32, {3}, {1000, -1000, 500});
  EXPECT_THAT(list(run("q.linear", {x, w, bias}, {{"to", QuantAttr{to}}})), ElementsAre(111, 117, 39));
  EXPECT_THAT(list(run("q.linear", {x, w, bias}, {{"to", QuantAttr{to}}, {"clamp_min", int64_t{60}}})), ElementsAre(111, 117, 60));
  const QuantPtr shifted = quantPerTensor(DType::s8, 0.01f, 3);
  EXPECT_THAT(list(run("q.linear", {x, Operand(tensorOf(DType::s8, {1, 4}, {10, -20, 30, -40}), shifted)}, {{"to", QuantAttr{to}}})),
              ElementsAre(106));
}

TEST(Linear, SaysWhatDoesNotFit) {
  const QuantPtr q = quantPerTensor(DType::u8, 1, 0), w = quantPerTensor(DType::s8, 1, 0);
  EXPECT_THAT(inferred("linear", {{DType::f32, {2, 3}}, {DType::f32, {4, 5}}}),
              HasSubstr("rows of x f32[2,3] have 3 elements, those of w f32[4,5] have 5"));
  EXPECT_THAT(inferred("linear", {{DType::f32, {2, 3}}, {DType::f64, {4, 3}}}), HasSubstr("one element type"));
  EXPECT_THAT(inferred("linear", {{DType::f32, {}}, {DType::f32, {4, 3}}}), HasSubstr("at least 1 dims"));
  EXPECT_THAT(inferred("linear", {{DType::u8, {2, 3}}, {DType::u8, {4, 3}}}), HasSubstr("computes on floats"));
  EXPECT_THAT(inferred("q.linear", {{DType::f32, {2, 3}}, {w, {4, 3}}}), HasSubstr("quantized per tensor to 8 or 16 bits"));
  EXPECT_THAT(inferred("q.linear", {{q, {2, 3}}, {perChannel(DType::s8, 1, {1, 1, 1}, {0}), {4, 3}}}), HasSubstr("per channel on axis 0"));
  EXPECT_THAT(inferred("q.linear", {{q, {2, 3}}, {perChannel(DType::s8, 0, {1, 1, 1}, {0}), {4, 3}}}), HasSubstr("3 scales"));
  EXPECT_THAT(inferred("q.linear", {{q, {2, 3}}, {w, {4, 3}}, {DType::f32, {4}}}), HasSubstr("s32 bias"));
  EXPECT_THAT(inferred("q.linear", {{q, {2, 3}}, {w, {4, 3}}}, {{"clamp_min", int64_t{3}}}), HasSubstr("clamps need"));
  EXPECT_THAT(
      inferred("q.linear", {{q, {2, 3}}, {w, {4, 3}}}, {{"to", QuantAttr{q}}, {"clamp_min", int64_t{9}}, {"clamp_max", int64_t{3}}}),
      HasSubstr("leave nothing"));
  EXPECT_THAT(inferred("q.linear", {{q, {2, 3}}, {w, {4, 3}}}, {{"to", QuantAttr{perChannel(DType::u8, 0, {1, 1}, {0})}}}),
              HasSubstr("per tensor"));
}

TEST(Matmul, NumpyShapes) {
  const auto f = [](Shape s) { return TensorType(DType::f32, std::move(s)); };
  const Dim n = Dim::symbol("N");
  EXPECT_EQ(inferred("matmul", {f({3, 4}), f({4, 5})}), "f32[3,5]");
  EXPECT_EQ(inferred("matmul", {f({4}), f({4, 5})}), "f32[5]");
  EXPECT_EQ(inferred("matmul", {f({2, 3, 4}), f({4})}), "f32[2,3]");
  EXPECT_EQ(inferred("matmul", {f({4}), f({4})}), "f32[]");
  EXPECT_EQ(inferred("matmul", {f({2, 1, 3, 4}), f({5, 4, 6})}), "f32[2,5,3,6]");
  EXPECT_EQ(inferred("matmul", {f({n, 3, 4}), f({n, 4, 6})}), "f32[N,3,6]");
  EXPECT_EQ(inferred("matmul", {f({n, 3, 4}), f({1, 4, 6})}), "f32[N,3,6]");
  EXPECT_THAT(inferred("matmul", {f({3, 4}), f({3, 5})}), HasSubstr("rows of 4"));
  EXPECT_THAT(inferred("matmul", {f({2, 3, 4}), f({3, 4, 5})}), HasSubstr("do not broadcast (2 and 3)"));
  EXPECT_THAT(inferred("matmul", {f({}), f({3})}), HasSubstr("at least 1 dims"));
  EXPECT_THAT(inferred("matmul", {f({int64_t{1} << 21, 1}), f({1, int64_t{1} << 21})}), HasSubstr("larger than"));
}

TEST(Matmul, BroadcastsBatches) {
  Random r(5);
  const Tensor a = r.normal({2, 1, 3, 4}), b = r.normal({5, 4, 6}), y = run("matmul", {a, b});
  size_t at = 0;
  for (size_t i = 0; i < 2; ++i)
    for (size_t j = 0; j < 5; ++j)
      for (size_t row = 0; row < 3; ++row)
        for (size_t col = 0; col < 6; ++col) {
          float sum = 0;
          for (size_t k = 0; k < 4; ++k) sum = std::fma(a.as<float>()[i * 12 + row * 4 + k], b.as<float>()[j * 24 + k * 6 + col], sum);
          ASSERT_EQ(y.as<float>()[at++], sum);
        }
}

TEST(Matmul, Integers) {
  EXPECT_THAT(run("matmul", {tensorOf(DType::s32, {1, 2}, {3, -4}), tensorOf(DType::s32, {2, 1}, {5, 6})}).toInts(), ElementsAre(-9));
  EXPECT_THAT(run("matmul", {Tensor::ofInts({2}, Ints{int64_t{1} << 40, 1}), Tensor::ofInts({2}, Ints{3, 4})}).toInts(),
              ElementsAre((int64_t{3} << 40) + 4));
  const QuantPtr a = quantPerTensor(DType::u8, 0.5f, 10), b = quantPerTensor(DType::s8, 0.25f, -1), to = quantPerTensor(DType::u8, 2, 100);
  const Operand x(tensorOf(DType::u8, {1, 2}, {20, 0}), a), w(tensorOf(DType::s8, {2, 1}, {9, 39}), b);
  EXPECT_THAT(list(run("q.matmul", {x, w})), ElementsAre(-37.5));  // (10 * 10 - 10 * 40) / 8
  EXPECT_THAT(list(run("q.matmul", {x, w}, {{"to", QuantAttr{to}}})), ElementsAre(81));
}

TEST(Matmul, EmptySizes) {
  EXPECT_EQ(run("matmul", {Tensor(DType::f32, {0, 3}), Tensor(DType::f32, {3, 2})}).sizes(), (Ints{0, 2}));
  EXPECT_THAT(run("matmul", {Tensor(DType::f32, {1, 0}), Tensor(DType::f32, {0, 2})}).toFloats(), ElementsAre(0, 0));
}

}  // namespace
}  // namespace qc
