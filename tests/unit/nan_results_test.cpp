// Every elementwise op of floats on values that are not numbers, infinite or signed zeros: machine code gives the interpreter's values, and
// NaN where it gives NaN.  Sign and payload of a NaN are not compared.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "ir/interp.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

constexpr uint32_t kPatterns[] = {0x7fc00001, 0xffc12345, 0x7f800000, 0xff800000, 0x00000000, 0x80000000, 0x7f800001, 0xff800001,
                                  0x3f800000, 0xbf800000, 0x40200000, 0xc0200000, 0x00000001, 0x80000001, 0x7f7fffff, 0xff7fffff};
constexpr int64_t kCount = std::size(kPatterns);

// Every pattern in turn, or each as often as there are patterns: all pairs.
Tensor patterns(bool slow) {
  Tensor t(DType::f32, {kCount * kCount});
  for (int64_t i = 0; i < t.numElements(); ++i)
    nth(t.mutableAs<float>(), i) = std::bit_cast<float>(kPatterns[slow ? i / kCount : i % kCount]);
  return t;
}

TEST(NanResults, AreWhereTheInterpreterHasThem) {
  const std::vector<Tensor> inputs = {patterns(false), patterns(true)};
  int compared = 0, numbers = 0;
  for (const auto& [name, op] : OpRegistry::get().ops()) {
    if (!op.has(kElementwise) || op.operands.size() > 2 || op.operands.back().variadic) continue;
    Graph graph;
    std::vector<Value*> operands;
    for (size_t i = 0; i < inputs.size(); ++i) {
      Value* v = graph.addInput(i ? "z" : "x", inputs[i].type());
      if (i < op.operands.size()) operands.push_back(v);
    }
    const auto y = Builder(graph).create(name, operands);
    if (!y || (*y)->type().dtype != DType::f32) continue;  // not of floats, or with attributes of its own
    graph.setOutputs({*y});
    graph.setOutputNames({"y"});
    const auto expected = interpret(graph, inputs);
    ASSERT_TRUE(expected) << name;
    const Model model(std::move(graph), name);
    for (const char* target : {"generic", "avx2", "host"}) {
      BuildOptions options;
      options.target = *Target::parse(target);
      const auto exe = compile(model, options);
      ASSERT_TRUE(exe) << name << exe.error().render();
      auto session = exe->session({});
      ASSERT_TRUE(session) << name;
      const auto found = session->run({{"x", inputs[0]}, {"z", inputs[1]}});
      ASSERT_TRUE(found) << name;
      const auto a = expected->front().as<float>(), b = found->at("y").as<float>();
      for (size_t i = 0; i < a.size(); ++i) {
        const bool same = std::isnan(a[i]) ? std::isnan(b[i]) : std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i]);
        EXPECT_TRUE(same) << name << " on " << target << " of " << inputs[0].at(static_cast<int64_t>(i)) << ", "
                          << inputs[1].at(static_cast<int64_t>(i)) << ": " << a[i] << ", " << b[i];
        numbers += !std::isnan(a[i]);
      }
    }
    ++compared;
  }
  EXPECT_GT(compared, 30);
  EXPECT_GT(numbers, 1000);
}

}  // namespace
}  // namespace qc
