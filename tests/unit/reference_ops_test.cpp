// reference-ops on every op that computes on quantized integers: the bytes of the plain form are those of the op's own evaluation.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

// Types x (u8), s (s8), n (s8 -100..100), f (u4), h (u16), i (s32), w (s8 per output channel), v (s8 along dim 1), g (s4 in groups), y.
constexpr const char* kPrelude = R"(
!x = q<u8, scale=0.05, zp=131>
!s = q<s8, scale=0.04, zp=-7>
!n = q<s8[-100:100], scale=0.03, zp=5>
!f = q<u4, scale=0.5, zp=6>
!h = q<u16, scale=0.001, zp=31000>
!i = q<s32, scale=1e-7, zp=77>
!w = q<s8, axis=0, scale=[0.01,0.02,0.03,0.015], zp=0>
!v = q<s8, axis=1, scale=[0.01,0.02], zp=0>
!g = q<s4, axis=1, block=4, scale=[0.1,0.2,0.3,0.05,0.15,0.25,0.4,0.35], zp=0>
!y = q<u8, scale=0.07, zp=9>
!z = q<s8, scale=0.11, zp=-3>
const #w : s8[4,4,3,3] = rand(1, -127, 127)
const #d : s8[4,1,3,3] = rand(2, -127, 127)
const #t : s8[4,2,2,2] = rand(3, -127, 127)
const #l : s8[4,6] = rand(4, -127, 127)
const #e : s4[4,6] = rand(6, -8, 7)
const #b : s32[4] = [100, -2000, 30, 4000]
const #fb : f32[4] = [0.5, -0.25, 3.0, 0.0]
const #u : u8[256] = iota
const #k : f32[256] = rand(5, -3.0, 3.0)
)";

struct Case {
  const char* inputs;  // one each: name: type
  const char* lines;
};
constexpr Case kCases[] = {
    {"%x: f32[2,4,5,6]", "%r = quantize %x : !x[2,4,5,6]"},
    {"%x: f32[2,4,5,6]", "%r = quantize %x : !f[2,4,5,6]"},
    {"%x: f32[2,4,5,6]", "%r = quantize %x : !h[2,4,5,6]"},
    {"%x: f32[2,4,5,6]", "%r = quantize %x : !i[2,4,5,6]"},
    {"%x: f32[4,5]", "%r = quantize %x : !w[4,5]"},
    {"%x: !x[2,4,5,6]", "%r = dequantize %x : f32[2,4,5,6]"},
    {"%x: !i[2,4,5,6]", "%r = dequantize %x : f32[2,4,5,6]"},
    {"%x: !w[4,5]", "%r = dequantize %x : f32[4,5]"},
    {"%x: !x[2,4]", "%r = storage_cast %x : u8[2,4]"},
    {"%x: u8[2,4]", "%r = storage_cast %x : !x[2,4]"},
    {"%x: !x[2,4,5,6]",
     "%w = const #w : !w[4,4,3,3]\n%b = const #b : s32[4]\n"
     "%r = q.conv %x, %w, %b {pads=[1,1,1,1], to=!y, clamp_min=9} : !y[2,4,5,6]"},
    {"%x: !s[2,4,5,6], %y: !n[2,4,5,6]",
     "%w = const #w : !w[4,4,3,3]\n%b = const #b : s32[4]\n"
     "%r = q.conv %x, %w, %b, %y {pads=[1,1,1,1]} : !z[2,4,5,6]"},
    {"%x: !s[2,4,5,6]",
     "%w = const #d : !w[4,1,3,3]\n"
     "%r = q.conv %x, %w {group=4, pads=[1,1,1,1], post=\"a0 * sigmoid(a0)\"} : !z[2,4,5,6]"},
    {"%x: !s[2,4,5,6]", "%w = const #w : !w[4,4,3,3]\n%r = q.conv %x, %w : f32[2,4,3,4]"},
    {"%x: !x[2,4,5,6]",
     "%w = const #t : !v[4,2,2,2]\n%b = const #b : s32[4]\n"
     "%r = q.conv_transpose %x, %w, %b {group=2, strides=[2,2]} : !y[2,4,10,12]"},
    {"%x: !x[3,6]", "%w = const #l : !w[4,6]\n%b = const #b : s32[4]\n%r = q.linear %x, %w, %b : !z[3,4]"},
    {"%x: !x[2,3,6]", "%w = const #l : !w[4,6]\n%r = q.linear %x, %w : f32[2,3,4]"},
    {"%x: !x[2,3,6], %y: !s[2,6,4]", "%r = q.matmul %x, %y : !z[2,3,4]"},
    {"%x: !x[2,3,6], %y: !s[6,4]", "%r = q.matmul %x, %y : f32[2,3,4]"},
    {"%x: !x[2,4,5,6]", "%r = q.avg_pool %x {kernel_shape=[2,3]} : !y[2,4,4,4]"},
    {"%x: !s[2,4,5,6]", "%r = q.avg_pool %x {kernel_shape=[3,3], pads=[1,1,1,1]} : !z[2,4,5,6]"},
    {"%x: !s[2,4,5,6]", "%r = q.avg_pool %x {kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1} : !z[2,4,5,6]"},
    {"%x: !s[2,4,5,6]", "%r = q.avg_pool %x {kernel_shape=[2,3], strides=[2,2], pads=[0,1,0,0], ceil_mode=1} : !z[2,4,3,3]"},
    {"%x: !s[2,4,1,2]", "%r = q.avg_pool %x {kernel_shape=[2,4], strides=[2,3], pads=[0,1,0,0], ceil_mode=1} : !z[2,4,1,1]"},
    {"%x: !s[2,4,1,2]",
     "%r = q.avg_pool %x {kernel_shape=[2,4], strides=[2,3], pads=[0,1,0,0], ceil_mode=1, count_include_pad=1} : !z[2,4,1,1]"},
    {"%x: !s[2,4,5,6]",
     "%r = q.avg_pool %x {kernel_shape=[2,3], strides=[2,2], pads=[0,1,0,0], ceil_mode=1, count_include_pad=1} : !z[2,4,3,3]"},
    {"%x: !s[2,4,5,6]", "%r = q.reduce_mean %x {axes=[2,3]} : !y[2,4,1,1]"},
    {"%x: !x[2,4,5,6]", "%r = q.reduce_mean %x {axes=[1], keepdims=0} : !z[2,5,6]"},
    {"%x: !x[2,4,5,6]", "%r = q.resize %x {sizes=[2,4,10,9], scales=[1.0,1.0,2.0,1.5], mode=\"nearest\"} : !y[2,4,10,9]"},
    {"%x: !x[2,4,5,6]", "%r = q.resize %x {sizes=[2,4,10,9], scales=[1.0,1.0,2.0,1.5], mode=\"linear\"} : !y[2,4,10,9]"},
    {"%x: !s[2,4,5,6]", "%r = q.resize %x {sizes=[2,4,10,9], scales=[1.0,1.0,2.0,1.5], mode=\"cubic\"} : !z[2,4,10,9]"},
    {"%x: !s[2,4,5,6]",
     "%r = q.resize %x {sizes=[2,4,4,4], scales=[1.0,1.0,0.8,0.7], mode=\"linear\", coordinate=\"tf_crop_and_resize\", "
     "roi=[0.0,0.0,-0.2,0.1,1.0,1.0,0.9,1.3], extrapolation=1.5} : !z[2,4,4,4]"},
    {"%x: !s[2,4,5,6]", "%r = resize %x {sizes=[2,4,10,9], scales=[1.0,1.0,2.0,1.5], mode=\"nearest\"} : !s[2,4,10,9]"},
    {"%x: !s[2,4,5,6]",
     "%r = resize %x {sizes=[2,4,4,4], scales=[1.0,1.0,0.8,0.7], mode=\"nearest\", coordinate=\"tf_crop_and_resize\", "
     "roi=[0.0,0.0,-0.2,0.1,1.0,1.0,0.9,1.3], extrapolation=1.5} : !s[2,4,4,4]"},
    {"%x: !x[2,4]", "%t = const #u : u8[256]\n%r = lut %x, %t : !y[2,4]"},
    {"%x: !s[2,4]", "%t = const #u : u8[256]\n%r = lut %x, %t : !y[2,4]"},
    {"%x: !s[2,4]", "%t = const #k : f32[256]\n%r = lut %x, %t : f32[2,4]"},
    {"%x: !s[2,4], %y: !x[4]", "%r = map %x, %y {expr=\"a0 * a1 + 0.3\"} : !z[2,4]"},
    {"%x: !h[2,4], %y: !f[4]", "%r = map %x, %y {expr=\"sqrt(a0) + a1\"} : !y[2,4]"},
    {"%x: !h[2,4], %y: f32[2,1]", "%r = map %x, %y {expr=\"tanh(a0) - a1\"} : f32[2,4]"},
    {"%x: u8[2,3,6], %s: f32[], %z: s32[]",
     "%w = const #l : !w[4,6]\n%b = const #fb : f32[4]\n"
     "%r = q.dynamic_linear %x, %w, %b, %s, %z : f32[2,3,4]"},
    {"%x: s8[2,3,6], %s: f32[2,3,1], %z: s32[2,3,1]", "%w = const #l : !s[4,6]\n%r = q.dynamic_linear %x, %w, _, %s, %z : f32[2,3,4]"},
    {"%x: s8[2,3,6], %s: f32[2,3,1], %z: s32[2,3,1]", "%w = const #e : !g[4,6]\n%r = q.dynamic_linear %x, %w, _, %s, %z : f32[2,3,4]"},
    {"%x: u8[2,4,5,6], %s: f32[1], %z: s32[]",
     "%w = const #w : !w[4,4,3,3]\n%b = const #fb : f32[4]\n"
     "%r = q.dynamic_conv %x, %w, %b, %s, %z {pads=[1,1,1,1]} : f32[2,4,5,6]"},
    {"%x: !s[2,4,5,6]", "%r = max_pool %x {kernel_shape=[3,3], pads=[1,1,1,1]} : !s[2,4,5,6]"},
    {"%x: !s[2,4,5,6]", "%r = reduce_max %x {axes=[1]} : !s[2,1,5,6]"},
    {"%x: !s[2,4,5,6]", "%r = reduce_min %x {axes=[1]} : !s[2,1,5,6]"},
    {"%x: !s[2,4]", "%r = pad %x {pads=[0,1,0,1], value=1.0} : !s[2,6]"},
    {"%x: !s[2,4]", "%r = pad %x {pads=[0,1,0,1], mode=\"edge\"} : !s[2,6]"},
    {"%x: !n[2,4], %y: !n[2,3]", "%r = concat %x, %y {axis=1} : !n[2,7]"},
    {"%x: !f[2,4]", "%r = transpose %x {perm=[1,0]} : !f[4,2]"},
    {"%x: !s[2,4]", "%r = reshape %x {shape=[8]} : !s[8]"},
    {"%x: !s[2,4]", "%r = slice %x {starts=[0,1], sizes=[2,2], steps=[1,1]} : !s[2,2]"},
};

TEST(ReferenceOps, EveryIntegerOpKeepsItsBytes) {
  std::mt19937 random(5);
  std::set<std::string, std::less<>> seen;
  for (const Case& c : kCases) {
    std::string text = c.lines;
    const size_t last = text.rfind(" : ");
    text = fmt::format("{}graph @g({}) -> (\"r\") {{\n{}\nreturn %r\n}}\n", kPrelude, c.inputs, text);
    ASSERT_NE(last, std::string::npos);
    auto graph = parseGraph(text);
    ASSERT_TRUE(graph) << graph.error().render() << text;
    seen.emplace(graph->back()->op());
    Graph plain = graph->clone();
    PassContext cx;
    const Status status = runPipeline("reference-ops", plain, cx);
    ASSERT_TRUE(status) << status.error().render() << c.lines;
    for (const Node* n = plain.front(); n; n = n->next()) {
      EXPECT_FALSE(n->op().starts_with("q.")) << plain.str();
      EXPECT_FALSE(n->result()->type().isQuantized()) << plain.str();
    }
    for (int round = 0; round < 4; ++round) {
      std::vector<Tensor> inputs;
      for (const Value* v : graph->inputs()) {
        Tensor t(v->type().dtype, v->type().sizes());
        const bool real = isFloat(t.dtype());
        const IntRange range = real                      ? IntRange{0, 0}
                               : v->type().quant         ? IntRange{v->type().quant->qmin, v->type().quant->qmax}
                               : t.dtype() == DType::s32 ? IntRange{0, 120}
                                                         : rangeOf(t.dtype());
        for (int64_t i = 0; i < t.numElements(); ++i) {
          const double share = static_cast<double>(random()) / 4294967295.0;
          double value = real ? (share - 0.4) * 30
                              : std::floor(static_cast<double>(range.min) + share * static_cast<double>(range.max - range.min) + 0.5);
          if (real && t.numElements() > 8 && i < 4) value = std::array<double, 4>{NAN, INFINITY, -INFINITY, 1e30}[usize(i)];
          storeElement(t.dtype(), t.mutableData(), i, value);
        }
        inputs.push_back(std::move(t));
      }
      const auto expected = interpret(*graph, inputs), found = interpret(plain, inputs);
      ASSERT_TRUE(expected) << expected.error().render() << c.lines;
      ASSERT_TRUE(found) << found.error().render() << plain.str();
      EXPECT_TRUE(expected->front().sameBytes(found->front())) << c.lines << "\n" << plain.str();
      std::set<double> values;
      for (int64_t i = 0; i < expected->front().numElements(); ++i) values.insert(expected->front().at(i));
      EXPECT_GT(values.size(), 2u) << "says little: " << c.lines;
    }
  }
  // What has no plain form is refused; everything else named q. stands above.
  for (const auto& [name, op] : OpRegistry::get().ops())
    if (name.starts_with("q.") && !name.starts_with("q.weight_") && name != "q.embedding" && name.find("lstm") == std::string::npos &&
        name.find("gru") == std::string::npos && name.find("rnn") == std::string::npos) {
      EXPECT_TRUE(seen.contains(name)) << name;
    }
}

TEST(ReferenceOps, RefusesWhatHasNoPlainForm) {
  auto graph = parseGraph(
      "const #w : u8[4,8] = rand(1, 0, 255)\nconst #s : f32[4,1] = rand(2, 0.1, 1.0)\n"
      "graph @g(%x: f32[3,8]) -> (\"y\") {\n%w = const #w : u8[4,8]\n%s = const #s : f32[4,1]\n"
      "%y = q.weight_linear %x, %w, %s, _, _ {columns=8, group=8, bits=8, signed=0} : f32[3,4]\nreturn %y\n}\n");
  ASSERT_TRUE(graph) << graph.error().render();
  PassContext cx;
  const Status status = runPipeline("reference-ops", *graph, cx);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().render().find("'q.weight_linear' has no form in plain integers"), std::string::npos) << status.error().render();
}

}  // namespace
}  // namespace qc
