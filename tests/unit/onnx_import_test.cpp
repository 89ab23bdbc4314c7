// ONNX import and export: what becomes of names, shapes, constants, quantization and branches, and what damaged or foreign models are told.
#include "frontend/onnx/import.h"
#include "ir/decided_sizes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "frontend/onnx/export.h"
#include "ir/interp.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::integer;
using testing::Ints;
using testing::ints;
using testing::Model;
using testing::real;
using testing::text;

constexpr int kF16 = onnx::TensorProto::FLOAT16, kU8 = onnx::TensorProto::UINT8, kS8 = onnx::TensorProto::INT8,
              kS32 = onnx::TensorProto::INT32, kS64 = onnx::TensorProto::INT64;

Graph imported(const Model& model, const ImportOptions& options = {}) {
  auto graph = importOnnx(model.bytes(), {}, options);
  EXPECT_TRUE(graph) << graph.error().render();
  return graph ? *std::move(graph) : Graph();
}

std::string errorOf(const Model& model, const ImportOptions& options = {}, const fs::path& folder = {}) {
  const auto graph = importOnnx(model.bytes(), folder, options);
  return graph ? "imported:\n" + graph->str() : graph.error().render();
}

std::vector<std::string> opsOf(const Graph& graph) {
  std::vector<std::string> ops;
  for (const Node* n : graph.nodes())
    if (!n->is("const")) ops.emplace_back(n->op());
  return ops;
}

Tensor ramp(const Value* input) {
  Tensor t(input->type().dtype, input->type().sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(t.dtype(), t.mutableData(), i, static_cast<double>(i % 17) * 0.25 - 1.5);
  return t;
}

std::vector<Tensor> run(const Graph& graph) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(ramp(v));
  auto outputs = interpret(graph, inputs);
  EXPECT_TRUE(outputs) << outputs.error().render();
  return outputs ? *std::move(outputs) : std::vector<Tensor>();
}

TEST(OnnxImport, KeepsTheUsersNames) {
  Model m;
  m.input("data", {1, 3, 4, 4})
      .floats("w", {2, 3, 1, 1})
      .node("Conv", {"data", "w"}, {"conv_out"}, {}, "/stem/Conv")
      .node("Relu", {"conv_out"}, {"prob"})
      .output("prob");
  const Graph g = imported(m);
  ASSERT_NE(g.findValue("conv_out"), nullptr);
  EXPECT_EQ(g.findValue("conv_out")->producer()->location(), "/stem/Conv");
  EXPECT_EQ(g.findValue("prob")->producer()->location(), "Relu:prob");  // no name in the file
  EXPECT_THAT(g.outputNames(), ElementsAre("prob"));
  EXPECT_NE(g.constants().find("w"), nullptr);
}

TEST(OnnxImport, InitializersMayBeListedAsInputs) {
  Model m(7);
  m.input("x", {2, 3}).input("w", {3, 2}).floats("w", {3, 2}).node("MatMul", {"x", "w"}, {"y"}).output("y");
  EXPECT_EQ(imported(m).inputs().size(), 1u);
}

TEST(OnnxImport, BindsFreeDims) {
  Model m;
  m.input("x", {-1, 3, -2, -3}).node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_THAT(errorOf(m), AllOf(HasSubstr("'x'"), HasSubstr("N1,3,N2,N3"), HasSubstr("x=1x3xNxN")));
  EXPECT_THAT(imported(m, {.shapes = {{"x", {2, 3, 5, 6}}}}).outputs()[0]->type().sizes(), ElementsAre(2, 3, 5, 6));
  EXPECT_THAT(errorOf(m, {.shapes = {{"x", {2, 4, 5, 6}}}}), HasSubstr("does not fit"));
  EXPECT_THAT(errorOf(m, {.shapes = {{"x", {2, 3, -1, 6}}}}), HasSubstr("below 0"));
  EXPECT_THAT(errorOf(m, {.shapes = {{"z", {1}}}}), HasSubstr("neither an input"));
  Model batch;
  batch.input("x", {-1, 3}).node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_THAT(imported(batch).inputs()[0]->type().sizes(), ElementsAre(1, 3));
}

TEST(OnnxImport, BindsInputsToValues) {
  Model m;
  m.input("x", {2, 6}).input("to", {2}, kS64).node("Reshape", {"x", "to"}, {"y"}).output("y");
  EXPECT_TRUE(firstDeciding(imported(m)));  // its data decides the sizes
  const std::vector<int64_t> to = {3, 4};
  const Graph g = imported(m, {.values = {{"to", Tensor::ofInts({2}, to)}}});
  EXPECT_EQ(g.inputs().size(), 1u);
  EXPECT_THAT(g.outputs()[0]->type().sizes(), ElementsAre(3, 4));
  EXPECT_THAT(errorOf(m, {.values = {{"to", Tensor::ofFloats({1}, std::vector{1.0f})}}}), HasSubstr("another type"));
  Model scalar;
  scalar.input("x", {2}).input("by", {1}, kS64).node("Cast", {"by"}, {"f"}, {integer("to", 1)}).node("Mul", {"x", "f"}, {"y"}).output("y");
  const auto number = [](double v) { return Tensor::of(DType::f64, {}, std::span<const double>(&v, 1)); };
  EXPECT_THAT(run(imported(scalar, {.values = {{"by", number(4)}}})).at(0).toFloats(), ElementsAre(-6, -5));
  EXPECT_THAT(errorOf(scalar, {.values = {{"by", number(0.5)}}}), HasSubstr("another type"));
}

// An explicit 0 is a size, not a free dim.
TEST(OnnxImport, KeepsEmptyTensorsEmpty) {
  Model m;
  m.input("x", {0, 3})
      .floats("w", {3, 2})
      .node("MatMul", {"x", "w"}, {"m"})
      .floats("one", {1, 2}, {1, 2})
      .node("Concat", {"m", "one"}, {"y"}, {integer("axis", 0)})
      .output("y");
  EXPECT_THAT(run(imported(m)).at(0).toFloats(), ElementsAre(1, 2));
  EXPECT_THAT(errorOf(m, {.shapes = {{"x", {4, 3}}}}), HasSubstr("does not fit"));
}

TEST(OnnxImport, FoldsShapeArithmetic) {
  Model m;
  m.input("x", {2, 3, 4})
      .node("Shape", {"x"}, {"s"})
      .int64s("zero", {}, {0})
      .node("Gather", {"s", "zero"}, {"n"})
      .int64s("ax", {0})
      .node("Unsqueeze", {"n", "ax"}, {"n1"})
      .int64s("rest", {-1})
      .node("Concat", {"n1", "rest"}, {"to"}, {integer("axis", 0)})
      .node("Reshape", {"x", "to"}, {"y"})
      .output("y");
  const Graph g = imported(m);
  EXPECT_THAT(opsOf(g), ElementsAre("reshape"));
  EXPECT_THAT(g.outputs()[0]->type().sizes(), ElementsAre(2, 12));
}

TEST(OnnxImport, TakesTheKnownBranch) {
  for (const int32_t on : {0, 1}) {
    Model m;
    auto branch = [](const char* name, const char* op) {
      onnx::AttributeProto a = testing::attribute(name, onnx::AttributeProto::GRAPH);
      auto& n = *a.mutable_g()->add_node();
      n.set_op_type(op);
      n.add_input("x");
      n.add_output("t");
      a.mutable_g()->add_output()->set_name("t");
      return a;
    };
    m.input("x", {2})
        .small("on", {}, onnx::TensorProto::BOOL, {on})
        .node("If", {"on"}, {"y"}, {branch("then_branch", "Relu"), branch("else_branch", "Tanh")})
        .output("y");
    EXPECT_THAT(opsOf(imported(m)), ElementsAre(on ? "relu" : "tanh"));
  }
}

TEST(OnnxImport, ListsEveryUnsupportedOp) {
  Model m;
  m.input("x", {2})
      .node("Frobnicate", {"x"}, {"a"}, {}, "first")
      .node("Frobnicate", {"a"}, {"b"})
      .node("Blur", {"b"}, {"y"}, {}, "", "my.domain")
      .output("y");
  EXPECT_THAT(errorOf(m),
              AllOf(HasSubstr("Frobnicate (2 times: 'first', 'Frobnicate:b')"), HasSubstr("my.domain.Blur (1 time"), HasSubstr("help:")));
  Model noise;
  noise.input("x", {2}).node("RandomNormalLike", {"x"}, {"y"}).output("y");
  EXPECT_THAT(errorOf(noise), HasSubstr("feed random numbers as an input"));
}

TEST(OnnxImport, ComposesOps) {
  Model rms(23);
  rms.input("x", {1, 2}).floats("s", {2}, {2, 1}).node("RMSNormalization", {"x", "s"}, {"y"}, {real("epsilon", 0)}).output("y");
  const auto y = run(imported(rms)).at(0).toFloats();  // x = -1.5, -1.25
  EXPECT_NEAR(y[0], -2 * 1.5 / std::sqrt((2.25 + 1.5625) / 2), 1e-6);
  Model diagonal;
  diagonal.input("x", {3, 3}).node("Einsum", {"x"}, {"y"}, {text("equation", "i i -> i")}).output("y");
  EXPECT_THAT(run(imported(diagonal)).at(0).toFloats(), ElementsAre(-1.5f, -0.5f, 0.5f));
  Model three;
  three.input("x", {2, 2})
      .floats("a", {2, 2}, {1, 0, 0, 1})
      .floats("b", {2}, {1, 10})
      .node("Einsum", {"x", "a", "b"}, {"y"}, {text("equation", "ij,jk,k->i")})
      .output("y");
  EXPECT_THAT(run(imported(three)).at(0).toFloats(), ElementsAre(-14, -8.5f));
  for (const char* equation : {"ij", "ij,jk->ii", "ij,jk->iz", "i?,jk", "ijk,jk", "", "...,->", ".."}) {
    Model bad;
    bad.input("x", {2, 2}).input("z", {2, 3}).node("Einsum", {"x", "z"}, {"y"}, {text("equation", equation)}, "e").output("y");
    EXPECT_THAT(errorOf(bad), HasSubstr("'e'")) << equation;
  }
}

TEST(OnnxImport, RefusesBrokenGraphs) {
  Model cycle;
  cycle.input("x", {2}).node("Add", {"x", "b"}, {"a"}).node("Relu", {"a"}, {"b"}, {}, "second").output("b");
  EXPECT_THAT(errorOf(cycle), AllOf(HasSubstr("circle"), HasSubstr("'second' -> 'Add:a'")));
  Model twice;
  twice.input("x", {2}).node("Relu", {"x"}, {"y"}).node("Tanh", {"x"}, {"y"}).output("y");
  EXPECT_THAT(errorOf(twice), HasSubstr("same name"));
  Model missing;
  missing.input("x", {2}).node("Relu", {"x"}, {"y"}).output("z");
  EXPECT_THAT(errorOf(missing), HasSubstr("'z'"));
  Model kind;
  kind.input("x", {2}).node("Softmax", {"x"}, {"y"}, {text("axis", "last")}, "head").output("y");
  EXPECT_THAT(errorOf(kind), AllOf(HasSubstr("'head'"), HasSubstr("axis"), HasSubstr("STRING")));
  Model arity;
  arity.input("x", {2}).node("Conv", {"x"}, {"y"}).output("y");
  EXPECT_THAT(errorOf(arity), HasSubstr("lacks input 1"));
  Model huge;
  huge.input("x", {2}).floats("w", {2}).node("Add", {"x", "w"}, {"y"}).output("y");
  huge.graph().mutable_initializer(0)->set_dims(0, int64_t{1} << 40);
  EXPECT_THAT(errorOf(huge), HasSubstr("'w'"));
  Model old(6);
  old.input("x", {2}).node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_THAT(errorOf(old), HasSubstr("opset 6"));
  Model future(99);
  future.input("x", {2}).node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_THAT(errorOf(future), AllOf(HasSubstr("opset 99"), HasSubstr("onnx.version_converter")));
  EXPECT_FALSE(importOnnx("version https://git-lfs.github.com/spec/v1", {}));
  EXPECT_FALSE(importOnnx("", {}));
}

// Weights that are standardized: statistics of a constant are known.
TEST(OnnxImport, FoldsNormsOfConstantsInTrainingForm) {
  Model m(17);
  m.input("x", {1, 2}).floats("w", {1, 2, 4}, {1, 2, 3, 4, -2, 0, 0, 2}).floats("one", {2}, {1, 2}).floats("zero", {2}, {0, 1});
  m.node("BatchNormalization", {"w", "one", "zero", "zero", "one"}, {"n", "mean", "var"},
         {integer("training_mode", 1), real("epsilon", 0)});
  m.int64s("shape", {2, 4}).node("Reshape", {"n", "shape"}, {"r"}).node("MatMul", {"x", "r"}, {"y"}).output("y");
  const Graph g = imported(m);
  EXPECT_THAT(opsOf(g), ElementsAre("matmul"));
  const auto y =
      run(g).at(0).toFloats();  // x = -1.5, -1.25; (w - mean) / deviation: -1.3416, -0.4472, ..; -1.4142, 0, 0, 1.4142 times 2, plus 1
  EXPECT_NEAR(y[0], -1.5 * -1.341641 + -1.25 * (2 * -1.414214 + 1), 1e-5);
  EXPECT_NEAR(y[1], -1.5 * -0.447214 + -1.25, 1e-5);
}

// Scale and bias broadcast to all of X: with dims of 1 in front they are those of the op, else they come behind it.
TEST(OnnxImport, LayerNormalizationBroadcastsItsParameters) {
  const auto norm = [](const Ints& scale, const Ints& bias, int64_t axis = -1) {
    Model m(17);
    m.input("x", {2, 3, 4}).floats("s", scale).floats("b", bias);
    return m.node("LayerNormalization", {"x", "s", "b"}, {"y"}, {integer("axis", axis)}).output("y");
  };
  const Tensor plain = run(imported(norm({4}, {4}))).front();
  for (const auto& [scale, bias] : std::vector<std::pair<Ints, Ints>>{{{4}, {1, 4}}, {{1, 4}, {1, 1, 4}}, {{1, 1, 4}, {4}}}) {
    const Graph g = imported(norm(scale, bias));
    EXPECT_THAT(opsOf(g), ElementsAre("layer_norm"));
    EXPECT_TRUE(run(g).front().sameBytes(plain));
  }
  EXPECT_THAT(opsOf(imported(norm({1, 3, 4}, {3, 1}, -2))), ElementsAre("layer_norm"));
  EXPECT_THAT(opsOf(imported(norm({3, 4}, {4}))), ElementsAre("layer_norm", "mul", "add"));
  EXPECT_THAT(opsOf(imported(norm({1, 4}, {2, 1, 4}))), ElementsAre("layer_norm", "add"));
  // Every row has the same parameters, so the bits are those of one.
  const auto repeated = [&](bool everyRow) {
    Model m(17);
    m.input("x", {2, 3, 4}).floats("row", {4}).floats("b", {4}).int64s("to", Ints{3, 4}).node("Expand", {"row", "to"}, {"rows"});
    return run(imported(m.node("LayerNormalization", {"x", everyRow ? "rows" : "row", "b"}, {"y"}).output("y"))).front();
  };
  EXPECT_TRUE(repeated(true).sameBytes(repeated(false)));
  EXPECT_THAT(errorOf(norm({1, 1, 1, 4}, {4})), HasSubstr("does not broadcast"));
  EXPECT_THAT(errorOf(norm({2, 4}, {4})), HasSubstr("does not broadcast"));
}

// The largest of nothing is asked for only where there is a result.
TEST(OnnxImport, EmptyAxesOfSelections) {
  const auto sizesOf = [](const char* op, const Ints& sizes, int opset) {
    Model m(opset);
    m.input("x", sizes).node(op, {"x"}, {"y"}, {integer("axis", 1)}).output("y", std::string_view(op) == "ArgMax" ? kS64 : 1);
    return run(imported(m)).front().sizes();
  };
  for (const int opset : {11, 13})
    for (const Ints& sizes : {Ints{0, 0}, Ints{4, 0}, Ints{2, 0, 0}, Ints{0, 0, 3}, Ints{0, 2, 0}})
      for (const char* op : {"Hardmax", "Softmax", "LogSoftmax"}) EXPECT_EQ(sizesOf(op, sizes, opset), sizes) << op;
  EXPECT_EQ(sizesOf("ArgMax", {0, 0}, 13), (Ints{0, 1}));
  EXPECT_EQ(sizesOf("ArgMax", {2, 0, 0}, 13), (Ints{2, 1, 0}));
  Model m;
  m.input("x", {4, 0}).node("ArgMax", {"x"}, {"y"}, {integer("axis", 1)}).output("y", kS64);
  EXPECT_THAT(errorOf(m), HasSubstr("is empty"));
}

// With ceil_mode a window may be longer than what it slides over, if it begins inside.
TEST(OnnxImport, PoolsOfAWindowThatEndsOutside) {
  for (const char* op : {"MaxPool", "AveragePool", "LpPool"}) {
    const auto pool = [&](const Ints& strides) {
      Model m(19);
      m.input("x", {1, 2, 1, 1}).node(op, {"x"}, {"y"}, {ints("kernel_shape", {2, 2}), ints("strides", strides), integer("ceil_mode", 1)});
      return m.output("y");
    };
    const Graph g = imported(pool({2, 2}));
    const Tensor y = run(g).front();
    EXPECT_EQ(y.sizes(), (Ints{1, 2, 1, 1})) << op;
    for (int64_t i = 0; i < 2; ++i) {
      const double x = ramp(g.inputs()[0]).at(i);
      EXPECT_NEAR(y.at(i), std::string_view(op) == "LpPool" ? std::fabs(x) : x, 1e-6) << op;
    }
    EXPECT_THAT(errorOf(pool({2, 1})), HasSubstr("does not fit into spatial dim 1 of 1")) << op;
  }
}

// One scale and bias per group before opset 21, one per channel since.
TEST(OnnxImport, GroupNormalizationBeforeOpset21ScalesGroups) {
  std::vector<float> results[3];
  for (const int form : {0, 1, 2}) {  // known per group, computed per group, known per channel
    Model m(form == 2 ? 21 : 18);
    m.input("x", {1, 4, 2});
    if (form == 0) m.floats("scale", {2}, {-1.5f, -1.25f}).floats("bias", {2}, {1, -1});
    if (form == 1) m.input("scale", {2}).floats("bias", {2}, {1, -1});  // the inputs are -1.5, -1.25, ..
    if (form == 2) m.floats("scale", {4}, {-1.5f, -1.5f, -1.25f, -1.25f}).floats("bias", {4}, {1, 1, -1, -1});
    m.node("GroupNormalization", {"x", "scale", "bias"}, {"y"}, {integer("num_groups", 2)}).output("y");
    results[form] = run(imported(m)).at(0).toFloats();
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
  Model wrong(18);
  wrong.input("x", {1, 4, 2})
      .floats("s", {3}, {1, 2, 3})
      .node("GroupNormalization", {"x", "s", "s"}, {"y"}, {integer("num_groups", 2)})
      .output("y");
  EXPECT_THAT(errorOf(wrong), HasSubstr("needs scale of shape [4]"));
}

TEST(OnnxImport, RefusesTraining) {
  Model m;
  m.input("x", {2})
      .floats("ratio", {}, {0.5f})
      .small("training", {}, onnx::TensorProto::BOOL, {1})
      .node("Dropout", {"x", "ratio", "training"}, {"y"})
      .output("y");
  EXPECT_THAT(errorOf(m), HasSubstr("eval mode"));
  Model mask;
  mask.input("x", {2}).node("Dropout", {"x"}, {"y", "m"}).output("y").output("m", onnx::TensorProto::BOOL);
  const auto outputs = run(imported(mask));
  ASSERT_EQ(outputs.size(), 2u);
  EXPECT_EQ(outputs[1].at(0), 1);
}

TEST(OnnxImport, OpsetsDiffer) {
  for (const int opset : {12, 13}) {
    Model m(opset);
    m.input("x", {2, 3, 4}).node("Softmax", {"x"}, {"y"}, {integer("axis", 1)}).output("y");
    const auto y = run(imported(m)).at(0).toFloats();
    double sum = 0;
    for (size_t i = 0; i < 12; ++i) sum += y[i];
    EXPECT_NEAR(sum, opset == 12 ? 1 : 4, 1e-5);  // one row of 12, or four columns of 3
  }
}

TEST(OnnxImport, ReadsTypedAndRawData) {
  Model m;
  m.input("x", {3}).small("h", {3}, kF16, {0x3c00, 0xc000, 0x3800}).node("Mul", {"x", "h"}, {"y"}).output("y");
  EXPECT_THAT(run(imported(m)).at(0).toFloats(), ElementsAre(-1.5f, 2.5f, -0.5f));
  Model raw;
  raw.input("x", {3}).floats("w", {3}).node("Mul", {"x", "w"}, {"y"}).output("y");
  auto& w = *raw.graph().mutable_initializer(0);
  w.clear_float_data();
  const float values[] = {1, -2, 0.5f};
  w.set_raw_data(values, sizeof values);
  EXPECT_THAT(run(imported(raw)).at(0).toFloats(), ElementsAre(-1.5f, 2.5f, -0.5f));
  w.set_raw_data(values, sizeof values - 1);
  EXPECT_THAT(errorOf(raw), AllOf(HasSubstr("'w'"), HasSubstr("11 bytes")));
}

// ---- quantized models -----------------------------------------------------------------------------------------------------------

TEST(OnnxImport, QOperatorsBecomeFloatOpsBetweenQuantizations) {
  Model m;
  m.input("x", {1, 2, 4, 4}, kU8)
      .floats("s", {}, {0.1f})
      .small("z", {}, kU8, {7})
      .small("w", {3, 2, 1, 1}, kS8)
      .floats("sw", {3}, {0.1f, 0.2f, 0.3f})
      .small("zw", {3}, kS8, {0, 0, 0})
      .small("b", {3}, kS32, {10, 20, 30})
      .node("QLinearConv", {"x", "s", "z", "w", "sw", "zw", "s", "z", "b"}, {"y"})
      .output("y", kU8);
  const Graph g = imported(m);
  EXPECT_THAT(opsOf(g), ElementsAre("dequantize", "dequantize", "dequantize", "conv", "quantize"));
  const Node* conv = nullptr;
  for (const Node* n : g.nodes())
    if (n->is("conv")) conv = n;
  const QuantParams& bias = *conv->operand(2)->producer()->operand(0)->type().quant;
  EXPECT_EQ(bias.scales[2], 0.1f * 0.3f);  // xs * ws[c]
}

TEST(OnnxImport, QLinearConvPadsItself) {
  Model m;
  m.input("x", {1, 1, 4, 5}, kU8)
      .floats("s", {}, {0.1f})
      .small("z", {}, kU8, {7})
      .small("w", {1, 1, 2, 3}, kS8)
      .small("zw", {}, kS8, {0})
      .node("QLinearConv", {"x", "s", "z", "w", "s", "zw", "s", "z"}, {"y"}, {text("auto_pad", "SAME_UPPER")})
      .output("y", kU8);
  const Graph g = imported(m);
  EXPECT_THAT(g.outputs()[0]->type().sizes(), ElementsAre(1, 1, 4, 5));
  for (const Node* n : g.nodes())
    if (n->is("conv")) {
      EXPECT_THAT(n->attrs().integers("pads"), ElementsAre(0, 1, 1, 1));
    }
}

TEST(OnnxImport, MicrosoftPoolAndGemmOfIntegers) {
  Model pool;
  pool.input("x", {1, 2, 4, 4}, kU8)
      .floats("s", {}, {0.1f})
      .small("z", {}, kU8, {7})
      .node("QLinearAveragePool", {"x", "s", "z", "s", "z"}, {"y"}, {ints("kernel_shape", {2, 2}), ints("strides", {2, 2})}, "",
            "com.microsoft")
      .output("y", kU8);
  const Graph g = imported(pool);
  EXPECT_THAT(opsOf(g), ElementsAre("dequantize", "avg_pool", "quantize"));
  EXPECT_THAT(g.outputs()[0]->type().sizes(), ElementsAre(1, 2, 2, 2));
  const auto gemm = [](const std::vector<int64_t>& bias) {
    Model m;
    m.input("x", {1, 4}, kU8)
        .floats("s", {}, {0.1f})
        .small("z", {}, kU8, {7})
        .small("w", {4, 3}, kS8)
        .small("zw", {}, kS8, {0})
        .small("b", bias, kS32)
        .node("QGemm", {"x", "s", "z", "w", "s", "zw", "b", "s", "z"}, {"y"}, {}, "", "com.microsoft")
        .output("y", kU8);
    return m;
  };
  EXPECT_EQ(run(imported(gemm({1, 3}))).at(0).toFloats(), run(imported(gemm({3}))).at(0).toFloats());
  EXPECT_THAT(errorOf(gemm({3, 1})), HasSubstr("bias"));
}

TEST(OnnxImport, OneScaleInAVectorIsTheTensors) {
  Model m;
  m.input("x", {3})
      .floats("s", {1}, {0.5f})
      .small("b", {3}, kS32, {2, -4, 6})
      .small("z", {1}, kS32, {0})
      .node("DequantizeLinear", {"b", "s", "z"}, {"d"})
      .node("Add", {"x", "d"}, {"y"})
      .output("y");
  EXPECT_THAT(run(imported(m)).at(0).toFloats(), ElementsAre(-0.5f, -3.25f, 2.0f));
}

TEST(OnnxImport, RefusesBadQuantization) {
  const auto model = [](float scale, int zeroType) {
    Model m;
    m.input("x", {4})
        .floats("s", {}, {scale})
        .small("z", {}, zeroType, {7})
        .node("QuantizeLinear", {"x", "s", "z"}, {"q"})
        .node("DequantizeLinear", {"q", "s", "z"}, {"y"})
        .output("y");
    return m;
  };
  EXPECT_THAT(opsOf(imported(model(0.1f, kU8))), ElementsAre("quantize", "dequantize"));
  for (const float scale : {0.0f, -1.0f, INFINITY, NAN}) EXPECT_THAT(errorOf(model(scale, kU8)), HasSubstr("scale")) << scale;
}

TEST(OnnxImport, TakesBlocksOfIntegers) {
  const auto model = [](int64_t block) {
    Model m(21);
    m.floats("s", {2, 2}, {1, 2, 3, 4})
        .small("q", {4, 2}, kS8, {1, 1, 1, 1, 1, 1, 1, 1})
        .input("x", {4, 2})
        .node("DequantizeLinear", {"q", "s"}, {"d"}, {integer("block_size", block), integer("axis", 0)}, "dq")
        .node("Sub", {"d", "x"}, {"e"})
        .node("Add", {"e", "x"}, {"y"})
        .output("y");
    return m;
  };
  EXPECT_THAT(run(imported(model(2))).at(0).toFloats(), ElementsAre(1, 2, 1, 2, 3, 4, 3, 4));
  EXPECT_THAT(errorOf(model(3)), HasSubstr("imported"));  // two blocks, the second shorter
  EXPECT_THAT(errorOf(model(4)), AllOf(HasSubstr("'dq'"), HasSubstr("blocks of 4 along axis 0")));
  EXPECT_THAT(errorOf(model(-1)), HasSubstr("block_size -1"));
  // The scales move with the integers.
  Graph g("g");
  auto q = std::make_shared<QuantParams>(QuantParams{DType::s8, -128, 127, 0, 2, {1, 2, 3, 4}, {0, 0, 0, 0}});
  Tensor integers(DType::s8, {3, 2});
  for (int8_t& v : integers.mutableAs<int8_t>()) v = 1;
  Builder b(g);
  Value* t = b.make("transpose", {b.constant("w", integers, q)}, {{"perm", std::vector<int64_t>{1, 0}}});
  g.setOutputs({b.make("dequantize", {t})});
  g.setOutputNames({"y"});
  EXPECT_THAT(run(g).at(0).toFloats(), ElementsAre(1, 1, 3, 2, 2, 4));
}

// ---- external data ----------------------------------------------------------------------------------------------------------------

class ExternalData : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("qc_external_" + std::to_string(::getpid()));
    fs::create_directories(root_ / "model" / "sub");
    const float values[] = {1, 2, 3, 4};
    for (const char* name : {"outside.bin", "model/w.bin", "model/sub/w.bin"})
      std::ofstream(root_ / name, std::ios::binary).write(reinterpret_cast<const char*>(values), sizeof values);
    fs::create_symlink(root_ / "outside.bin", root_ / "model" / "link.bin");
    fs::create_symlink(root_, root_ / "model" / "up");
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string attempt(const std::string& location, const std::string& offset = "0", const std::string& length = "8") const {
    Model m;
    m.input("x", {2}).floats("w", {2}).node("Add", {"x", "w"}, {"y"}).output("y");
    auto& w = *m.graph().mutable_initializer(0);
    w.clear_float_data();
    w.set_data_location(onnx::TensorProto::EXTERNAL);
    for (const auto& [key, value] : {std::pair("location", location), {"offset", offset}, {"length", length}}) {
      auto& entry = *w.add_external_data();
      entry.set_key(key);
      entry.set_value(value);
    }
    return errorOf(m, {}, root_ / "model");
  }
  fs::path root_;
};

TEST_F(ExternalData, IsReadFromTheModelsFolderOnly) {
  EXPECT_THAT(attempt("w.bin"), HasSubstr("imported"));
  EXPECT_THAT(attempt("sub/w.bin", "8"), HasSubstr("imported"));
  for (const std::string& location : {std::string("../outside.bin"), std::string("sub/../../outside.bin"), (root_ / "outside.bin").string(),
                                      std::string(), std::string("w.bin\0x", 7)})
    EXPECT_THAT(attempt(location), HasSubstr("outside the model's folder")) << location;
  for (const char* location : {"link.bin", "up/outside.bin"})
    EXPECT_THAT(attempt(location), HasSubstr("outside the model's folder")) << location;
  EXPECT_THAT(attempt("none.bin"), HasSubstr("not there"));
  EXPECT_THAT(attempt("sub"), HasSubstr("is a folder"));
}

TEST_F(ExternalData, CountsAmongWhatBelongsToAModel) {
  Model m;
  m.input("x", {2}).floats("w", {2}).node("Add", {"x", "w"}, {"y"}).output("y");
  auto& w = *m.graph().mutable_initializer(0);
  w.clear_float_data();
  w.set_data_location(onnx::TensorProto::EXTERNAL);
  auto& entry = *w.add_external_data();
  entry.set_key("location");
  entry.set_value("w.bin");
  const fs::path file = root_ / "model" / "m.onnx";
  std::ofstream(file, std::ios::binary) << m.bytes();
  EXPECT_EQ(modelBytes(file.string()).value(), static_cast<int64_t>(m.bytes().size()) + 8);
  EXPECT_FALSE(modelBytes((root_ / "none.onnx").string()));
}

TEST_F(ExternalData, StaysWithinTheFile) {
  EXPECT_THAT(attempt("w.bin", "12"), HasSubstr("too short"));
  EXPECT_THAT(attempt("w.bin", "9223372036854775807"), HasSubstr("too short"));
  EXPECT_THAT(attempt("w.bin", "-4"), HasSubstr("bad number"));
  EXPECT_THAT(attempt("w.bin", "x"), HasSubstr("bad number"));
  EXPECT_THAT(attempt("w.bin", "0", "12"), HasSubstr("8 are needed"));
}

// ---- export ---------------------------------------------------------------------------------------------------------------------

// `tolerance`: where the exporter writes an op in terms of others.
void expectSameAfterRoundTrip(const Model& model, double tolerance = 0) {
  const Graph before = imported(model);
  const auto bytes = exportOnnx(before);
  ASSERT_TRUE(bytes) << bytes.error().render();
  auto after = importOnnx(*bytes, {});
  ASSERT_TRUE(after) << after.error().render();
  EXPECT_EQ(after->outputNames(), before.outputNames());
  ASSERT_EQ(after->inputs().size(), before.inputs().size());
  for (size_t i = 0; i < before.inputs().size(); ++i) EXPECT_EQ(after->inputs()[i]->name(), before.inputs()[i]->name());
  const auto a = run(before), b = run(*after);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].type().str(), b[i].type().str());
    EXPECT_TRUE(tolerance > 0 || a[i].sameBytes(b[i])) << before.outputNames()[i] << "\n" << after->str();
    for (int64_t k = 0; k < a[i].numElements(); ++k) EXPECT_NEAR(a[i].at(k), b[i].at(k), tolerance);
  }
}

TEST(OnnxExport, ComesBackTheSame) {
  Model cnn;
  cnn.input("x", {1, 3, 8, 8})
      .floats("w", {4, 3, 3, 3})
      .floats("b", {4})
      .node("Conv", {"x", "w", "b"}, {"c"}, {ints("pads", {1, 1, 0, 0}), ints("strides", {2, 2})})
      .floats("lo", {}, {0})
      .floats("hi", {}, {6})
      .node("Clip", {"c", "lo", "hi"}, {"r"})
      .node("MaxPool", {"r"}, {"p"}, {ints("kernel_shape", {2, 2})})
      .node("GlobalAveragePool", {"p"}, {"g"})
      .node("Flatten", {"g"}, {"f"})
      .floats("m", {4, 5})
      .node("Gemm", {"f", "m"}, {"h"})
      .node("Softmax", {"h"}, {"y"})
      .output("y")
      .output("c");
  expectSameAfterRoundTrip(cnn);
  Model moves;
  moves.input("x", {1, 2, 4, 4})
      .floats("sc", {4}, {1, 1, 2, 1.5f})
      .node("Resize", {"x", "", "sc"}, {"r"}, {text("mode", "linear")})
      .int64s("st", {3})
      .int64s("en", {-100})
      .int64s("ax", {3})
      .int64s("sp", {-1})
      .node("Slice", {"r", "st", "en", "ax", "sp"}, {"l"})
      .node("ReduceMean", {"l"}, {"m"}, {ints("axes", {2, 3}), integer("keepdims", 0)})
      .node("Gelu", {"m"}, {"y"})
      .output("y")
      .output("l");
  moves.proto().mutable_opset_import(0)->set_version(17);
  expectSameAfterRoundTrip(moves);
  Model three;
  three.input("x", {2, 3, 4})
      .floats("w", {4, 5})
      .floats("c", {5})
      .node("MatMul", {"x", "w"}, {"m"})
      .node("Add", {"m", "c"}, {"a"})
      .node("Mish", {"a"}, {"y"})
      .output("y");
  expectSameAfterRoundTrip(three, 1e-6);
}

TEST(OnnxExport, QuantizedModelsComeBackTheSame) {
  Model m;
  m.input("x", {1, 2, 4, 4})
      .floats("s", {}, {0.1f})
      .small("z", {}, kU8, {7})
      .node("QuantizeLinear", {"x", "s", "z"}, {"q"})
      .node("DequantizeLinear", {"q", "s", "z"}, {"d"})
      .small("w", {3, 2, 1, 1}, kS8)
      .floats("sw", {3}, {0.1f, 0.2f, 0.3f})
      .node("DequantizeLinear", {"w", "sw"}, {"wd"}, {integer("axis", 0)})
      .small("b", {3}, kS32)
      .floats("sb", {3}, {0.01f, 0.02f, 0.03f})
      .node("DequantizeLinear", {"b", "sb"}, {"bd"}, {integer("axis", 0)})
      .node("Conv", {"d", "wd", "bd"}, {"y"})
      .output("y");
  expectSameAfterRoundTrip(m);
  onnx::ModelProto proto;
  ASSERT_TRUE(proto.ParseFromString(exportOnnx(imported(m)).value()));
  int integers = 0;
  for (const auto& t : proto.graph().initializer())
    integers += (t.data_type() == kS8 || t.data_type() == kS32) && t.dims_size() > 0 && t.dims(0) == 3;
  EXPECT_GE(integers, 2);  // weights and bias are stored as integers
}

TEST(OnnxExport, OutputsKeepTheirNamesThroughAliases) {
  Model m;
  m.input("x", {2})
      .node("Relu", {"x"}, {"a"})
      .node("Identity", {"a"}, {"b"})
      .node("Identity", {"x"}, {"c"})
      .output("a")
      .output("b")
      .output("c");
  expectSameAfterRoundTrip(m);
}

}  // namespace
}  // namespace qc
