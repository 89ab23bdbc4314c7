// Reductions, argmax, topk, cumsum: orders of summation, ties, empty sets, errors.
#include <cmath>
#include <limits>

#include "ir/qmath.h"
#include "op_testing.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity();

AttrDict over(Ints axes, int64_t keepDims = 1) { return {{"axes", std::move(axes)}, {"keepdims", keepDims}}; }

TEST(Reduce, SumsAreStriped) {
  Random r(7);
  const Tensor x = r.normal({3, 37, 5});
  const Tensor sum = run("reduce_sum", {x}, over({1})), mean = run("reduce_mean", {x}, over({1}, 0));
  EXPECT_EQ(sum.sizes(), (Ints{3, 1, 5}));
  EXPECT_EQ(mean.sizes(), (Ints{3, 5}));
  for (size_t a = 0; a < 3; ++a)
    for (size_t c = 0; c < 5; ++c) {
      qmath::StripedSum expected;
      for (size_t i = 0; i < 37; ++i) expected.add(static_cast<int64_t>(i), x.as<float>()[(a * 37 + i) * 5 + c]);
      EXPECT_EQ(sum.as<float>()[a * 5 + c], expected.total());
      EXPECT_EQ(mean.as<float>()[a * 5 + c], expected.total() / 37.0f);
    }
}

TEST(Reduce, SpatialAxesCountAlikeInBothLayouts) {
  Random r(8);
  const Tensor x = r.normal({2, 6, 5, 7});
  const Tensor first = run("reduce_mean", {x}, over({2, 3}, 0)), last = run("reduce_mean", {channelsLast(x)}, over({1, 2}, 0));
  EXPECT_TRUE(first.sameBytes(last));
}

TEST(Reduce, WorkedExamples) {
  const Tensor x = floats({2, 3}, {1, -2, 3, 4, 5, -6});
  EXPECT_THAT(run("reduce_max", {x}, over({1})).toFloats(), ElementsAre(3, 5));
  EXPECT_THAT(run("reduce_min", {x}, over({0})).toFloats(), ElementsAre(1, -2, -6));
  EXPECT_THAT(run("reduce_prod", {x}, over({0, 1})).toFloats(), ElementsAre(720));
  EXPECT_THAT(run("reduce_sum", {x}, over({})).toFloats(), ElementsAre(1, -2, 3, 4, 5, -6));
  EXPECT_EQ(run("reduce_sum", {x}, over({0, 1}, 0)).sizes(), Ints{});
  const Tensor whole = tensorOf(DType::s32, {2, 2}, {7, -4, 2, 9});
  EXPECT_THAT(run("reduce_mean", {whole}, over({1})).toInts(), ElementsAre(1, 5));
  EXPECT_THAT(run("reduce_sum", {Tensor::ofInts({2}, Ints{INT64_MAX, 1})}, over({0})).toInts(), ElementsAre(INT64_MIN));
  EXPECT_THAT(list(run("reduce_max", {tensorOf(DType::boolean, {2}, {0, 1})}, over({0}))), ElementsAre(1));
}

TEST(Reduce, EmptySets) {
  const Tensor none(DType::f32, {2, 0});
  EXPECT_THAT(run("reduce_sum", {none}, over({1})).toFloats(), ElementsAre(0, 0));
  EXPECT_THAT(run("reduce_prod", {none}, over({1})).toFloats(), ElementsAre(1, 1));
  EXPECT_THAT(run("reduce_max", {none}, over({1})).toFloats(), ElementsAre(-kInf, -kInf));
  EXPECT_TRUE(std::isnan(run("reduce_mean", {none}, over({1})).toFloats()[0]));
  EXPECT_THAT(run("reduce_mean", {Tensor(DType::s32, {1, 0})}, over({1})).toInts(), ElementsAre(0));
  EXPECT_EQ(run("reduce_sum", {none}, over({0})).sizes(), (Ints{1, 0}));
  EXPECT_THAT(inferred("argmax", {none.type()}, {{"axis", int64_t{1}}}), HasSubstr("is empty"));
  // Where there is no result, none of nothing is asked for.
  EXPECT_EQ(run("argmax", {Tensor(DType::f32, {0, 0})}, {{"axis", int64_t{1}}}).sizes(), (Ints{0, 1}));
  EXPECT_EQ(run("argmin", {Tensor(DType::f32, {2, 0, 0})}, {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}}).sizes(), (Ints{2, 0}));
  EXPECT_EQ(run("softmax", {Tensor(DType::f32, {0, 0})}, {{"axis", int64_t{1}}}).sizes(), (Ints{0, 0}));
}

// The upper half of u64 is above the lower one.
TEST(Reduce, NaturalNumbersHaveNoSign) {
  constexpr uint64_t kHalf = uint64_t{1} << 63, kMost = ~uint64_t{0};
  const uint64_t values[] = {kHalf, kHalf + 5, 7, kMost};
  const Tensor x = Tensor::of<uint64_t>(DType::u64, {4}, values);
  const auto one = [](const Tensor& y) { return y.as<uint64_t>()[0]; };
  EXPECT_EQ(one(run("reduce_max", {x}, over({0}))), kMost);
  EXPECT_EQ(one(run("reduce_min", {x}, over({0}))), 7u);
  EXPECT_EQ(one(run("reduce_sum", {x}, over({0}))), 11u);  // modulo 2^64
  const uint64_t halves[] = {kHalf, 2};
  EXPECT_EQ(one(run("reduce_mean", {Tensor::of<uint64_t>(DType::u64, {2}, halves)}, over({0}))), kHalf / 2 + 1);
  EXPECT_EQ(one(run("reduce_max", {Tensor(DType::u64, {0})}, over({0}))), 0u);
  EXPECT_EQ(one(run("reduce_min", {Tensor(DType::u64, {0})}, over({0}))), kMost);
  EXPECT_THAT(run("argmax", {x}, {{"axis", int64_t{0}}}).toInts(), ElementsAre(3));
  EXPECT_THAT(run("argmin", {x}, {{"axis", int64_t{0}}}).toInts(), ElementsAre(2));
  for (const int64_t largest : {0, 1}) {
    const auto best = runAll("topk", {x}, {{"k", int64_t{2}}, {"axis", int64_t{0}}, {"largest", largest}});
    const auto found = best[0].as<uint64_t>();
    EXPECT_EQ(std::vector<uint64_t>(found.begin(), found.end()),
              largest ? (std::vector{kMost, kHalf + 5}) : (std::vector{uint64_t{7}, kHalf}));
    EXPECT_EQ(best[1].toInts(), largest ? (Ints{3, 1}) : (Ints{2, 0}));
  }
}

TEST(Reduce, QuantizedOperands) {
  const QuantPtr q = quantPerTensor(DType::u8, 0.5f, 10), to = quantPerTensor(DType::u8, 0.25f, 3);
  const Operand x(tensorOf(DType::u8, {1, 4}, {10, 20, 31, 40}), q);
  EXPECT_THAT(list(run("reduce_max", {x}, over({1}))), ElementsAre(40));
  EXPECT_EQ(inferred("reduce_max", {{q, {1, 4}}}, over({1}, 0)), "q<u8, scale=0.5, zp=10>[1]");
  AttrDict attrs = over({1});
  attrs.set("to", QuantAttr{to});
  EXPECT_THAT(list(run("q.reduce_mean", {x}, attrs)), ElementsAre(qmath::requantize(61, (0.5f / 0.25f) / 4.0f, 3, 0, 255)));
  attrs.set("axes", Ints{0, 1});
  EXPECT_THAT(inferred("q.reduce_mean", {{q, {1 << 20, 16}}}, attrs), HasSubstr("could overflow"));
  EXPECT_THAT(inferred("q.reduce_mean", {{q, {4, 4}}}, over({0})), HasSubstr("to"));
}

TEST(Reduce, SaysWhatDoesNotFit) {
  const TensorType x(DType::f32, {2, 3});
  EXPECT_THAT(inferred("reduce_sum", {x}, over({2})), HasSubstr("axes=[2]"));
  EXPECT_THAT(inferred("reduce_sum", {x}, over({1, 0})), HasSubstr("ascending"));
  EXPECT_THAT(inferred("reduce_sum", {x}, over({-1})), HasSubstr("axes=[-1]"));
  EXPECT_EQ(inferred("reduce_sum", {{DType::f32, {Dim::symbol("N"), 3}}}, over({1})), "f32[N,1]");
}

TEST(ArgMax, TiesAndNan) {
  const auto arg = [](std::string_view op, std::vector<float> v, int64_t last = 0) {
    const auto n = static_cast<int64_t>(v.size());
    return run(op, {floats({n}, std::move(v))}, {{"axis", int64_t{0}}, {"keepdims", int64_t{0}}, {"select_last", last}}).toInts()[0];
  };
  EXPECT_EQ(arg("argmax", {1, 7, 7, 3}), 1);
  EXPECT_EQ(arg("argmax", {1, 7, 7, 3}, 1), 2);
  EXPECT_EQ(arg("argmin", {1, 7, 1, 3}), 0);
  EXPECT_EQ(arg("argmin", {1, 7, 1, 3}, 1), 2);
  EXPECT_EQ(arg("argmax", {std::nanf(""), -kInf, 2}), 2);
  EXPECT_EQ(arg("argmax", {-kInf, -kInf}), 0);
}

TEST(TopK, OrdersAndBreaksTiesByIndex) {
  const Tensor x = floats({1, 5}, {3, 9, 3, 1, 9});
  const AttrDict attrs = {{"k", int64_t{3}}, {"axis", int64_t{1}}};
  const auto best = runAll("topk", {x}, attrs);
  EXPECT_THAT(best[0].toFloats(), ElementsAre(9, 9, 3));
  EXPECT_THAT(best[1].toInts(), ElementsAre(1, 4, 0));
  AttrDict smallest = attrs;
  smallest.set("largest", int64_t{0});
  EXPECT_THAT(runAll("topk", {x}, smallest)[1].toInts(), ElementsAre(3, 0, 2));
  const auto column = runAll("topk", {floats({3, 2}, {1, 6, 5, 4, 3, 2})}, {{"k", int64_t{2}}, {"axis", int64_t{0}}});
  EXPECT_THAT(column[0].toFloats(), ElementsAre(5, 6, 3, 4));
  EXPECT_THAT(column[1].toInts(), ElementsAre(1, 0, 2, 1));
  EXPECT_THAT(inferred("topk", {x.type()}, {{"k", int64_t{6}}, {"axis", int64_t{1}}}), HasSubstr("k=6 of the 5 elements"));
  EXPECT_EQ(runAll("topk", {x}, {{"k", int64_t{0}}, {"axis", int64_t{1}}})[0].sizes(), (Ints{1, 0}));
}

TEST(Cumsum, AllForms) {
  const Tensor x = floats({4}, {1, 2, 3, 4});
  const auto sum = [&](int64_t exclusive, int64_t reverse) {
    return run("cumsum", {x}, {{"axis", int64_t{0}}, {"exclusive", exclusive}, {"reverse", reverse}}).toFloats();
  };
  EXPECT_THAT(sum(0, 0), ElementsAre(1, 3, 6, 10));
  EXPECT_THAT(sum(1, 0), ElementsAre(0, 1, 3, 6));
  EXPECT_THAT(sum(0, 1), ElementsAre(10, 9, 7, 4));
  EXPECT_THAT(sum(1, 1), ElementsAre(9, 7, 4, 0));
  EXPECT_THAT(inferred("cumsum", {x.type()}, {{"axis", int64_t{1}}}), HasSubstr("axis=1"));
}

TEST(Cumprod, AllForms) {
  const Tensor x = floats({4}, {2, 3, 4, 0.5f});
  const auto product = [&](int64_t exclusive, int64_t reverse) {
    return run("cumprod", {x}, {{"axis", int64_t{0}}, {"exclusive", exclusive}, {"reverse", reverse}}).toFloats();
  };
  EXPECT_THAT(product(0, 0), ElementsAre(2, 6, 24, 12));
  EXPECT_THAT(product(1, 0), ElementsAre(1, 2, 6, 24));
  EXPECT_THAT(product(0, 1), ElementsAre(12, 6, 2, 0.5f));
  EXPECT_THAT(product(1, 1), ElementsAre(6, 2, 0.5f, 1));
}

}  // namespace
}  // namespace qc
