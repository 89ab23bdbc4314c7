// The sums over a layer's inputs against plain loops.
#include "quantizer/layer_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace qc {
namespace {

Tensor pattern(std::vector<int64_t> sizes) {
  Tensor t(DType::f32, std::move(sizes));
  for (int64_t i = 0; i < t.numElements(); ++i) nth(t.mutableAs<float>(), i) = static_cast<float>((i * 37) % 11) - 4;
  return t;
}

// Of a layer that reads [5, 3].
std::optional<LayerSampler> ofLinear() {
  Graph graph;
  Builder b(graph);
  Value* x = graph.addInput("x", {DType::f32, {5, 3}});
  const Value* y = b.make("linear", {x, b.constant("w", pattern({2, 3}))});
  return LayerSampler::of(*y->producer(), {.positionsPerSample = 100});
}

TEST(LayerStatistics, LinearSumsEveryRow) {
  auto sampler = ofLinear();
  ASSERT_TRUE(sampler);
  const Tensor input = pattern({5, 3});
  for (int sample = 0; sample < 40; ++sample) sampler->add(input.ref(), sample);  // more rows than one block
  const LayerStatistics t = std::move(*sampler).take();
  EXPECT_EQ(t.positions, 200);
  for (int64_t i = 0; i < 3; ++i) {
    double sum = 0;
    for (int64_t r = 0; r < 5; ++r) sum += input.at(r * 3 + i);
    EXPECT_NEAR(t.mean(i), sum / 5, 1e-6);
    for (int64_t j = 0; j < 3; ++j) {
      double products = 0;
      for (int64_t r = 0; r < 5; ++r) products += input.at(r * 3 + i) * input.at(r * 3 + j);
      EXPECT_NEAR(nth(t.gram, i * 3 + j), 40 * products, 1e-3);
    }
  }
}

// One number that is not finite would be all that sums say.
TEST(LayerStatistics, SamplesThatAreNotFiniteArePassedOver) {
  auto sampler = ofLinear();
  ASSERT_TRUE(sampler);
  Tensor input = pattern({5, 3});
  sampler->add(input.ref(), 0);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    Tensor other = pattern({5, 3});
    nth(other.mutableAs<float>(), 7) = bad;
    sampler->add(other.ref(), 1);
  }
  LayerStatistics t = std::move(*sampler).take();
  EXPECT_EQ(t.positions, 5);
  EXPECT_EQ(t.samples, 1);
  EXPECT_TRUE(t.isFinite());
  t.gram[1] = INFINITY;
  EXPECT_FALSE(t.isFinite());
}

// With every position drawn, the mean of conv's patches gives the mean of its result.
TEST(LayerStatistics, ConvMeansMatchTheLayer) {
  Graph graph;
  Builder b(graph);
  Value* x = graph.addInput("x", {DType::f32, {2, 4, 5, 6}});
  const Tensor w = pattern({4, 2, 3, 2});
  Value* y = b.make("conv", {x, b.constant("w", w)},
                    {{"group", int64_t{2}}, {"strides", std::vector<int64_t>{2, 1}}, {"pads", std::vector<int64_t>{1, 0, 1, 1}}});
  auto sampler = LayerSampler::of(*y->producer(), {.positionsPerSample = 1000, .gram = false});
  ASSERT_TRUE(sampler);
  const Tensor input = pattern({2, 4, 5, 6});
  sampler->add(input.ref(), 0);
  const LayerStatistics t = std::move(*sampler).take();
  EXPECT_TRUE(t.gram.empty());
  const int64_t oh = y->type().shape[2].size(), ow = y->type().shape[3].size();
  EXPECT_EQ(t.positions, 2 * oh * ow);
  for (int64_t c = 0; c < 4; ++c) {
    double expected = 0, sum = 0;
    for (int64_t i = 0; i < 12; ++i) sum += w.at(c * 12 + i) * t.mean(c / 2 * 12 + i);
    for (int64_t n = 0; n < 2; ++n)
      for (int64_t p = 0; p < oh * ow; ++p)
        for (int64_t i = 0; i < 12; ++i) {
          const int64_t h = p / ow * 2 - 1 + i / 2 % 3, v = p % ow + i % 2, channel = c / 2 * 2 + i / 6;
          if (h >= 0 && h < 5 && v < 6) expected += w.at(c * 12 + i) * input.at(((n * 4 + channel) * 5 + h) * 6 + v);
        }
    EXPECT_NEAR(sum, expected / static_cast<double>(t.positions), 1e-4);
  }
}

TEST(LayerStatistics, LayersLookAlikeWhenTheyReadTheSame) {
  Graph graph;
  Builder b(graph);
  Value* x = graph.addInput("x", {DType::f32, {1, 4, 5, 6}});
  const auto sampler = [&](std::vector<int64_t> weight, int64_t group, int64_t stride, const SamplerOptions& options = {}) {
    Value* y = b.make("conv", {x, b.constant("w", pattern(std::move(weight)))},
                      {{"group", group}, {"strides", std::vector<int64_t>{stride, stride}}});
    return *LayerSampler::of(*y->producer(), options);
  };
  const LayerSampler one = sampler({8, 4, 3, 3}, 1, 1);
  EXPECT_TRUE(one.looksLike(sampler({6, 4, 3, 3}, 1, 1)));
  EXPECT_FALSE(one.looksLike(sampler({8, 4, 3, 3}, 1, 2)));
  EXPECT_FALSE(one.looksLike(sampler({8, 4, 1, 1}, 1, 1)));
  EXPECT_FALSE(one.looksLike(sampler({8, 2, 3, 3}, 2, 1)));
  EXPECT_FALSE(one.looksLike(sampler({8, 4, 3, 3}, 1, 1, {.gram = false})));
}

TEST(LayerStatistics, OtherNodesHaveNone) {
  Graph graph;
  Builder b(graph);
  Value* x = graph.addInput("x", {DType::f32, {2, 3}});
  EXPECT_FALSE(LayerSampler::of(*b.make("linear", {x, graph.addInput("w", {DType::f32, {2, 3}})})->producer(), {}));
}

}  // namespace
}  // namespace qc
