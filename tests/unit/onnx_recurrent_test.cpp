// Recurrent layers that quantize at run time, through an ONNX file: the same op with the same bytes, and functions that compute it.
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <onnx/onnx_pb.h>

#include <cctype>
#include <cmath>
#include <deque>
#include <functional>

#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

struct Layer {
  const char* cell;
  const char* direction = "forward";
  const char* attrs = "";  // of the cell
  bool batchFirst = false, bias = true, initial = true;
  const char* weights = "s8";
  const char* range = ", eps=1.1754943508222875e-38";
  bool lengths = false;
};
constexpr int kSteps = 4, kBatch = 3, kInput = 6, kHidden = 5;

// `layers` of them side by side, of weights of their own.
std::string textOf(const std::vector<Layer>& layers) {
  std::string constants, body, returned;
  const Layer& first = layers.front();
  const std::string x =
      first.batchFirst ? fmt::format("f32[{},{},{}]", kBatch, kSteps, kInput) : fmt::format("f32[{},{},{}]", kSteps, kBatch, kInput);
  for (size_t i = 0; i < layers.size(); ++i) {
    const Layer& l = layers[i];
    const int gates = std::string_view(l.cell) == "gru" ? 3 : std::string_view(l.cell) == "lstm" ? 4 : 1, rows = gates * kHidden;
    const int directions = std::string_view(l.direction) == "bidirectional" ? 2 : 1;
    const auto constant = [&](const char* name, const std::string& plain, const std::string& type, const std::string& payload) {
      constants += fmt::format("const #{}{} : {} = {}\n", name, i, plain, payload);
      body += fmt::format("%{0}{1} = const #{0}{1} : {2}\n", name, i, type);
    };
    const bool isSigned = l.weights == std::string_view("s8");
    const auto matrix = [&](const char* name, int depth) {
      const std::string sizes = fmt::format("[{},{},{}]", directions, rows, depth);
      std::vector<std::string> scales;
      for (int k = 0; k < directions * rows; ++k) scales.push_back(fmt::format("{}", 0.002 + 0.0001 * k));
      constants += fmt::format("!{}{} = q<{}, axis=2, block={}, scale=[{}], zp={}>\n", name, i, l.weights, depth, fmt::join(scales, ", "),
                               isSigned ? "0" : "131");
      constant(name, l.weights + sizes, fmt::format("!{}{}{}", name, i, sizes),
               fmt::format("rand({}, {})", 10 * i + usize(depth), isSigned ? "-127, 127" : "0, 255"));
    };
    matrix("w", kInput);
    matrix("r", kHidden);
    const std::string state = l.batchFirst ? fmt::format("f32[{},{},{}]", kBatch, directions, kHidden)
                                           : fmt::format("f32[{},{},{}]", directions, kBatch, kHidden);
    const std::string all = l.batchFirst ? fmt::format("f32[{},{},{},{}]", kBatch, kSteps, directions, kHidden)
                                         : fmt::format("f32[{},{},{},{}]", kSteps, directions, kBatch, kHidden);
    const std::string bias = fmt::format("f32[{},{}]", directions, 2 * rows), lengths = fmt::format("s32[{}]", kBatch);
    if (l.bias) constant("b", bias, bias, "rand(3, -0.5, 0.5)");
    if (l.initial) constant("h", state, state, "rand(4, -1.0, 1.0)");
    if (l.lengths) constant("n", lengths, lengths, "[4, 2, 3]");
    const auto given = [&](bool is, const char* name) { return is ? fmt::format("%{}{}", name, i) : std::string("_"); };
    const bool lstm = gates == 4;
    body += fmt::format(
        "%y{0}, %l{0}{1} = q.dynamic_{2} %x, %w{0}, %r{0}, {3}, {4}, {5} {{hidden_size={6}, direction=\"{7}\", "
        "batch_first={8}{9}{10}}} : {11}, {12}{13}\n",
        i, lstm ? fmt::format(", %c{}", i) : "", l.cell, given(l.bias, "b"), given(l.lengths, "n"), given(l.initial, "h"), kHidden,
        l.direction, l.batchFirst ? 1 : 0, l.attrs, l.range, all, state, lstm ? ", " + state : "");
    returned += fmt::format("{}%y{}, %l{}", returned.empty() ? "" : ", ", i, i);
  }
  return fmt::format("{}graph @g(%x: {}) {{\n{}return {}\n}}\n", constants, x, body, returned);
}

std::vector<Tensor> run(const Graph& graph) {
  Tensor x(DType::f32, graph.inputs()[0]->type().sizes());
  for (int64_t i = 0; i < x.numElements(); ++i) nth(x.mutableAs<float>(), i) = std::sin(0.7f * static_cast<float>(i));
  auto results = interpret(graph, std::vector{x});
  EXPECT_TRUE(results) << results.error().render();
  return results ? *results : std::vector<Tensor>();
}

Graph graphOf(const std::vector<Layer>& layers) {
  auto graph = parseGraph(textOf(layers), "test");
  EXPECT_TRUE(graph) << graph.error().render() << textOf(layers);
  return std::move(graph.value());
}

onnx::ModelProto written(const Graph& graph) {
  const auto bytes = exportOnnx(graph);
  EXPECT_TRUE(bytes) << bytes.error().render();
  onnx::ModelProto proto;
  EXPECT_TRUE(proto.ParseFromString(bytes.value()));
  return proto;
}

Graph read(const onnx::ModelProto& proto) {
  auto graph = importOnnx(proto.SerializeAsString(), {});
  EXPECT_TRUE(graph) << graph.error().render();
  return std::move(graph.value());
}

const Node* only(const Graph& graph, const std::string& op) {
  const Node* found = nullptr;
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->is("const")) continue;
    EXPECT_EQ(n->op(), op);
    EXPECT_EQ(found, nullptr) << "two nodes";
    found = n;
  }
  return found;
}

std::vector<Layer> everyForm() {
  std::vector<Layer> forms;
  for (const char* cell : {"gru", "rnn"})
    for (const char* direction : {"forward", "reverse", "bidirectional"})
      for (const bool batchFirst : {false, true}) {
        forms.push_back({cell, direction, "", batchFirst});
        forms.push_back({cell, direction, ", clip=0.3", batchFirst, false, false});
      }
  forms.push_back({"gru", "bidirectional", ", linear_before_reset=1"});
  forms.push_back({"gru", "forward", "", false, true, true, "u8"});
  for (const char* cell : {"gru", "rnn"})
    for (const char* direction : {"forward", "reverse", "bidirectional"})
      for (const bool batchFirst : {false, true})
        forms.push_back({cell, direction, "", batchFirst, true, !batchFirst, "s8", ", eps=1.1754943508222875e-38", true});
  forms.push_back({"rnn", "forward", "", false, true, false, "s8", ", eps=1e-07"});
  for (const char* activation :
       {"Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu", "Softsign", "Softplus"}) {
    static std::deque<std::string> texts;
    texts.push_back(fmt::format(", activations=\"{}\"", activation));
    forms.push_back({"rnn", "reverse", texts.back().c_str()});
    texts.push_back(fmt::format(", activations=\"HardSigmoid,{},Sigmoid,Tanh\", activation_alpha=[0.25, 0.75], activation_beta=[0.5, 0.1]",
                                activation));
    forms.push_back({"gru", "bidirectional", texts.back().c_str()});
  }
  return forms;
}

TEST(OnnxRecurrent, LayersSurviveWithEveryBit) {
  for (const Layer& layer : everyForm()) {
    const Graph graph = graphOf({layer});
    SCOPED_TRACE(print(graph));
    const onnx::ModelProto proto = written(graph);
    ASSERT_EQ(proto.functions_size(), 1);
    const Graph again = read(proto);
    const Node *before = only(graph, std::string("q.dynamic_") + layer.cell), *after = only(again, std::string("q.dynamic_") + layer.cell);
    ASSERT_NE(after, nullptr);
    for (const char* name : {"direction", "activations"}) EXPECT_EQ(after->string(name), before->string(name)) << name;
    for (const char* name : {"hidden_size", "batch_first", "qmin", "qmax"}) EXPECT_EQ(after->integer(name), before->integer(name)) << name;
    for (const char* name : {"eps", "clip"})
      EXPECT_EQ(static_cast<float>(after->real(name)), static_cast<float>(before->real(name))) << name;
    const std::vector<Tensor> expected = run(graph), found = run(again);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(found[i].sameBytes(expected[i])) << i;
  }
}

// Under another name a function is unfolded, op by op: the same numbers, but for the order of a few roundings.
TEST(OnnxRecurrent, BodiesComputeTheLayer) {
  for (const Layer& layer : everyForm()) {
    const Graph graph = graphOf({layer});
    SCOPED_TRACE(print(graph));
    onnx::ModelProto proto = written(graph);
    proto.mutable_functions(0)->set_domain("of.someone.else");
    for (auto& node : *proto.mutable_graph()->mutable_node())
      if (node.domain() == "qcompile") node.set_domain("of.someone.else");
    const std::vector<Tensor> expected = run(graph), found = run(read(proto));
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(found[i].sizes(), expected[i].sizes());
      for (int64_t k = 0; k < found[i].numElements(); ++k) EXPECT_NEAR(found[i].at(k), expected[i].at(k), 1e-5) << i << " " << k;
    }
  }
}

TEST(OnnxRecurrent, EqualBodiesAreOneFunction) {
  const onnx::ModelProto proto = written(graphOf({{"gru"}, {"gru"}, {"gru", "reverse"}, {"rnn"}}));
  ASSERT_EQ(proto.functions_size(), 3);
  std::vector<std::string> calls;
  for (const auto& node : proto.graph().node()) {
    EXPECT_EQ(node.domain(), "qcompile");
    calls.push_back(node.op_type());
  }
  EXPECT_EQ(calls[0], calls[1]);
  EXPECT_NE(calls[0], calls[2]);
  bool imported = false;
  for (const auto& entry : proto.opset_import()) imported |= entry.domain() == "qcompile";
  EXPECT_TRUE(imported);
  for (const auto& function : proto.functions()) EXPECT_EQ(function.opset_import(0).version(), proto.opset_import(0).version());
}

// Blocks of weights need opset 21, which is known only when the whole file is written.
TEST(OnnxRecurrent, FunctionsAreOfTheOpsetOfTheFile) {
  const onnx::ModelProto proto = written(graphOf({{"gru"}, {"gru", "forward", "", false, true, true, "s8", ", granularity=\"token\""}}));
  ASSERT_EQ(proto.functions_size(), 1);
  EXPECT_EQ(proto.opset_import(0).version(), 21);
  EXPECT_EQ(proto.functions(0).opset_import(0).version(), 21);
  EXPECT_TRUE(importOnnx(proto.SerializeAsString(), {}));
}

// What has no such form is the float layer over integer weights.
TEST(OnnxRecurrent, OtherFormsAreFloat) {
  const std::vector<Layer> others = {
      {"gru", "forward", "", false, true, true, "s8", ", granularity=\"token\""},
      {"gru", "forward", "", false, true, true, "s8", ", qmax=127"},
      {"rnn", "forward", "", false, true, true, "s8", ", qmin=-128, qmax=127, storage=s8"},
      {"rnn", "forward", "", false, true, true, "s8", ", scheme=\"symmetric\""},
      {"rnn", "forward", "", false, true, true, "s8", ", eps=0.001"},
      {"lstm", "forward", "", true},
      {"lstm", "forward", "", false, true, true, "s8", ", eps=0.001"},
  };
  for (const Layer& layer : others) {
    const Graph graph = graphOf({layer});
    SCOPED_TRACE(print(graph));
    const onnx::ModelProto proto = written(graph);
    EXPECT_EQ(proto.functions_size(), 0);
    std::string op = layer.cell;
    for (char& c : op) c = static_cast<char>(std::toupper(c));
    EXPECT_EQ(proto.graph().node(proto.graph().node_size() - 1).op_type(), op);
    EXPECT_TRUE(importOnnx(proto.SerializeAsString(), {}));
  }
}

TEST(OnnxRecurrent, CallsThatAreWrongAreRefused) {
  const onnx::ModelProto right = written(graphOf({{"gru"}}));
  const auto errorOf = [&](const std::function<void(onnx::ModelProto&, onnx::NodeProto&)>& spoil) {
    onnx::ModelProto wrong = right;
    spoil(wrong, *wrong.mutable_graph()->mutable_node(0));
    const auto graph = importOnnx(wrong.SerializeAsString(), {});
    return graph ? std::string("no error") : graph.error().render();
  };
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.mutable_input()->RemoveLast(); }), HasSubstr("lacks input 8"));
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.add_input(call.input(0)); }), HasSubstr("scales"));
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.set_input(1, call.input(0)); }), HasSubstr("the weight"));
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.set_input(5, call.input(3)); }), HasSubstr("scales"));
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.set_input(4, call.input(3)); }), HasSubstr("initial_h"));
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.mutable_attribute(0)->set_i(7); }), HasSubstr("7"));
  EXPECT_THAT(errorOf([](auto&, auto& call) { call.set_op_type("DynamicQuantizeLSTM_1"); }), HasSubstr("qcompile.DynamicQuantizeLSTM_1"));
}

}  // namespace
}  // namespace qc
