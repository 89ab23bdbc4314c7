// Convolutions and linear layers of floats whose weights and biases are computed: what they are compiled to is kernels alone on every
// target, with the bytes of their evaluation, and of the same layer whose weights are constants.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "codegen/plan/select_kernels.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/pass_manager.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

using Sizes = std::vector<int64_t>;

struct Layer {
  const char* op;
  Sizes x, w;
  std::string attrs;
  Sizes y;
  int64_t outputs;
  bool bias = true;
};

const std::vector<Layer>& layers() {
  static const std::vector<Layer> all = {
      {"conv", {2, 3, 9, 11}, {16, 3, 3, 3}, "pads=[1,1,1,1]", {2, 16, 9, 11}, 16},
      {"conv", {1, 5, 8, 9}, {70, 5, 3, 3}, "strides=[2,2], pads=[1,1,1,1]", {1, 70, 4, 5}, 70},
      {"conv", {1, 4, 12, 14}, {20, 4, 3, 3}, "pads=[2,3,2,3], dilations=[2,3]", {1, 20, 12, 14}, 20, false},
      {"conv", {2, 32, 8, 7}, {65, 32, 1, 1}, "strides=[2,2]", {2, 65, 4, 4}, 65},
      {"conv", {1, 24, 6, 6}, {36, 6, 3, 3}, "pads=[1,1,1,1], group=4", {1, 36, 6, 6}, 36},
      {"conv", {1, 12, 6, 7}, {15, 4, 1, 1}, "group=3", {1, 15, 6, 7}, 15, false},
      {"conv", {2, 40, 6, 9}, {40, 1, 3, 3}, "pads=[1,1,1,1], group=40", {2, 40, 6, 9}, 40},
      {"conv", {1, 64, 9, 9}, {64, 1, 5, 5}, "strides=[2,2], pads=[2,2,2,2], group=64", {1, 64, 5, 5}, 64, false},
      {"conv", {1, 6, 7, 7}, {12, 1, 3, 3}, "pads=[1,1,1,1], group=6", {1, 12, 7, 7}, 12},
      {"conv", {2, 5, 30}, {17, 5, 7}, "strides=[2], pads=[3,2]", {2, 17, 15}, 17},
      {"conv", {1, 3, 4, 5, 6}, {9, 3, 2, 3, 3}, "pads=[0,1,1,0,1,1]", {1, 9, 3, 5, 6}, 9},
      {"conv", {1, 8, 6, 20}, {3, 8, 3, 3}, "pads=[1,1,1,1], post=\"max(0, a0)\"", {1, 3, 6, 20}, 3},
      {"conv", {1, 2, 40, 40}, {4, 2, 3, 3}, "pads=[24,24,24,24], dilations=[24,24]", {1, 4, 40, 40}, 4},
      {"conv_transpose", {1, 6, 4, 5}, {6, 2, 4, 4}, "strides=[2,2], pads=[1,1,1,1], group=3", {1, 6, 8, 10}, 6},
      {"conv_transpose", {2, 20, 5, 4}, {20, 33, 3, 3}, "pads=[1,1,1,1]", {2, 33, 5, 4}, 33},
      {"conv_transpose", {1, 3, 4, 5}, {3, 7, 3, 3}, "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", {1, 7, 8, 10}, 7},
      {"conv_transpose", {1, 3, 4, 5}, {3, 5, 2, 2}, "strides=[2,2]", {1, 5, 8, 10}, 5},
      {"conv_transpose", {1, 3, 3, 4}, {3, 5, 1, 1}, "strides=[3,2]", {1, 5, 7, 7}, 5},
      {"conv_transpose", {2, 16, 6, 6}, {16, 1, 3, 3}, "strides=[2,2], pads=[1,1,1,1], group=16", {2, 16, 11, 11}, 16, false},
      {"conv_transpose", {2, 3, 5}, {3, 7, 4}, "strides=[2], pads=[1,1]", {2, 7, 10}, 7},
      {"linear", {5, 33}, {70, 33}, "", {5, 70}, 70},
      {"linear", {2, 3, 16}, {10, 16}, "post=\"a0 * 2\"", {2, 3, 10}, 10, false},
      {"linear", {1, 7}, {1, 7}, "", {1, 1}, 1},
  };
  return all;
}

std::string text(const Layer& l, bool computed) {
  const auto type = [](const Sizes& sizes) { return fmt::format("f32[{}]", fmt::join(sizes, ",")); };
  std::string constants, inputs = "%x: " + type(l.x), body;
  const auto operand = [&](const char* name, const Sizes& sizes, int seed) {
    if (computed) {
      inputs += fmt::format(", %{}: {}", name, type(sizes));
      return;
    }
    constants += fmt::format("const #{} : {} = rand({}, -0.5, 0.5)\n", name, type(sizes), seed);
    body += fmt::format("%{0} = const #{0} : {1}\n", name, type(sizes));
  };
  operand("w", l.w, 1);
  if (l.bias) operand("b", {l.outputs}, 2);
  return fmt::format("{}graph @g({}) {{\n{}%y = {} %x, %w{}{} : {}\nreturn %y\n}}\n", constants, inputs, body, l.op, l.bias ? ", %b" : "",
                     l.attrs.empty() ? "" : fmt::format(" {{{}}}", l.attrs), type(l.y));
}

Tensor random(const TensorType& type, uint32_t seed) {
  Tensor t(type.dtype, type.sizes());
  for (float& v : t.mutableAs<float>()) {
    seed = seed * 1664525 + 1013904223;
    v = static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-32f;
  }
  return t;
}

TEST(ComputedWeights, AreKernelsAloneOnEveryTarget) {
  registerCodegenPasses();
  for (const Layer& layer : layers()) {
    const Graph whole = parseGraph(text(layer, true)).value();
    std::vector<Tensor> inputs;
    for (const Value* v : whole.inputs()) inputs.push_back(random(v->type(), 3 + static_cast<uint32_t>(inputs.size())));
    const auto expected = interpret(whole, inputs);
    ASSERT_TRUE(expected) << expected.error().render();
    for (const char* name : {"x86-64", "avx2", "avx512vnni", "aarch64", "aarch64+dotprod"}) {
      SCOPED_TRACE(fmt::format("{}\n{}", name, text(layer, true)));
      Graph graph = parseGraph(text(layer, true)).value();
      PassContext cx;
      const auto target = Target::parse(name);
      ASSERT_TRUE(target) << target.error().render();
      cx.provide(*target);
      const Status done = runPipeline("compile", graph, cx);
      ASSERT_TRUE(done) << done.error().render();
      const std::string compiled = print(graph);
      EXPECT_THAT(compiled, testing::Not(testing::HasSubstr("kernel=\"reference\"")));
      const auto got = interpret(graph, inputs);
      ASSERT_TRUE(got) << got.error().render() << compiled;
      EXPECT_TRUE(got->front().sameBytes(expected->front())) << compiled;
    }
  }
}

TEST(ComputedWeights, GiveTheBytesOfConstants) {
  for (const Layer& layer : layers()) {
    Graph constant = parseGraph(text(layer, false)).value();
    TensorMap inputs;
    std::vector<Tensor> list{random(constant.inputs()[0]->type(), 3)};
    inputs["x"] = list[0];
    for (const auto& [name, tensor] : constant.constants().entries()) inputs[name] = tensor;
    const auto expected = interpret(constant, list);
    ASSERT_TRUE(expected) << expected.error().render();
    for (const char* cap : {"x86-64", "avx2", "avx512vnni"})
      for (const int threads : {1, 2}) {
        SCOPED_TRACE(fmt::format("{}, {} threads\n{}", cap, threads, text(layer, true)));
        BuildOptions options;
        options.target = Target::host().cap(*Target::parse(cap));
        const auto exe = compile(Model(parseGraph(text(layer, true), "test").value(), "test"), options);
        ASSERT_TRUE(exe) << exe.error().render();
        for (const Step& step : exe->program().steps()) EXPECT_NE(step.kernel, nullptr) << step.node->op();
        const auto got = exe->session({.threads = threads}).value().run(inputs);
        ASSERT_TRUE(got) << got.error().render();
        EXPECT_TRUE(got->at("y").sameBytes(expected->front()));
      }
  }
}

}  // namespace
}  // namespace qc
