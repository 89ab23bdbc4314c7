// Rows in order against the reference evaluation: running sums, the first k, reductions of integers; special values of floats.
#include <cmath>

#include "ir/text.h"
#include "tests/kernels/harness.h"

namespace qc::testing {
namespace {

constexpr const char* kTypes = "!a = q<u8, scale=0.037, zp=113>\n";

std::string unary(const char* op, const std::string& from, const std::string& attrs, const std::string& to) {
  return fmt::format("{}graph @g(%x: {}) {{\n%y = {} %x {{{}}} : {}\nreturn %y\n}}\n", kTypes, from, op, attrs, to);
}

TEST(Running, EveryType) {
  for (const char* op : {"cumsum", "cumprod"})
    for (const char* t : {"f32", "f64", "s32", "s64", "u8", "s16"})
      for (const char* attrs : {"", ", exclusive=1", ", reverse=1", ", exclusive=1, reverse=1"})
        for (const int n : {1, 2, 9, 40}) {
          const auto checked = [&](const std::string& shape, int axis) {
            const std::string type = fmt::format("{}[{}]", t, shape);
            checkRows(unary(op, type, fmt::format("axis={}{}", axis, attrs), type));
          };
          checked(fmt::format("3,{}", n), 1);
          for (const int inner : {2, 7, 16, 37}) checked(fmt::format("2,{},{}", n, inner), 1);
          checked(fmt::format("{},5", n), 0);
        }
}

// Rows side by side that fill several vectors, and blocks of them.
TEST(Running, WideRows) {
  for (const char* t : {"f32", "f64", "s64", "u8"})
    for (const int inner : {32, 96, 256, 1024})
      checkRows(unary("cumsum", fmt::format("{}[2,3,{}]", t, inner), "axis=1", fmt::format("{}[2,3,{}]", t, inner)));
}

std::string topkText(const std::string& t, const std::string& shape, int axis, int k, bool largest, const std::string& result) {
  return fmt::format("{}graph @g(%x: {}[{}]) {{\n%v, %i = topk %x {{axis={}, k={}, largest={}}} : {}[{}], s64[{}]\nreturn %v, %i\n}}\n",
                     kTypes, t, shape, axis, k, largest ? 1 : 0, t, result, result);
}

TEST(TopK, EveryType) {
  // Lengths by the types whose ways differ most; what makes keys of the others is seen at one.
  for (const char* t : {"f32", "s64", "s32", "u8", "s8", "!a"}) {
    const bool isFirst = std::string_view(t) == "f32" || std::string_view(t) == "u8";
    for (const bool largest : {false, true})
      for (const int n : {1, 3, 31, 200})
        for (const int k : {1, 2, 7, n}) {
          if (k > n || (!isFirst && n != 31)) continue;
          checkRows(topkText(t, fmt::format("3,{}", n), 1, k, largest, fmt::format("3,{}", k)));
          if (n < 40) checkRows(topkText(t, fmt::format("2,{},3", n), 1, k, largest, fmt::format("2,{},3", k)));
        }
  }
}

// Long rows: few kept, many, all.
TEST(TopK, LongRows) {
  for (const char* t : {"f32", "s64", "u32", "s8"})
    for (const bool largest : {false, true})
      for (const int n : {512, 513, 1500})
        for (const int k : {3, 70, 400, n}) {
          if (t[0] != 'f' && n == 512) continue;
          checkRows(topkText(t, fmt::format("2,{}", n), 1, k, largest, fmt::format("2,{}", k)));
          if (n == 513) checkRows(topkText(t, fmt::format("{},3", n), 0, k, largest, fmt::format("{},3", k)));
        }
}

// Ties, zeros of both signs, NaN of both signs and infinities.
TEST(TopK, SpecialValues) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  const float values[] = {0.0f, -0.0f, kNan, -kNan, -kInf, kInf, -1.0f, 1.0f, 1e-40f, -1e-40f};
  std::mt19937 rng(7);
  for (const bool largest : {false, true})
    for (const auto& [n, k] : std::vector<std::pair<int, int>>{{29, 1}, {29, 4}, {29, 29}, {700, 3}, {700, 500}}) {
      auto graph = parseGraph(topkText("f32", fmt::format("2,{}", n), 1, k, largest, fmt::format("2,{}", k)));
      ASSERT_TRUE(graph) << graph.error().render();
      for (const KernelDef* row : rowsFor("topk")) {
        if (!takes(*row, *graph->back())) continue;
        const auto kernel = compilePacked(*row, *graph->back(), Target::host());
        ASSERT_TRUE(kernel) << kernel.error().render();
        for (int round = 0; round < 100; ++round) {
          Tensor x(DType::f32, {2, n});
          for (float& v : x.mutableAs<float>()) v = values[rng() % std::size(values)];
          const std::vector<const Tensor*> operands = {&x};
          const auto expected = evaluateNode(*graph->back(), operands);
          ASSERT_TRUE(expected);
          const KernelRun run = runGuardedAll(*kernel, operands);
          for (size_t i = 0; i < 2; ++i) {
            const auto* bytes = static_cast<const uint8_t*>((*expected)[i].data());
            EXPECT_EQ(run.results[i], std::vector<uint8_t>(bytes, bytes + run.results[i].size())) << "k=" << k << ", result " << i;
          }
        }
      }
    }
}

TEST(Fold, Integers) {
  for (const char* t : {"s32", "s64", "u8", "s8", "s16", "u16", "u32"})
    for (const char* op : {"reduce_sum", "reduce_mean", "reduce_prod", "reduce_max", "reduce_min"})
      for (const int n : {1, 2, 17}) {
        checkRows(unary(op, fmt::format("{}[3,{}]", t, n), "axes=[1]", fmt::format("{}[3,1]", t)));
        checkRows(unary(op, fmt::format("{}[2,{},5]", t, n), "axes=[1], keepdims=0", fmt::format("{}[2,5]", t)));
      }
  for (const char* op : {"reduce_max", "reduce_min"})
    for (const char* axes : {"0", "1"})
      checkRows(unary(op, "bool[4,5]", fmt::format("axes=[{}], keepdims=0", axes), axes[0] == '0' ? "bool[5]" : "bool[4]"));
  for (const char* t : {"f32", "f64"}) {
    checkRows(unary("reduce_prod", fmt::format("{}[3,17]", t), "axes=[1]", fmt::format("{}[3,1]", t)));
    checkRows(unary("reduce_prod", fmt::format("{}[2,9,5]", t), "axes=[1]", fmt::format("{}[2,1,5]", t)));
  }
}

TEST(Fold, Arguments) {
  for (const char* t : {"s32", "s64", "u8", "bool"})
    for (const char* op : {"argmax", "argmin"})
      for (const int last : {0, 1})
        for (const int n : {1, 3, 70}) {
          const std::string attrs = fmt::format("axis=1, select_last={}", last);
          checkRows(unary(op, fmt::format("{}[3,{}]", t, n), attrs, "s64[3,1]"));
          for (const int inner : {7, 37})
            checkRows(unary(op, fmt::format("{}[2,{},{}]", t, n, inner), attrs, fmt::format("s64[2,1,{}]", inner)));
        }
}

}  // namespace
}  // namespace qc::testing
