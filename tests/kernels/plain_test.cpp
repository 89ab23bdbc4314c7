// Elementwise kernels on integers and bools, comparisons and casts against the reference evaluation.
#include <bit>
#include <cstring>
#include <limits>

#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kIntegers[] = {"u8", "s8", "u16", "s16", "u32", "s32", "s64"};

void binary(const char* op, const std::string& type, const std::string& result, int n) {
  checkRows(fmt::format("graph @g(%a: {0}[{2}], %b: {0}[{2}]) {{\n%y = {3} %a, %b : {1}[{2}]\nreturn %y\n}}\n", type, result, n, op));
}

TEST(Plain, Comparisons) {
  for (const char* op : {"equal", "less", "greater_equal"}) {
    for (const char* type : kIntegers)
      for (const int n : {1, 7, 16, 50}) binary(op, type, "bool", n);
    for (const int n : {1, 16, 37}) binary(op, "f32", "bool", n);
  }
  binary("equal", "bool", "bool", 70);
}

TEST(Plain, Arithmetic) {
  for (const char* op : {"add", "sub", "mul", "min", "max"})
    for (const char* type : kIntegers) binary(op, type, type, 37);
  for (const char* op : {"and", "or", "xor"}) binary(op, "bool", "bool", 70);
  for (const char* type : {"s8", "s32", "s64"})
    for (const char* op : {"neg", "abs", "relu", "sign"})
      checkRows(fmt::format("graph @g(%a: {0}[41]) {{\n%y = {1} %a : {0}[41]\nreturn %y\n}}\n", type, op), true);
  checkRows("graph @g(%a: bool[41]) {\n%y = not %a : bool[41]\nreturn %y\n}\n");
  checkRows("graph @g(%a: f32[41]) {\n%y = isnan %a : bool[41]\nreturn %y\n}\n");
  checkRows("graph @g(%a: s32[41]) {\n%y = clip %a {min=-5, max=900} : s32[41]\nreturn %y\n}\n");
}

// By 0 as well, and the least number by -1.
TEST(Plain, Division) {
  for (const char* op : {"div", "mod"})
    for (const char* type : kIntegers)
      for (const int n : {1, 37}) binary(op, type, type, n);
  for (const char* type : {"s8", "s32", "s64"})
    checkRows(fmt::format("graph @g(%a: {0}[41], %b: {0}[41]) {{\n%y = mod %a, %b {{fmod=1}} : {0}[41]\nreturn %y\n}}\n", type));
  constexpr int64_t kLow = std::numeric_limits<int64_t>::min(), kHigh = std::numeric_limits<int64_t>::max();
  const std::vector<int64_t> numbers = {kLow, kLow + 1, -7, -6, -1, 0, 1, 5, 6, kHigh};
  std::vector<int64_t> left, right;
  for (const int64_t a : numbers)
    for (const int64_t b : numbers) left.push_back(a), right.push_back(b);
  const auto n = static_cast<int64_t>(left.size());
  const Tensor a = Tensor::ofInts({n}, left), b = Tensor::ofInts({n}, right);
  for (const char* op : {"div", "mod", "mod {fmod=1}"}) {
    const std::string text(op), name = text.substr(0, 3), attrs = text.substr(3);
    auto graph =
        parseGraph(fmt::format("graph @g(%a: s64[{0}], %b: s64[{0}]) {{\n%y = {1} %a, %b{2} : s64[{0}]\nreturn %y\n}}\n", n, name, attrs));
    ASSERT_TRUE(graph) << graph.error().render();
    ASSERT_FALSE(rowsFor(name).empty());
    for (const KernelDef* row : rowsFor(name)) expectExact(*row, *graph->back(), {&a, &b}, op);
  }
}

TEST(Plain, Selection) {
  for (const char* type : {"f32", "u8", "s64", "bool"}) {
    checkRows(
        fmt::format("graph @g(%c: bool[3,19], %a: {0}[3,19], %b: {0}[19]) {{\n%y = where %c, %a, %b : {0}[3,19]\nreturn %y\n}}\n", type));
    checkRows(
        fmt::format("graph @g(%c: bool[3,1], %a: {0}[], %b: {0}[3,40]) {{\n%y = where %c, %a, %b : {0}[3,40]\nreturn %y\n}}\n", type));
  }
}

TEST(Plain, Casts) {
  for (const char* from : {"bool", "u8", "s8", "u16", "s16", "u32", "s32", "s64"})
    for (const char* to : {"bool", "u8", "s8", "s16", "u32", "s32", "s64", "f32"}) {
      if (std::string(from) == to) continue;
      checkRows(fmt::format("graph @g(%a: {0}[53]) {{\n%y = cast %a {{to={1}}} : {1}[53]\nreturn %y\n}}\n", from, to));
    }
  checkRows("graph @g(%a: f32[53]) {\n%y = cast %a : bool[53]\nreturn %y\n}\n");
}

TEST(Plain, FloatsToIntegers) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> values = {0,       -0.5f,         0.99f,    -1,    254.99f, 255,       255.5f, 256,     300,
                                     127.9f,  128,           inf,      -inf,  nan,     3e9f,      -3e9f,  1e20f,   -129,
                                     -128.5f, 2147483520.0f, 65535.9f, 65536, -1e-40f, -32768.5f, -32770, 32767.9f};
  for (const char* to : {"u8", "s8", "u16", "s16", "s32", "u32", "s64"}) {
    auto graph =
        parseGraph(fmt::format("graph @g(%a: f32[{0}]) {{\n%y = cast %a {{to={1}}} : {1}[{0}]\nreturn %y\n}}\n", values.size(), to));
    ASSERT_TRUE(graph) << graph.error().render();
    const Tensor x = Tensor::ofFloats({static_cast<int64_t>(values.size())}, values);
    for (const KernelDef* row : rowsFor("cast")) expectExact(*row, *graph->back(), {&x}, to);
    checkRows(fmt::format("graph @g(%a: f32[53]) {{\n%y = cast %a {{to={0}}} : {0}[53]\nreturn %y\n}}\n", to));
  }
}

// Every 16-bit pattern, and floats around every place where the rounding or the form of a narrow float changes.
TEST(Plain, NarrowFloats) {
  std::vector<uint32_t> patterns = {0x7f800001, 0x7fc00000, 0xffc12345, 0x7fffffff, 0xff800001, 0x00000001, 0x80000001, 0x007fffff};
  for (int64_t i = 0; i < 65536; ++i) {
    const float half = halfToFloat(static_cast<uint16_t>(i)), next = halfToFloat(static_cast<uint16_t>(i + 1));
    const uint32_t middle = std::bit_cast<uint32_t>(half / 2 + next / 2), bfloat = static_cast<uint32_t>(i) << 16;
    for (const uint32_t bits :
         {std::bit_cast<uint32_t>(half), middle, middle + 1, middle - 1, bfloat, bfloat + 0x7fff, bfloat + 0x8000, bfloat + 0x8001})
      patterns.push_back(bits);
  }
  const auto n = static_cast<int64_t>(patterns.size());
  Tensor floats(DType::f32, {n});
  for (size_t i = 0; i < patterns.size(); ++i) floats.mutableAs<float>()[i] = std::bit_cast<float>(patterns[i]);
  for (const char* narrow : {"f16", "bf16"}) {
    Tensor all(parseDType(narrow).value(), {65536});
    for (size_t i = 0; i < 65536; ++i) all.mutableAs<uint16_t>()[i] = static_cast<uint16_t>(i);
    const std::string widen = fmt::format("graph @g(%a: {}[65536]) {{\n%y = cast %a : f32[65536]\nreturn %y\n}}\n", narrow);
    const std::string shrink = fmt::format("graph @g(%a: f32[{0}]) {{\n%y = cast %a {{to={1}}} : {1}[{0}]\nreturn %y\n}}\n", n, narrow);
    for (const auto& [text, operand] : {std::pair(widen, &all), std::pair(shrink, &floats)}) {
      const Graph graph = parseGraph(text).value();
      const Tensor expected = evaluateNode(*graph.back(), std::vector<const Tensor*>{operand}).value()[0];
      for (const char* target : {"generic", "avx2", "avx512vnni"}) {
        const auto kernel = compilePacked(*findKernel("plain"), *graph.back(), Target::host().cap(Target::parse(target).value()));
        ASSERT_TRUE(kernel) << kernel.error().render();
        const std::vector<uint8_t> bytes = runGuarded(*kernel, {operand});
        EXPECT_EQ(std::memcmp(bytes.data(), expected.data(), bytes.size()), 0) << text << target;
      }
    }
  }
}

TEST(Plain, ComputesInNarrowFloats) {
  for (const char* type : {"f16", "bf16"}) {
    for (const char* op : {"add", "sub", "mul", "min", "max"}) binary(op, type, type, 37);
    binary("less", type, "bool", 37);
    checkRows(
        fmt::format("graph @g(%c: bool[3,19], %a: {0}[3,19], %b: {0}[19]) {{\n%y = where %c, %a, %b : {0}[3,19]\nreturn %y\n}}\n", type));
    for (const char* other : {"bool", "u8", "s8", "u16", "s32", "s64", "u32"}) {
      checkRows(fmt::format("graph @g(%a: {0}[53]) {{\n%y = cast %a {{to={1}}} : {1}[53]\nreturn %y\n}}\n", type, other));
      checkRows(fmt::format("graph @g(%a: {1}[53]) {{\n%y = cast %a {{to={0}}} : {0}[53]\nreturn %y\n}}\n", type, other));
    }
  }
}

TEST(Plain, OneHot) { checkRows("graph @g(%a: s32[1,30,1], %b: s32[1,1,257]) {\n%y = equal %a, %b : bool[1,30,257]\nreturn %y\n}\n"); }

// Dense, broadcast along every side, in every width; shifts by more than there is.
TEST(Plain, Bits) {
  for (const char* t : {"u8", "s8", "u16", "s32", "u32", "s64", "u64"}) {
    for (const char* op : {"bitwise_and", "bitwise_or", "bitwise_xor", "bit_shift", "bit_shift {direction=\"RIGHT\"}"}) {
      const std::string text(op);
      if (t[0] == 's' && text.starts_with("bit_shift")) continue;
      const size_t end = std::min(text.find(' '), text.size());
      const auto checked = [&](const char* a, const char* b, const char* y) {
        checkRows(fmt::format("graph @g(%a: {0}[{1}], %b: {0}[{2}]) {{\n%y = {3} %a, %b{4} : {0}[{5}]\nreturn %y\n}}\n", t, a, b,
                              text.substr(0, end), text.substr(end), y));
      };
      checked("1", "1", "1");
      checked("3,70", "3,70", "3,70");
      checked("2,3,9", "3,1", "2,3,9");
      checked("5,1", "1,33", "5,33");
    }
    checkRows(fmt::format("graph @g(%a: {0}[3,41]) {{\n%y = bitwise_not %a : {0}[3,41]\nreturn %y\n}}\n", t));
  }
}

}  // namespace
}  // namespace qc::testing
