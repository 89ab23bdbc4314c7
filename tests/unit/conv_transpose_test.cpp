// The pass split-conv-transpose gives the bits of the whole op, for strides, kernels, dilations, paddings and groups of all kinds.
#include <gmock/gmock.h>

#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

struct Case {
  const char *x, *w, *attrs, *y;
  int outputs;
};
const Case kCases[] = {
    {"1,4,5,3", "3,7,2,2", "strides=[2,2]", "1,8,10,7", 7},
    {"2,4,5,3", "3,7,3,3", "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", "2,8,10,7", 7},
    {"1,4,5,6", "6,2,4,4", "strides=[2,2], pads=[1,1,1,1], group=3", "1,8,10,6", 6},
    {"1,4,5,3", "3,5,3,2", "strides=[1,1], pads=[0,1,2,0]", "1,4,5,5", 5},
    {"1,3,4,2", "2,3,5,4", "strides=[3,2], pads=[2,0,0,1], dilations=[2,1]", "1,13,9,3", 3},
    {"1,3,3,2", "2,4,3,3", "strides=[2,2], dilations=[2,2]", "1,9,9,4", 4},
    {"1,1,6,4", "4,3,1,9", "strides=[1,4], pads=[0,2,0,3]", "1,1,24,3", 3},
    {"1,3,3,2", "2,4,1,1", "strides=[2,2]", "1,5,5,4", 4},
    {"1,4,3,6", "6,1,2,3", "strides=[3,5], pads=[0,1,1,0], group=6, output_padding=[1,2]", "1,11,14,6", 6},
    {"2,5,3", "3,7,4", "strides=[2], pads=[1,1]", "2,10,7", 7},
    {"1,5,4", "4,2,3", "strides=[4], dilations=[3], output_padding=[3], group=2", "1,26,4", 4},
    {"1,2,3,4,3", "3,5,2,2,2", "strides=[2,2,2]", "1,4,6,8,5", 5},
    {"1,3,2,3,4", "4,2,3,3,3", "strides=[2,2,2], pads=[1,1,1,1,1,1], output_padding=[1,0,1], group=2", "1,6,3,6,4", 4},
    {"1,6,7,3", "3,4,5,3", "strides=[1,1], pads=[4,2,5,1]", "1,1,6,4", 4},
    {"1,6,7,3", "3,4,5,3", "strides=[1,1], pads=[4,3,2,5]", "1,4,1,4", 4},
    {"1,5,6,3", "3,4,6,5", "strides=[2,3], pads=[4,4,3,3], group=1", "1,7,13,4", 4},
    {"1,5,5,2", "2,4,3,3", "strides=[2,2], dilations=[2,2], pads=[2,2,4,4]", "1,7,7,4", 4},
    {"1,2,3,2,2", "2,3,1,4,2", "strides=[2,3,1], dilations=[1,2,3], pads=[0,1,0,0,2,1]", "1,3,10,4,3", 3},
};

void check(const Case& c, bool quantized) {
  const std::string scales = [&] {
    std::string list;
    const int slices = std::stoi(std::string(c.w).substr(2));
    for (int i = 0; i < slices; ++i) list += fmt::format("{}{}", i ? "," : "", 0.01 + 0.002 * i);
    return list;
  }();
  const std::string text =
      quantized ? fmt::format(
                      "!x = q<u8, scale=0.037, zp=113>\n!w = q<s8, axis=1, scale=[{0}], zp=0>\n!y = q<u8, scale=0.4, zp=120>\n"
                      "const #w : s8[{2}] = rand(1, -127, 127)\nconst #b : s32[{5}] = rand(2, -900, 900)\n"
                      "graph @g(%x: !x[{1}]) {{\n%w = const #w : !w[{2}]\n%b = const #b : s32[{5}]\n"
                      "%y = q.conv_transpose %x, %w, %b {{{3}, to=!y, clamp_min=99, layout=\"channels_last\"}} : !y[{4}]\nreturn %y\n}}\n",
                      scales, c.x, c.w, c.attrs, c.y, c.outputs)
                : fmt::format(
                      "const #w : f32[{1}] = rand(1, -1, 1)\nconst #b : f32[{4}] = rand(2, -1, 1)\n"
                      "graph @g(%x: f32[{0}]) {{\n%w = const #w : f32[{1}]\n%b = const #b : f32[{4}]\n"
                      "%y = conv_transpose %x, %w, %b {{{2}, layout=\"channels_last\"}} : f32[{3}]\nreturn %y\n}}\n",
                      c.x, c.w, c.attrs, c.y, c.outputs);
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  const TensorType type = graph->inputs()[0]->type();
  Tensor x(type.dtype, type.sizes());
  for (int64_t i = 0; i < x.numElements(); ++i) {
    if (quantized)
      nth(x.mutableAs<uint8_t>(), i) = static_cast<uint8_t>(i * 37);
    else
      nth(x.mutableAs<float>(), i) = static_cast<float>(i * 7 % 23) / 8 - 1;
  }
  const auto whole = interpret(*graph, std::vector{x});
  PassContext cx;
  const Status done = runPipeline("split-conv-transpose", *graph, cx);
  ASSERT_TRUE(done) << done.error().render();
  EXPECT_EQ(print(*graph).find("conv_transpose"), std::string::npos) << print(*graph);
  const auto split = interpret(*graph, std::vector{x});
  ASSERT_TRUE(whole && split) << text;
  EXPECT_TRUE(whole->front().sameBytes(split->front())) << text;
}

// The same layer with weights and bias as inputs.
void checkComputed(const Case& c) {
  const std::string text = fmt::format(
      "graph @g(%x: f32[{}], %w: f32[{}], %b: f32[{}]) {{\n%y = conv_transpose %x, %w, %b {{{}, layout=\"channels_last\"}} : f32[{}]\n"
      "return %y\n}}\n",
      c.x, c.w, c.outputs, c.attrs, c.y);
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  std::vector<Tensor> inputs;
  for (const Value* v : graph->inputs()) {
    inputs.emplace_back(v->type().dtype, v->type().sizes());
    for (int64_t i = 0; i < inputs.back().numElements(); ++i)
      nth(inputs.back().mutableAs<float>(), i) = static_cast<float>(i * 7 % 23) / 8 - 1;
  }
  const auto whole = interpret(*graph, inputs);
  PassContext cx;
  const Status done = runPipeline("split-conv-transpose", *graph, cx);
  ASSERT_TRUE(done) << done.error().render();
  EXPECT_EQ(print(*graph).find("conv_transpose"), std::string::npos) << print(*graph);
  const auto split = interpret(*graph, inputs);
  ASSERT_TRUE(whole && split) << text;
  EXPECT_TRUE(whole->front().sameBytes(split->front())) << text;
}

TEST(SplitConvTranspose, SameBitsOfComputedWeights) {
  for (const Case& c : kCases) checkComputed(c);
}

TEST(SplitConvTranspose, SameBits) {
  for (const Case& c : kCases)
    for (const bool quantized : {false, true}) check(c, quantized);
}

}  // namespace
}  // namespace qc
