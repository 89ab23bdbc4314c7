// Elementwise, table, pool and mean kernels against the reference evaluation, on sizes around their vectors.
#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kTypes =
    "!a = q<u8, scale=0.037, zp=113>\n!b = q<u8, scale=0.021, zp=7>\n!s = q<s8, scale=0.05, zp=-3>\n"
    "!w = q<u16, scale=0.0003, zp=30001>\n!v = q<s16, scale=0.0002, zp=-70>\n";

TEST(Map, QuantizedAndFloatOperands) {
  for (const int n : {1, 3, 15, 16, 17, 63, 64, 65, 100, 4096, 5000}) {
    checkRows(fmt::format("{}graph @g(%a: !a[{}], %b: !b[{}]) {{\n%y = map %a, %b {{expr=\"max(0, a0 + a1)\"}} : !b[{}]\nreturn %y\n}}\n",
                          kTypes, n, n, n));
    checkRows(fmt::format(
        "{}graph @g(%a: f32[{}], %b: !s[{}]) {{\n%y = map %a, %b {{expr=\"a0 * sigmoid(a1) - 0.5\"}} : f32[{}]\nreturn %y\n}}\n", kTypes, n,
        n, n));
    checkRows(fmt::format("{}graph @g(%a: !w[{}], %b: !b[{}]) {{\n%y = map %a, %b {{expr=\"a0 * a1 - 0.5\"}} : !v[{}]\nreturn %y\n}}\n",
                          kTypes, n, n, n));
  }
}

TEST(Map, Broadcasts) {
  for (const int c : {1, 3, 16, 19, 64}) {
    checkRows(fmt::format(
        "graph @g(%a: f32[2,5,3,{}], %b: f32[2,1,1,{}]) {{\n%y = map %a, %b {{expr=\"a0 * a1\"}} : f32[2,5,3,{}]\nreturn %y\n}}\n", c, c,
        c));
    checkRows(fmt::format(
        "graph @g(%a: f32[2,5,3,{}], %b: f32[5,3,1]) {{\n%y = map %a, %b {{expr=\"a0 + a1\"}} : f32[2,5,3,{}]\nreturn %y\n}}\n", c, c));
    checkRows(fmt::format("{}graph @g(%a: !a[4,{}], %b: !b[]) {{\n%y = map %a, %b {{expr=\"a0 / (a1 + 9)\"}} : !a[4,{}]\nreturn %y\n}}\n",
                          kTypes, c, c));
  }
}

// The longest arithmetic that one op has.
TEST(Map, Powers) {
  for (const int n : {1, 7, 70}) {
    checkRows(fmt::format("graph @g(%a: f32[{}], %b: f32[{}]) {{\n%y = map %a, %b {{expr=\"pow(abs(a0), a1)\"}} : f32[{}]\nreturn %y\n}}\n",
                          n, n, n));
    checkRows(fmt::format("{}graph @g(%a: !b[{}]) {{\n%y = map %a {{expr=\"pow(a0, 1.7)\"}} : !v[{}]\nreturn %y\n}}\n", kTypes, n, n));
  }
}

TEST(QuantizeDequantize, Tails) {
  for (const int n : {1, 7, 16, 33, 64, 130, 4097}) {
    for (const char* t : {"a", "s", "w", "v"}) {
      checkRows(fmt::format("{}graph @g(%x: f32[{}]) {{\n%y = quantize %x {{to=!{}}} : !{}[{}]\nreturn %y\n}}\n", kTypes, n, t, t, n));
      checkRows(fmt::format("{}graph @g(%x: !{}[{}]) {{\n%y = dequantize %x : f32[{}]\nreturn %y\n}}\n", kTypes, t, n, n));
    }
  }
}

// Storage, narrowed bounds and zero points at their ends; per channel runs by evaluation.
TEST(FakeQuantize, TypesAndTails) {
  for (const char* type : {"u8, scale=0.037, zp=113", "s8[-127:127], scale=0.05, zp=0", "s8[-8:7], scale=0.4, zp=7",
                           "u8[0:15], scale=0.3, zp=0", "u16, scale=0.0001, zp=65535", "s16, scale=0.00005, zp=-3"})
    for (const int n : {1, 7, 16, 33, 4097})
      checkRows(
          fmt::format("!t = q<{}>\ngraph @g(%x: f32[{}]) {{\n%y = fake_quantize %x {{to=!t}} : f32[{}]\nreturn %y\n}}\n", type, n, n));
  const auto graph = parseGraph(
      "!t = q<s8, axis=1, scale=[0.5,0.25], zp=0>\ngraph @g(%x: f32[3,2]) {\n%y = fake_quantize %x {to=!t} : f32[3,2]\nreturn %y\n}\n");
  ASSERT_TRUE(graph) << graph.error().render();
  EXPECT_FALSE(selectKernel(*graph->back(), Target::host()));
}

TEST(Lut, EveryEntryAndTails) {
  for (const int n : {1, 31, 32, 33, 63, 64, 65, 300, 9000})
    checkRows(
        fmt::format("{}const #t : u8[256] = rand(3, 0, 255)\ngraph @g(%x: !a[{}]) {{\n%t = const #t : u8[256]\n%y = lut %x, %t : "
                    "!b[{}]\nreturn %y\n}}\n",
                    kTypes, n, n));
}

TEST(Pools, WindowsAndChannels) {
  struct Window {
    const char *attrs, *in, *out;  // spatial sizes
  };
  const Window windows[] = {
      {"kernel_shape=[2,2], strides=[2,2]", "6,8", "3,4"},
      {"kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]", "9,7", "5,4"},
      {"kernel_shape=[3,2], strides=[1,2], pads=[2,0,1,1]", "5,7", "6,4"},
      {"kernel_shape=[5,5], pads=[2,2,2,2]", "4,4", "4,4"},
      {"kernel_shape=[3,2], pads=[2,1,2,2], dilations=[2,3], strides=[1,2]", "7,8", "7,4"},
      {"kernel_shape=[3,3], strides=[2,2], ceil_mode=1", "6,7", "3,3"},
      {"kernel_shape=[2,2], strides=[2,2], ceil_mode=1", "1,1", "1,1"},  // longer than the image
      {"kernel_shape=[5,5], strides=[4,3], pads=[1,0,1,2], ceil_mode=1", "1,2", "1,1"},
      {"kernel_shape=[3], strides=[2], pads=[1,1]", "9", "5"},
      {"kernel_shape=[3], dilations=[4]", "12", "4"},
      {"kernel_shape=[2,2,2], strides=[2,2,2]", "4,6,8", "2,3,4"},
      {"kernel_shape=[3,3,3], strides=[2,1,2], pads=[1,1,1,1,1,1]", "5,4,7", "3,4,4"},
      {"kernel_shape=[2,3,1], strides=[1,2,3], pads=[1,0,0,0,2,0]", "3,5,7", "3,3,3"},
      {"kernel_shape=[2,3,2], pads=[1,2,0,0,1,1], dilations=[2,2,3]", "4,5,6", "3,4,4"},
  };
  for (const Window& w : windows)
    for (const int c : {1, 3, 16, 24, 64, 70}) {
      const std::string x = fmt::format("[2,{},{}]", w.in, c), y = fmt::format("[2,{},{}]", w.out, c);
      for (const char* t : {"f32", "!a", "!s", "!w", "!v"})
        checkRows(fmt::format("{}graph @g(%x: {}{}) {{\n%y = max_pool %x {{{}, layout=\"channels_last\"}} : {}{}\nreturn %y\n}}\n", kTypes,
                              t, x, w.attrs, t, y));
      for (const int include : {0, 1}) {
        checkRows(fmt::format(
            "graph @g(%x: f32{}) {{\n%y = avg_pool %x {{{}, count_include_pad={}, layout=\"channels_last\"}} : f32{}\nreturn %y\n}}\n", x,
            w.attrs, include, y));
        checkRows(
            fmt::format("{}graph @g(%x: !a{}) {{\n%y = q.avg_pool %x {{{}, count_include_pad={}, layout=\"channels_last\"}} : "
                        "!b{}\nreturn %y\n}}\n",
                        kTypes, x, w.attrs, include, y));
      }
    }
}

TEST(Means, PixelsAndChannels) {
  for (const int side : {1, 3, 4, 5, 7})
    for (const int c : {1, 5, 16, 17, 48, 65}) {
      checkRows(fmt::format("graph @g(%x: f32[2,{},{},{}]) {{\n%y = reduce_mean %x {{axes=[1,2]}} : f32[2,1,1,{}]\nreturn %y\n}}\n", side,
                            side, c, c));
      checkRows(
          fmt::format("{}graph @g(%x: !a[2,{},{},{}]) {{\n%y = q.reduce_mean %x {{axes=[1,2], keepdims=0}} : !s[2,{}]\nreturn %y\n}}\n",
                      kTypes, side, side, c, c));
    }
}

}  // namespace
}  // namespace qc::testing
