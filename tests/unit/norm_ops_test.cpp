// Normalisations and softmax: against formulas in double, orders bit for bit, both layouts, errors.
#include <algorithm>
#include <cmath>

#include "ir/qmath.h"
#include "op_testing.h"

namespace qc {
namespace {

using namespace test;
using testing::ElementsAre;
using testing::HasSubstr;

void expectNear(const Tensor& y, const std::vector<double>& expected, double tolerance = 2e-6) {
  ASSERT_EQ(usize(y.numElements()), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(y.at(static_cast<int64_t>(i)), expected[i], tolerance * (1 + std::fabs(expected[i]))) << "element " << i;
}

// (x - mean) / sqrt(var + eps) in double over runs of n elements
std::vector<double> normalized(const Tensor& x, int64_t n, double epsilon) {
  std::vector<double> y;
  for (int64_t start = 0; start < x.numElements(); start += n) {
    double mean = 0, var = 0;
    for (int64_t i = 0; i < n; ++i) mean += x.at(start + i) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) var += std::pow(x.at(start + i) - mean, 2) / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) y.push_back((x.at(start + i) - mean) / std::sqrt(var + epsilon));
  }
  return y;
}

TEST(Norm, BatchNorm) {
  Random r(9);
  const Tensor x = r.normal({2, 3, 4, 5}), scale = r.normal({3}), bias = r.normal({3}), mean = r.normal({3}),
               var = floats({3}, {0.5f, 1.5f, 4});
  const AttrDict attrs = {{"epsilon", 1e-3}};
  const Tensor y = run("batch_norm", {x, scale, bias, mean, var}, attrs);
  std::vector<double> expected;
  for (int64_t i = 0; i < x.numElements(); ++i) {
    const int64_t c = i / 20 % 3;
    expected.push_back((x.at(i) - mean.at(c)) / std::sqrt(var.at(c) + 1e-3) * scale.at(c) + bias.at(c));
  }
  expectNear(y, expected);
  const Tensor last =
      run("batch_norm", {channelsLast(x), scale, bias, mean, var}, {{"epsilon", 1e-3}, {"layout", std::string("channels_last")}});
  EXPECT_TRUE(channelsFirst(last).sameBytes(y));
}

TEST(Norm, LayerNormIsBitExact) {
  Random r(10);
  const Tensor x = r.normal({3, 37}), scale = r.normal({37}), bias = r.normal({37});
  const Tensor y = run("layer_norm", {x, scale, bias}, {{"axis", int64_t{1}}, {"epsilon", 1e-5}});
  for (size_t row = 0; row < 3; ++row) {
    const float* from = x.as<float>().data() + row * 37;
    qmath::StripedSum sum, squares;
    for (int64_t i = 0; i < 37; ++i) sum.add(i, from[i]);
    const float mean = sum.total() / 37.0f;
    for (int64_t i = 0; i < 37; ++i) squares.add(i, (from[i] - mean) * (from[i] - mean));
    const float inverse = 1.0f / std::sqrt(squares.total() / 37.0f + 1e-5f);
    for (size_t i = 0; i < 37; ++i) {
      const float scaled = ((from[i] - mean) * inverse) * scale.as<float>()[i];
      ASSERT_EQ(y.as<float>()[row * 37 + i], scaled + bias.as<float>()[i]);
    }
  }
}

TEST(Norm, LayerNormForms) {
  Random r(11);
  const Tensor x = r.normal({2, 3, 4});
  expectNear(run("layer_norm", {x}, {{"axis", int64_t{1}}}), normalized(x, 12, 1e-5));
  expectNear(run("layer_norm", {x}, {{"axis", int64_t{0}}}), normalized(x, 24, 1e-5));
  // A parameter of the last dim broadcasts over the others.
  std::vector<double> expected = normalized(x, 12, 1e-5);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = expected[i] * (static_cast<double>(i % 4) + 1) + 10;
  expectNear(run("layer_norm", {x, floats({4}, {1, 2, 3, 4}), floats({1}, {10})}, {{"axis", int64_t{1}}}), expected);
  EXPECT_THAT(inferred("layer_norm", {x.type(), {DType::f32, {3}}}, {{"axis", int64_t{2}}}), HasSubstr("does not broadcast"));
  EXPECT_THAT(inferred("layer_norm", {x.type()}, {{"axis", int64_t{3}}}), HasSubstr("axis=3"));
}

TEST(Norm, InstanceAndGroupNorm) {
  Random r(12);
  const Tensor x = r.normal({2, 6, 3, 5}), scale = r.normal({6}), bias = r.normal({6});
  const auto affine = [&](std::vector<double> y) {
    for (size_t i = 0; i < y.size(); ++i) {
      const auto c = static_cast<int64_t>(i / 15 % 6);
      y[i] = y[i] * scale.at(c) + bias.at(c);
    }
    return y;
  };
  AttrDict attrs = {{"epsilon", 1e-4}}, groups = {{"epsilon", 1e-4}, {"num_groups", int64_t{3}}};
  const Tensor instance = run("instance_norm", {x, scale, bias}, attrs), group = run("group_norm", {x, scale, bias}, groups);
  expectNear(instance, affine(normalized(x, 15, 1e-4)));
  expectNear(group, affine(normalized(x, 30, 1e-4)));
  for (AttrDict* a : {&attrs, &groups}) a->set("layout", std::string("channels_last"));
  EXPECT_TRUE(channelsFirst(run("instance_norm", {channelsLast(x), scale, bias}, attrs)).sameBytes(instance));
  EXPECT_TRUE(channelsFirst(run("group_norm", {channelsLast(x), scale, bias}, groups)).sameBytes(group));
  const TensorType six(DType::f32, {6});
  EXPECT_THAT(inferred("group_norm", {x.type(), six, six}, {{"num_groups", int64_t{4}}}),
              HasSubstr("num_groups=4 does not divide the 6 channels"));
  EXPECT_THAT(inferred("instance_norm", {x.type(), six, {DType::f32, {5}}}), HasSubstr("needs bias of shape [6]"));
}

TEST(Norm, Lrn) {
  Random r(13);
  const Tensor x = r.normal({1, 7, 2, 3});
  for (const int64_t size : {1, 2, 3, 5}) {
    std::vector<double> expected;
    for (int64_t i = 0; i < x.numElements(); ++i) {
      const int64_t c = i / 6, before = (size - 1) / 2;
      double sum = 0;
      for (int64_t k = std::max<int64_t>(c - before, 0); k <= std::min<int64_t>(c + size - 1 - before, 6); ++k)
        sum += std::pow(x.at(k * 6 + i % 6), 2);
      expected.push_back(x.at(i) / std::pow(1.5 + 0.3 / static_cast<double>(size) * sum, 0.75));
    }
    AttrDict attrs = {{"size", size}, {"alpha", 0.3}, {"bias", 1.5}};
    const Tensor y = run("lrn", {x}, attrs);
    expectNear(y, expected);
    attrs.set("layout", std::string("channels_last"));
    EXPECT_TRUE(channelsFirst(run("lrn", {channelsLast(x)}, attrs)).sameBytes(y));
  }
  EXPECT_THAT(inferred("lrn", {x.type()}, {{"size", int64_t{0}}}), HasSubstr("size=0"));
}

TEST(Softmax, AgainstDouble) {
  Random r(14);
  const Tensor x = r.normal({3, 21, 4});
  for (const int64_t axis : {0, 1, 2}) {
    const Tensor y = run("softmax", {x}, {{"axis", axis}}), l = run("log_softmax", {x}, {{"axis", axis}});
    const int64_t inner = axis == 2 ? 1 : axis == 1 ? 4 : 84, n = nth(x.sizes(), axis);
    std::vector<double> soft, logarithm;
    for (int64_t i = 0; i < x.numElements(); ++i) {
      const int64_t start = i / (inner * n) * (inner * n) + i % inner;
      double sum = 0;
      for (int64_t k = 0; k < n; ++k) sum += std::exp(x.at(start + k * inner));
      soft.push_back(std::exp(x.at(i)) / sum);
      logarithm.push_back(x.at(i) - std::log(sum));
    }
    expectNear(y, soft, 1e-6);
    expectNear(l, logarithm);
  }
}

TEST(Softmax, Extremes) {
  const auto soft = [](std::vector<float> v) {
    const auto n = static_cast<int64_t>(v.size());
    return run("softmax", {floats({n}, std::move(v))}, {{"axis", int64_t{0}}}).toFloats();
  };
  EXPECT_THAT(soft({1e30f, 0, -1e30f}), ElementsAre(1, 0, 0));
  EXPECT_THAT(soft({-500, -500}), ElementsAre(0.5f, 0.5f));
  EXPECT_THAT(soft({42}), ElementsAre(1));
  EXPECT_THAT(soft({0, -INFINITY}), ElementsAre(1, 0));
  EXPECT_EQ(run("softmax", {Tensor(DType::f32, {2, 0})}, {{"axis", int64_t{1}}}).sizes(), (Ints{2, 0}));
  EXPECT_THAT(inferred("softmax", {{DType::s32, {2}}}, {{"axis", int64_t{0}}}), HasSubstr("floating point"));
}

TEST(Norm, HalfAndDouble) {
  for (const DType t : {DType::f16, DType::bf16, DType::f64}) {
    const Tensor y = run("softmax", {tensorOf(t, {2}, {3, 3})}, {{"axis", int64_t{0}}});
    EXPECT_EQ(y.dtype(), t);
    EXPECT_THAT(list(y), ElementsAre(0.5, 0.5));
  }
}

}  // namespace
}  // namespace qc
