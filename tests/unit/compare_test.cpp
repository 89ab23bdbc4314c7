// What quantization cost, beside which graph.
#include <gtest/gtest.h>

#include "ir/text.h"
#include "runtime/workflow/compare.h"

namespace qc {
namespace {

Graph graphOf(const char* text) {
  Result<Graph> graph = parseGraph(text);
  EXPECT_TRUE(graph) << (graph ? "" : graph.error().render());
  return std::move(*graph);
}

// A recipe that gives a layer another factor and forgets to take it back is in the graph that became integers as well: only the model as it
// came tells.
TEST(Compare, HoldsOutputsAgainstTheModelAsItCame) {
  const Graph original = graphOf(R"(
graph @g(%x: f32[1,8]) {
  %h = relu %x : f32[1,8]
  %y = neg %h : f32[1,8]
  return %y
}
)");
  const Graph moved = graphOf(R"(
const #two : f32[] = [2]
graph @g(%x: f32[1,8]) {
  %two = const #two : f32[]
  %wide = mul %x, %two : f32[1,8]
  %h = relu %wide : f32[1,8]
  %y = neg %h : f32[1,8]
  return %y
}
)");
  const Graph quantized = graphOf(R"(
!a = q<u8, scale=0.01, zp=0>
const #two : f32[] = [2]
graph @g(%x: f32[1,8]) {
  %two = const #two : f32[]
  %wide = mul %x, %two : f32[1,8]
  %h = relu %wide : f32[1,8]
  %q = quantize %h {to=!a} : !a[1,8]
  %d = dequantize %q : f32[1,8]
  %y = neg %d : f32[1,8]
  return %y
}
)");
  const Tensor x = Tensor::ofFloats({1, 8}, std::vector{-1.f, 0.123f, 0.2345f, 0.51f, 0.6049f, 0.777f, 0.9f, 1.0f});
  const auto samples = Dataset::fromMemory({{{"x", x}}}, {{"x", DType::f32, toShape({1, 8})}}, "samples");
  ASSERT_TRUE(samples) << samples.error().render();
  const auto total = [&](const Graph* beside, std::string_view op) {
    const auto found = compareLayers(moved, quantized, *samples, {.original = beside});
    EXPECT_TRUE(found) << (found ? "" : found.error().render());
    double db = -1;
    for (const LayerNoise& layer : found->layers)
      if (layer.op == op) db = layer.total;
    return db;
  };
  EXPECT_GT(total(nullptr, "output"), 40);
  EXPECT_GT(total(&original, "relu"), 40);  // of what is inside, the graph that became integers says what is right
  EXPECT_NEAR(total(&original, "output"), 0, 0.1);
}

}  // namespace
}  // namespace qc
