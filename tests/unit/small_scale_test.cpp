// Scales down to the smallest denormal: lowered graphs and machine code round as the definition says, by a true division.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

// y of a graph on values of a few steps: as built, lowered, compiled for each target.
void expectDefinition(const std::string& text, float step) {
  auto graph = parseGraph(text);
  ASSERT_TRUE(graph) << graph.error().render() << text;
  const Model model(std::move(*graph), "small");
  Tensor x(DType::f32, {1, 2, 3, 3});
  for (int64_t i = 0; i < 18; ++i) nth(x.mutableAs<float>(), i) = static_cast<float>(i * 2 - 17) * step;
  x.mutableAs<float>()[17] = 1.0f;
  const auto expected = interpret(model.graph(), std::vector{x});
  ASSERT_TRUE(expected) << expected.error().render();
  std::set<double> values;
  for (int64_t i = 0; i < expected->front().numElements(); ++i) values.insert(expected->front().at(i));
  EXPECT_GT(values.size(), 4u) << text;
  PassContext cx;
  const auto lowered = lowerModel(model, cx);
  ASSERT_TRUE(lowered) << lowered.error().render() << text;
  const auto evaluated = interpret(*lowered, std::vector{x});
  ASSERT_TRUE(evaluated) << text;
  EXPECT_TRUE(evaluated->front().sameBytes(expected->front())) << text << print(*lowered);
  for (const char* target : {"generic", "avx2", "host"}) {
    BuildOptions options;
    options.target = *Target::parse(target);
    const auto exe = compile(model, options);
    ASSERT_TRUE(exe) << exe.error().render() << text;
    auto session = exe->session({});
    ASSERT_TRUE(session);
    const auto found = session->run({{"x", x}});
    ASSERT_TRUE(found) << text;
    EXPECT_TRUE(found->begin()->second.sameBytes(expected->front())) << target << "\n" << text;
  }
}

TEST(SmallScales, RoundByDivision) {
  for (const char* storage : {"s8", "u8", "s16", "u16"})
    for (const char* scale : {"1e-37", "2e-39", "1e-40", "1.4e-45"})
      for (const char* body : {
               "%q = quantize %x : !q[1,2,3,3]",
               "%a = relu %x : f32[1,2,3,3]\n%q = quantize %a : !q[1,2,3,3]",
               "%a = add %x, %x : f32[1,2,3,3]\n%q = quantize %a : !q[1,2,3,3]",
               "%a = quantize %x : !q[1,2,3,3]\n%d = dequantize %a : f32[1,2,3,3]\n%r = relu %d : f32[1,2,3,3]\n"
               "%q = quantize %r : !q[1,2,3,3]",
               "%a = quantize %x : !q[1,2,3,3]\n%d = dequantize %a : f32[1,2,3,3]\n"
               "%r = max_pool %d {kernel_shape=[1,1]} : f32[1,2,3,3]\n%q = quantize %r : !r[1,2,3,3]",
           })
        expectDefinition(fmt::format("!q = q<{0}, scale={1}, zp=9>\n!r = q<{0}, scale={1}, zp=30>\n"
                                     "graph @g(%x: f32[1,2,3,3]) -> (\"y\") {{\n{2}\nreturn %q\n}}\n",
                                     storage, scale, std::string(body)),
                         std::strtof(scale, nullptr));
}

TEST(SmallScales, PerChannel) {
  for (const char* storage : {"s8", "u8"})
    expectDefinition(fmt::format("!q = q<{0}, axis=1, scale=[1e-40,1.4e-45], zp=[20,9]>\ngraph @g(%x: f32[1,2,3,3]) -> (\"y\") {{\n"
                                 "%q = quantize %x : !q[1,2,3,3]\nreturn %q\n}}\n",
                                 storage),
                     1e-40f);
}

}  // namespace
}  // namespace qc
