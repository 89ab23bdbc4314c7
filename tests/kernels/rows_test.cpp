// Softmax, norms and reductions against the reference evaluation: rows along and across the vectors, around their lengths.
#include <cmath>
#include <limits>

#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kTypes =
    "!a = q<u8, scale=0.037, zp=113>\n!s = q<s8, scale=0.05, zp=-3>\n"
    "!w = q<u16, scale=0.0003, zp=30001>\n!v = q<s16, scale=0.0002, zp=-70>\n";
constexpr int kLengths[] = {1, 3, 8, 15, 16, 17, 50, 129};

std::string unary(const char* op, const std::string& from, const std::string& attrs, const std::string& to) {
  return fmt::format("{}graph @g(%x: {}) {{\n%y = {} %x {{{}}} : {}\nreturn %y\n}}\n", kTypes, from, op, attrs, to);
}

TEST(Softmax, AlongAndAcross) {
  for (const char* op : {"softmax", "log_softmax"})
    for (const int n : kLengths) {
      checkRows(unary(op, fmt::format("f32[3,{}]", n), "axis=1", fmt::format("f32[3,{}]", n)));
      for (const int inner : {2, 16, 19})
        checkRows(unary(op, fmt::format("f32[2,{},{}]", n, inner), "axis=1", fmt::format("f32[2,{},{}]", n, inner)));
    }
  checkRows(unary("softmax", "f32[2,5,1,7]", "axis=1", "f32[2,5,1,7]"));
}

TEST(Norms, Layer) {
  for (const int n : kLengths)
    for (const char* operands : {"%x", "%x, %s", "%x, %s, %b", "%x, _, %b"})
      checkRows(
          fmt::format("graph @g(%x: f32[2,3,{0}], %s: f32[{0}], %b: f32[{0}]) {{\n%y = layer_norm {1} {{axis=2, epsilon=1e-6}} : "
                      "f32[2,3,{0}]\nreturn %y\n}}\n",
                      n, operands));
  checkRows("graph @g(%x: f32[4,3,7], %s: f32[3,7], %b: f32[3,7]) {\n%y = layer_norm %x, %s, %b {axis=1} : f32[4,3,7]\nreturn %y\n}\n");
  checkRows("graph @g(%x: f32[4,3,7], %s: f32[7]) {\n%y = layer_norm %x, %s {axis=1} : f32[4,3,7]\nreturn %y\n}\n", true);
}

TEST(Norms, Instance) {
  for (const int pixels : {1, 3, 4, 5, 9})
    for (const int channels : {1, 3, 16, 21, 33}) {
      checkRows(
          fmt::format("graph @g(%x: f32[2,3,{0},{1}], %s: f32[{1}], %b: f32[{1}]) {{\n%y = instance_norm %x, %s, %b "
                      "{{layout=\"channels_last\"}} : f32[2,3,{0},{1}]\nreturn %y\n}}\n",
                      pixels, channels));
      checkRows(
          fmt::format("graph @g(%x: f32[2,{1},3,{0}], %s: f32[{1}], %b: f32[{1}]) {{\n%y = instance_norm %x, %s, %b : "
                      "f32[2,{1},3,{0}]\nreturn %y\n}}\n",
                      pixels, channels));
    }
}

TEST(Norms, Group) {
  for (const int groups : {1, 2, 6})
    for (const int pixels : {1, 5, 16, 33})
      checkRows(
          fmt::format("graph @g(%x: f32[2,6,{0}], %s: f32[6], %b: f32[6]) {{\n%y = group_norm %x, %s, %b {{num_groups={1}}} : "
                      "f32[2,6,{0}]\nreturn %y\n}}\n",
                      pixels, groups));
}

TEST(Norms, GroupOfLastChannels) {
  for (const auto& [channels, groups] : std::vector<std::pair<int, int>>{{6, 1}, {6, 2}, {6, 6}, {32, 4}, {40, 2}})
    for (const int pixels : {1, 5, 16, 33})
      checkRows(
          fmt::format("graph @g(%x: f32[2,{0},3,{1}], %s: f32[{1}], %b: f32[{1}]) {{\n%y = group_norm %x, %s, %b {{num_groups={2}, "
                      "layout=\"channels_last\"}} : f32[2,{0},3,{1}]\nreturn %y\n}}\n",
                      pixels, channels, groups));
}

TEST(Norms, LocalResponse) {
  for (const int channels : {1, 3, 16, 21, 48})
    for (const int size : {1, 3, 4, 5})
      checkRows(
          fmt::format("graph @g(%x: f32[2,3,2,{0}]) {{\n%y = lrn %x {{size={1}, alpha=0.01, bias=2, layout=\"channels_last\"}} : "
                      "f32[2,3,2,{0}]\nreturn %y\n}}\n",
                      channels, size));
}

TEST(Reductions, AlongAndAcross) {
  for (const char* op : {"reduce_sum", "reduce_mean", "reduce_max", "reduce_min"})
    for (const int n : kLengths) {
      checkRows(unary(op, fmt::format("f32[3,{}]", n), "axes=[1], keepdims=0", "f32[3]"));
      for (const int inner : {2, 16, 35})
        checkRows(unary(op, fmt::format("f32[2,{},{}]", n, inner), "axes=[1]", fmt::format("f32[2,1,{}]", inner)));
    }
  checkRows(unary("reduce_mean", "f32[4,5]", "axes=[0,1], keepdims=0", "f32[]"));
  checkRows(unary("reduce_sum", "f32[4,5,3]", "axes=[0,2]", "f32[1,5,1]"), true);
}

TEST(Reductions, Integers) {
  for (const int n : kLengths) {
    for (const char* type : {"!a", "!s"}) {
      checkRows(unary("q.reduce_mean", fmt::format("{}[3,{}]", type, n), "axes=[1], to=!s", "!s[3,1]"));
      checkRows(unary("q.reduce_mean", fmt::format("{}[2,{},21]", type, n), "axes=[1], to=!a", "!a[2,1,21]"));
    }
    for (const char* type : {"!a", "!s", "!w", "!v"})
      for (const char* op : {"reduce_max", "reduce_min"}) {
        checkRows(unary(op, fmt::format("{}[3,{}]", type, n), "axes=[1]", fmt::format("{}[3,1]", type)));
        checkRows(unary(op, fmt::format("{}[2,{},21]", type, n), "axes=[1]", fmt::format("{}[2,1,21]", type)));
      }
  }
  checkRows(unary("reduce_max", "u8[3,70]", "axes=[1]", "u8[3,1]"));
}

TEST(Reductions, Arguments) {
  for (const char* op : {"argmax", "argmin"})
    for (const int n : {1, 3, 17, 50})
      for (const int last : {0, 1})
        for (const char* type : {"f32", "!a", "s8"}) {
          const std::string attrs = fmt::format("axis=1, select_last={}", last);
          checkRows(unary(op, fmt::format("{}[3,{}]", type, n), attrs, "s64[3,1]"));
          checkRows(unary(op, fmt::format("{}[2,{},19]", type, n), attrs, "s64[2,1,19]"));
        }
}

// Zeros of both signs, NaN and infinities, in every place of a row.
TEST(Reductions, SpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kValues[] = {0.0f, -0.0f, kNan, -kInf, kInf, -1.0f, 1.0f};
  std::mt19937 rng(5);
  for (const char* op : {"reduce_max", "reduce_min", "argmax", "argmin", "softmax"})
    for (const std::string shape : {"2,37", "2,37,3"}) {
      const bool arg = op[0] == 'a', soft = op[0] == 's';
      const std::string reduced = shape == "2,37" ? "2,1" : "2,1,3";
      auto graph = parseGraph(unary(op, fmt::format("f32[{}]", shape), arg || soft ? "axis=1" : "axes=[1]",
                                    fmt::format("{}[{}]", arg ? "s64" : "f32", soft ? shape : reduced)));
      ASSERT_TRUE(graph) << graph.error().render();
      int rows = 0;
      for (const KernelDef* row : rowsFor(op)) {
        if (!takes(*row, *graph->back())) continue;  // those of integers
        ++rows;
        for (int round = 0; round < 60; ++round) {
          Tensor x = randomTensor(DType::f32, graph->back()->operand(0)->type().sizes(), rng);
          auto* data = static_cast<float*>(x.mutableData());
          // Rows of a few kinds only; softmax makes a NaN of its own, whose sign is the machine's.
          const auto kinds = soft ? 2u : round % 3 ? 7u : round % 2 ? 2u : 3u;
          for (int64_t i = 0; i < x.numElements(); ++i)
            if (rng() % 5) data[i] = kValues[(rng() % kinds) + (round % 4 == 3 && kinds < 7 && !soft ? 1 : 0)];
          expectExact(*row, *graph->back(), {&x}, fmt::format("{} of [{}], round {}", op, shape, round));
        }
      }
      EXPECT_GT(rows, 0) << op;
    }
}

}  // namespace
}  // namespace qc::testing
