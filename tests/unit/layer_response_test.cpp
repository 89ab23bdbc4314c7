// Of results that are those of the weights, the sums with the inputs are the weights times the inputs' own.
#include "quantizer/layer_response.h"

#include <gtest/gtest.h>

#include "ir/interp.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Tensor pattern(Ints sizes) {
  Tensor t(DType::f32, std::move(sizes));
  for (int64_t i = 0; i < t.numElements(); ++i) nth(t.mutableAs<float>(), i) = static_cast<float>((i * 37) % 11) - 4;
  return t;
}

void expectWeightsTimesProducts(const char* op, const Ints& x, const Ints& w, AttrDict attrs, int64_t positions) {
  Graph graph;
  Builder b(graph);
  const Tensor weight = pattern(w), input = pattern(x);
  Value* y = b.make(op, {b.constant("x", input), b.constant("w", weight)}, std::move(attrs));
  auto sampler = LayerResponseSampler::of(*y->producer(), positions);
  ASSERT_TRUE(sampler) << op;
  auto result = foldNode(*y->producer(), int64_t{1} << 20);
  ASSERT_TRUE(result && *result) << op;
  for (int64_t sample = 0; sample < 3; ++sample) sampler->add(input.ref(), (**result)[0].ref(), sample);
  const LayerResponse r = std::move(*sampler).take();
  const int64_t depth = r.inputs.depth, perGroup = w[0] / r.inputs.groups;
  ASSERT_GT(r.inputs.positions, 0);
  EXPECT_EQ(r.inputs.samples, 3);
  for (int64_t c = 0; c < w[0]; ++c) {
    const int64_t g = c / perGroup;
    double sum = 0;
    for (int64_t i = 0; i < depth; ++i) {
      sum += weight.at(c * depth + i) * nth(r.inputs.sum, g * depth + i);
      double expected = 0;
      for (int64_t j = 0; j < depth; ++j)
        expected += weight.at(c * depth + j) * static_cast<double>(nth(r.inputs.gram, (g * depth + j) * depth + i));
      EXPECT_NEAR(nth(r.cross, c * depth + i), expected, 1e-5 * std::abs(expected) + 1e-3) << op << " channel " << c << " input " << i;
    }
    EXPECT_NEAR(nth(r.sum, c), sum, 1e-3) << op << " channel " << c;
  }
}

TEST(LayerResponse, SumsOfResultsFollowFromTheWeights) {
  expectWeightsTimesProducts("linear", {7, 5}, {3, 5}, {}, 100);
  expectWeightsTimesProducts("linear", {2, 300, 6}, {4, 6}, {}, 290);  // more than one block, and not all
  expectWeightsTimesProducts("conv", {2, 4, 5, 6}, {6, 2, 3, 2},
                             {{"group", int64_t{2}}, {"strides", Ints{2, 1}}, {"pads", Ints{1, 0, 1, 1}}}, 1000);
  expectWeightsTimesProducts("conv", {1, 3, 9, 9}, {3, 1, 3, 3},
                             {{"group", int64_t{3}}, {"dilations", Ints{2, 2}}, {"pads", Ints{2, 2, 2, 2}}}, 40);
  expectWeightsTimesProducts("conv", {2, 3, 12}, {4, 3, 4}, {{"strides", Ints{3}}, {"pads", Ints{1, 2}}}, 1000);
  expectWeightsTimesProducts("conv", {1, 2, 3, 4, 5}, {3, 2, 2, 3, 2}, {{"pads", Ints{1, 0, 0, 0, 1, 1}}}, 1000);
}

TEST(LayerResponse, OtherShapesArePassedOver) {
  Graph graph;
  Builder b(graph);
  Value* y = b.make("linear", {b.constant("x", pattern({7, 5})), b.constant("w", pattern({3, 5}))});
  auto sampler = LayerResponseSampler::of(*y->producer(), 10);
  ASSERT_TRUE(sampler);
  sampler->add(pattern({7, 5}).ref(), pattern({7, 4}).ref(), 0);
  EXPECT_EQ(std::move(*sampler).take().inputs.positions, 0);
}

}  // namespace
}  // namespace qc
