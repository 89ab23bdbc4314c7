// Recurrent layers in float, whole: what they are compiled to is kernels alone, and gives the bytes of their evaluation.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ir/interp.h"
#include "ir/text.h"
#include "runtime/qcompile.h"

namespace qc {
namespace {

constexpr int kSteps = 5, kBatch = 3, kInput = 7, kHidden = 19;

struct Layer {
  const char* cell;
  int gates;
  const char* direction;
  bool batchFirst, lengths, computed;  // computed: weights and biases are inputs
  bool bias = true;
};

std::string type(const std::string& dtype, const std::vector<int>& sizes) { return fmt::format("{}[{}]", dtype, fmt::join(sizes, ",")); }

std::string textOf(const Layer& l) {
  const int directions = l.direction == std::string_view("bidirectional") ? 2 : 1, rows = l.gates * kHidden;
  const auto order = [&](int first, int second, int third) {
    return type("f32", l.batchFirst ? std::vector{second, first, third} : std::vector{first, second, third});
  };
  std::string constants, inputs = "%x: " + order(kSteps, kBatch, kInput), body;
  const auto weight = [&](const char* name, const std::vector<int>& sizes, int seed) {
    if (l.computed) {
      inputs += fmt::format(", %{}: {}", name, type("f32", sizes));
      return;
    }
    constants += fmt::format("const #{} : {} = rand({}, -0.5, 0.5)\n", name, type("f32", sizes), seed);
    body += fmt::format("%{0} = const #{0} : {1}\n", name, type("f32", sizes));
  };
  weight("w", {directions, rows, kInput}, 1);
  weight("r", {directions, rows, kHidden}, 2);
  if (l.bias) weight("b", {directions, 2 * rows}, 3);
  if (l.lengths) inputs += fmt::format(", %n: s32[{}]", kBatch);
  const std::string state = order(directions, kBatch, kHidden);
  const bool lstm = l.gates == 4;
  const std::string all =
      l.batchFirst ? type("f32", {kBatch, kSteps, directions, kHidden}) : type("f32", {kSteps, directions, kBatch, kHidden});
  return fmt::format(
      "{}graph @g({}, %h: {}) -> (\"y\", \"last\") {{\n{}%y, %last{} = {} %x, %w, %r, {}, {}, %h {{hidden_size={}, direction=\"{}\", "
      "batch_first={}}} : "
      "{}, {}{}\nreturn %y, %last\n}}\n",
      constants, inputs, state, body, lstm ? ", %c" : "", l.cell, l.bias ? "%b" : "_", l.lengths ? "%n" : "_", kHidden, l.direction,
      l.batchFirst ? 1 : 0, all, state, lstm ? ", " + state : "");
}

TEST(RecurrentLayers, CompiledOnKernelsAlone) {
  const std::pair<const char*, int> cells[] = {{"lstm", 4}, {"gru", 3}, {"rnn", 1}};
  for (const auto& [cell, gates] : cells)
    for (const char* direction : {"reverse", "bidirectional"})
      for (const bool batchFirst : {false, true})
        for (const auto& [lengths, computed] : {std::pair(true, false), std::pair(false, true), std::pair(true, true)}) {
          const Layer layer{cell, gates, direction, batchFirst, lengths, computed, !batchFirst};
          const std::string text = textOf(layer);
          SCOPED_TRACE(text);
          auto graph = parseGraph(text, "test");
          ASSERT_TRUE(graph) << graph.error().render();
          std::vector<Tensor> tensors;
          TensorMap inputs;
          for (const Value* v : graph->inputs()) {
            Tensor t(v->type().dtype, v->type().sizes());
            for (int64_t i = 0; i < t.numElements(); ++i)
              storeElement(t.dtype(), t.mutableData(), i,
                           t.dtype() == DType::s32 ? (i * 3 + 1) % (kSteps + 1) : std::sin(0.7 * static_cast<double>(i + 1)));
            tensors.push_back(t);
            inputs[v->name()] = t;
          }
          const std::vector<Tensor> expected = interpret(*graph, tensors).value();
          const Model model(std::move(*graph), "test");
          auto exe = compile(model);
          ASSERT_TRUE(exe) << exe.error().render();
          for (const Step& step : exe->program().steps()) EXPECT_NE(step.kernel, nullptr) << step.node->op();
          const TensorMap found = exe->session().value().run(inputs).value();
          EXPECT_TRUE(found.at("y").sameBytes(expected[0]));
          EXPECT_TRUE(found.at("last").sameBytes(expected[1]));
        }
}

TEST(RecurrentLayers, LengthsOutsideTheSequenceAreRefused) {
  for (const bool batchFirst : {false, true}) {
    const Model model(parseGraph(textOf({"gru", 3, "forward", batchFirst, true, false}), "test").value(), "test");
    const Executable exe = compile(model).value();
    TensorMap inputs;
    for (const Port& port : model.inputs()) inputs[port.name] = Tensor(port.type.dtype, port.type.sizes());
    for (const int32_t bad : {-1, kSteps + 1, INT32_MIN}) {
      inputs.at("n").mutableAs<int32_t>()[1] = bad;
      const auto result = exe.session().value().run(inputs);
      ASSERT_FALSE(result) << bad;
      EXPECT_THAT(result.error().render(), ::testing::HasSubstr(fmt::format("sequence_lens holds {} for batch 1", bad)));
    }
  }
}

}  // namespace
}  // namespace qc
