// Rows by index against the reference evaluation: every width of element and run, negative indices, packed tables, and indices outside,
// of which code and evaluation must say the same.
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kTypes = "!a = q<u8, scale=0.037, zp=113>\n";

std::string listed(const std::vector<int64_t>& values) {
  std::string text;
  for (const int64_t v : values) text += (text.empty() ? "" : ",") + std::to_string(v);
  return text;
}

// gather along `axis` of a tensor of `sizes` with the given indices, of the given shape.
std::string gatherText(const std::string& element, const std::vector<int64_t>& sizes, int axis, const std::string& indexType,
                       const std::vector<int64_t>& indexSizes, const std::vector<int64_t>& indices) {
  std::vector<int64_t> result(sizes.begin(), sizes.begin() + axis);
  result.insert(result.end(), indexSizes.begin(), indexSizes.end());
  result.insert(result.end(), sizes.begin() + axis + 1, sizes.end());
  return fmt::format(
      "{}const #i : {}[{}] = [{}]\ngraph @g(%x: {}[{}]) {{\n%i = const #i : {}[{}]\n%y = gather %x, %i {{axis={}}} : {}[{}]\nreturn "
      "%y\n}}\n",
      kTypes, indexType, listed(indexSizes), listed(indices), element, listed(sizes), indexType, listed(indexSizes), axis, element,
      listed(result));
}

// In and out of order, from the end, repeated.
std::vector<int64_t> someIndices(int64_t count, int64_t rows) {
  std::mt19937 rng(11);
  std::vector<int64_t> indices(usize(count));
  for (int64_t& i : indices) i = std::uniform_int_distribution<int64_t>(-rows, rows - 1)(rng);
  return indices;
}

TEST(Gather, Rows) {
  for (const char* element : {"u8", "!a", "f16", "f32", "s64", "f64", "bool", "s4"})
    for (const int run : {1, 2, 3, 16, 37, 200})
      for (const char* indexType : {"s32", "s64"}) checkRows(gatherText(element, {9, run}, 0, indexType, {2, 7}, someIndices(14, 9)));
}

TEST(Gather, AlongAnyAxis) {
  for (const char* element : {"u8", "f32"}) {
    checkRows(gatherText(element, {3, 5, 7}, 1, "s64", {4}, {-1, 0, 4, -5}));
    checkRows(gatherText(element, {3, 5, 7}, 2, "s32", {2, 2}, {6, -7, 3, 3}));
    checkRows(gatherText(element, {3, 5, 7}, 1, "s64", {}, {2}));
    checkRows(gatherText(element, {1}, 0, "s64", {1}, {-1}));
    checkRows(gatherText(element, {40, 3, 300}, 1, "s64", {2}, {2, 0}));
    checkRows(gatherText(element, {6, 20}, 1, "s64", {3000}, someIndices(3000, 20)));
  }
}

// A table of packed rows; indices 0..rows-1 and from the end.
std::string embeddingText(int64_t rows, int64_t columns, int64_t group, bool half, bool isSigned, bool zeroPoints) {
  const int64_t sets = (columns + group - 1) / group, stride = half ? (columns + 1) / 2 : columns;
  const std::string indices = listed(someIndices(11, rows));
  return fmt::format(
      "const #z : s32[{0},{1}] = rand(5, -200, 200)\nconst #i : s64[11] = [{2}]\ngraph @g(%w: {3}[{0},{4}], %s: f32[{0},{1}]) {{\n"
      "%z = const #z : s32[{0},{1}]\n%i = const #i : s64[11]\n"
      "%y = q.embedding %w, %s, {5}, %i {{columns={6}, group={7}, bits={8}, signed={9}}} : f32[11,{6}]\nreturn %y\n}}\n",
      rows, sets, indices, half || !isSigned ? "u8" : "s8", stride, zeroPoints ? "%z" : "_", columns, group, half ? 4 : 8,
      isSigned ? 1 : 0);
}

TEST(Gather, PackedTables) {
  for (const int64_t columns : {1, 7, 32, 50, 129, 384})
    for (const int64_t group : {int64_t{1}, int64_t{5}, int64_t{16}, int64_t{32}, columns})
      for (const bool half : {false, true})
        for (const bool isSigned : {false, true}) {
          if (group > columns) continue;
          checkRows(embeddingText(6, columns, group, half, isSigned, columns % 2 == 0));
          checkRows(embeddingText(6, columns, group, half, isSigned, columns % 2 != 0));
        }
}

TEST(Gather, RefusesIndicesOutside) {
  constexpr int64_t kLow = std::numeric_limits<int64_t>::min(), kHigh = std::numeric_limits<int64_t>::max();
  const auto text = [](const char* type) {
    return fmt::format("graph @g(%x: f32[2,5,3], %i: {0}[4]) {{\n%y = gather %x, %i {{axis=1}} : f32[2,4,3]\nreturn %y\n}}\n", type);
  };
  expectRefused(text("s64"), 1, {5, -6, kLow, kHigh, int64_t{1} << 32});
  expectRefused(text("s32"), 1, {5, -6, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()});
  expectRefused(
      "graph @g(%w: u8[5,3], %s: f32[5,1], %i: s64[3]) {\n"
      "%y = q.embedding %w, %s, _, %i {columns=6, group=6, bits=4} : f32[3,6]\nreturn %y\n}\n",
      3, {5, -6, kLow, kHigh});
}

}  // namespace
}  // namespace qc::testing
