// Ops that address elements by indices against the reference evaluation: element types, depths, batch dims, axes, indices from the end
// and repeated, and indices outside, of which code and evaluation must say the same.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr int64_t kLow = std::numeric_limits<int64_t>::min(), kHigh = std::numeric_limits<int64_t>::max();
constexpr const char* kTypes = "!a = q<u8, scale=0.037, zp=113>\n";

// A graph of one op over x, constant indices of the given type, and updates if there are any.
std::string text(const std::string& op, const std::string& x, const std::string& indexType, const std::string& indices,
                 const std::string& updates, const std::string& attrs, const std::string& result) {
  return fmt::format("{}const #i : {} = {}\ngraph @g(%x: {}{}) {{\n%i = const #i : {}\n%y = {} %x, %i{} {{{}}} : {}\nreturn %y\n}}\n",
                     kTypes, indexType, indices, x, updates.empty() ? "" : ", %u: " + updates, indexType, op, updates.empty() ? "" : ", %u",
                     attrs, result);
}

TEST(GatherNd, Slices) {
  for (const char* t : {"u8", "!a", "f16", "f32", "s64", "f64", "bool"})
    for (const int run : {1, 3, 16, 70}) {
      checkRows(
          text("gather_nd", fmt::format("{}[5,{}]", t, run), "s64[7,1]", someIntegers(7, -5, 4), "", "", fmt::format("{}[7,{}]", t, run)));
      checkRows(text("gather_nd", fmt::format("{}[5,4,{}]", t, run), "s32[2,3,2]", someIntegers(12, -4, 3), "", "",
                     fmt::format("{}[2,3,{}]", t, run)));
      checkRows(text("gather_nd", fmt::format("{}[2,3,4,{}]", t, run), "s64[2,3,5,1]", someIntegers(30, -4, 3), "", "batch_dims=2",
                     fmt::format("{}[2,3,5,{}]", t, run)));
    }
  checkRows(text("gather_nd", "f32[2,4]", "s64[2,1]", someIntegers(2, -4, 3), "", "batch_dims=1", "f32[2]"));
  checkRows(text("gather_nd", "bool[3,400]", "s64[3,1,1,400,2]", someIntegers(2400, -3, 2), "", "", "bool[3,1,1,400]"));
}

TEST(GatherElements, AlongAnyAxis) {
  for (const char* t : {"u8", "!a", "f16", "f32", "s64"})
    for (const int axis : {0, 1, 2}) {
      const std::string attrs = fmt::format("axis={}", axis);
      checkRows(text("gather_elements", fmt::format("{}[4,5,6]", t), "s64[4,5,6]", someIntegers(120, -4, 3), "", attrs,
                     fmt::format("{}[4,5,6]", t)));
      checkRows(text("gather_elements", fmt::format("{}[4,5,6]", t), "s32[3,2,5]", someIntegers(30, -4, 3), "", attrs,
                     fmt::format("{}[3,2,5]", t)));
    }
  checkRows(text("gather_elements", "f32[7]", "s64[30]", someIntegers(30, -7, 6), "", "axis=0", "f32[30]"));
  checkRows(text("gather_elements", "f32[3,7,2,2]", "s64[3,9,2,1]", someIntegers(54, -7, 6), "", "axis=1", "f32[3,9,2,1]"));
}

TEST(ScatterElements, InOrder) {
  for (const char* reduction : {"none", "add", "mul", "max", "min"})
    for (const char* t : {"u8", "s8", "f32", "s32", "s64", "u64", "f64", "s16"})
      for (const int axis : {0, 1, 2}) {
        const std::string attrs = fmt::format("axis={}, reduction=\"{}\"", axis, reduction);
        checkRows(text("scatter_elements", fmt::format("{}[4,5,6]", t), "s64[4,5,6]", someIntegers(120, -4, 3), fmt::format("{}[4,5,6]", t),
                       attrs, fmt::format("{}[4,5,6]", t)));
        checkRows(text("scatter_elements", fmt::format("{}[4,5,6]", t), "s32[3,2,5]", someIntegers(30, -4, 3), fmt::format("{}[3,2,5]", t),
                       attrs, fmt::format("{}[4,5,6]", t)));
      }
  checkRows(text("scatter_elements", "!a[2,8]", "s64[2,3]", someIntegers(6, -8, 7), "!a[2,3]", "axis=1", "!a[2,8]"));
  checkRows(text("scatter_elements", "f16[9]", "s64[5]", someIntegers(5, -9, 8), "f16[5]", "axis=0", "f16[9]"));
  checkRows(text("scatter_elements", "bool[300,3]", "s64[2,3]", someIntegers(6, -3, 2), "bool[2,3]", "axis=1", "bool[300,3]"));
}

TEST(ScatterNd, InOrder) {
  for (const char* reduction : {"none", "add", "mul", "max", "min"})
    for (const char* t : {"u8", "f32", "s64", "f64"}) {
      const std::string attrs = fmt::format("reduction=\"{}\"", reduction);
      checkRows(text("scatter_nd", fmt::format("{}[5,4,3]", t), "s64[6,2]", someIntegers(12, -4, 3), fmt::format("{}[6,3]", t), attrs,
                     fmt::format("{}[5,4,3]", t)));
      checkRows(text("scatter_nd", fmt::format("{}[5,40]", t), "s32[2,2,1]", someIntegers(4, -5, 4), fmt::format("{}[2,2,40]", t), attrs,
                     fmt::format("{}[5,40]", t)));
    }
  checkRows(text("scatter_nd", "!a[8]", "s64[3,1]", someIntegers(3, -8, 7), "!a[3]", "", "!a[8]"));
  checkRows(text("scatter_nd", "f16[2,3]", "s64[3,2]", someIntegers(6, -2, 1), "f16[3]", "", "f16[2,3]"));
}

std::string oneHotText(const std::string& indices, const std::string& values, const std::string& attrs, const std::string& result) {
  return fmt::format("const #i : {} = {}\ngraph @g(%v: {}[2]) {{\n%i = const #i : {}\n%y = one_hot %i, %v {{{}}} : {}\nreturn %y\n}}\n",
                     indices,
                     indices[0] == 'f' ? "[0.0, 1.0, -1.0, 2.5, -7.0, 40.0, -0.0, 3.0, 6.0, -8.0, 1.0, 2.0]" : someIntegers(12, -12, 12),
                     values, indices, attrs, result);
}

TEST(OneHot, AnyAxis) {
  for (const char* index : {"s64[3,4]", "s32[3,4]", "f32[3,4]", "s8[3,4]"})
    for (const char* value : {"f32", "u8", "s64", "bool", "f16"}) {
      checkRows(oneHotText(index, value, "axis=2, depth=7", fmt::format("{}[3,4,7]", value)));
      checkRows(oneHotText(index, value, "axis=1, depth=7", fmt::format("{}[3,7,4]", value)));
      checkRows(oneHotText(index, value, "axis=0, depth=7", fmt::format("{}[7,3,4]", value)));
      checkRows(oneHotText(index, value, "axis=2, depth=300", fmt::format("{}[3,4,300]", value)));
    }
}

TEST(Trilu, Triangles) {
  for (const char* t : {"f32", "u8", "s64", "bool", "f16"})
    for (const char* shape : {"5,5", "2,3,7", "2,17,40", "4,1", "1,4"})
      for (const int k : {-100, -2, -1, 0, 1, 3, 100})
        for (const int upper : {0, 1})
          checkRows(
              fmt::format("graph @g(%x: {0}[{1}]) {{\n%y = trilu %x {{upper={2}, k={3}}} : {0}[{1}]\nreturn %y\n}}\n", t, shape, upper, k));
}

TEST(ReverseSequence, BatchOrTimeFirst) {
  for (const char* t : {"f32", "u8", "s64"})
    for (const char* rest : {"", ",3", ",2,20"}) {
      checkRows(text("reverse_sequence", fmt::format("{}[4,6{}]", t, rest), "s64[4]", "[0,6,3,1]", "", "batch_axis=0, time_axis=1",
                     fmt::format("{}[4,6{}]", t, rest)));
      checkRows(text("reverse_sequence", fmt::format("{}[6,4{}]", t, rest), "s32[4]", "[0,6,3,1]", "", "batch_axis=1, time_axis=0",
                     fmt::format("{}[6,4{}]", t, rest)));
    }
}

TEST(Index, RefusesIndicesOutside) {
  const std::vector<int64_t> outside = {5, -6, kLow, kHigh, int64_t{1} << 32};
  expectRefused("graph @g(%x: f32[5,5,3], %i: s64[2,2]) {\n%y = gather_nd %x, %i : f32[2,3]\nreturn %y\n}\n", 1, outside);
  expectRefused("graph @g(%x: f32[2,5], %i: s64[2,4]) {\n%y = gather_elements %x, %i {axis=1} : f32[2,4]\nreturn %y\n}\n", 1, outside);
  expectRefused(
      "graph @g(%x: f32[2,5], %i: s64[2,4], %u: f32[2,4]) {\n%y = scatter_elements %x, %i, %u {axis=1} : f32[2,5]\nreturn %y\n}\n", 1,
      outside);
  expectRefused("graph @g(%x: f32[5,3], %i: s64[2,1], %u: f32[2,3]) {\n%y = scatter_nd %x, %i, %u : f32[5,3]\nreturn %y\n}\n", 1, outside);
  expectRefused("graph @g(%x: f32[2,4], %i: s64[2]) {\n%y = reverse_sequence %x, %i {batch_axis=0, time_axis=1} : f32[2,4]\nreturn %y\n}\n",
                1, {5, -1, kLow, kHigh});
}

}  // namespace
}  // namespace qc::testing
