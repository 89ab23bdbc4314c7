// Graphs with free dims written as ONNX: read again they are the same graph, and the same bits at every shape; sizes are written with 0 and
// -1 where these say them, and else by one Shape and one chain of arithmetic for each.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "free_dims_testing.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/lower/bound_graph.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/qcompile.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::HasSubstr;
using testing::integer;
using testing::Ints;
using testing::ints;
using testing::sample;
using testing::Sizes;
using testing::text;

std::vector<Tensor> outputsAt(const Graph& graph, const Sizes& sizes) {
  const auto bound = boundGraph(graph, sizes);
  EXPECT_TRUE(bound) << bound.error().render();
  if (!bound) return {};
  std::vector<Tensor> inputs;
  for (const Value* v : bound->inputs()) inputs.push_back(sample(v->type()));
  auto outputs = interpret(*bound, inputs);
  EXPECT_TRUE(outputs) << outputs.error().render();
  return outputs.value_or(std::vector<Tensor>());
}

Graph read(const std::string& bytes) {
  auto graph = importOnnx(bytes, {}, {.shapes = {}, .values = {}, .freeDims = true});
  EXPECT_TRUE(graph) << graph.error().render();
  return graph ? std::move(*graph) : Graph();
}

onnx::ModelProto parsed(const std::string& bytes) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(bytes));
  return model;
}

// What each node is, in order, but for the names.
std::vector<std::string> nodesOf(const Graph& graph) {
  std::vector<std::string> all;
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->is("const")) continue;
    std::string line(n->op());
    for (const auto& [name, value] : n->attrs()) line += fmt::format(" {}={}", name, toString(value));
    for (int i = 0; i < n->numResults(); ++i) line += " " + n->result(i)->type().str();
    all.push_back(std::move(line));
  }
  return all;
}

enum class Back { sameNodes, sameBits };  // a quantized layer reads back as the ops of ONNX that make it up

// The file, which reads back as the same graph and computes the same bits.
onnx::ModelProto written(const Graph& graph, const std::vector<Sizes>& shapes, Back back = Back::sameNodes) {
  const auto bytes = exportOnnx(graph);
  EXPECT_TRUE(bytes) << bytes.error().render();
  if (!bytes) return {};
  const Graph again = read(*bytes);
  if (back == Back::sameNodes) {
    EXPECT_EQ(nodesOf(again), nodesOf(graph));
  }
  for (const Sizes& sizes : shapes) {
    const std::vector<Tensor> there = outputsAt(graph, sizes), here = outputsAt(again, sizes);
    EXPECT_EQ(there.size(), here.size());
    for (size_t i = 0; i < std::min(there.size(), here.size()); ++i) EXPECT_TRUE(there[i].sameBytes(here[i])) << graph.str() << again.str();
  }
  return parsed(*bytes);
}
onnx::ModelProto written(const testing::Model& m, const std::vector<Sizes>& shapes) { return written(read(m.bytes()), shapes); }

int count(const onnx::ModelProto& model, std::string_view op) {
  return static_cast<int>(
      std::count_if(model.graph().node().begin(), model.graph().node().end(), [&](const auto& n) { return n.op_type() == op; }));
}

std::string shapeText(const onnx::ValueInfoProto& info) {
  std::string all;
  for (const auto& d : info.type().tensor_type().shape().dim())
    all += (all.empty() ? "" : ",") + (d.has_dim_value() ? std::to_string(d.dim_value()) : d.dim_param());
  return all;
}

const std::vector<Sizes> kSequences = {{{"x", {1, 3, 8}}}, {{"x", {2, 5, 8}}}, {{"x", {3, 1, 8}}}, {{"x", {2, 9, 8}}}};

// x: f32[N1,N2,8], its shape as `s`, and the two free sizes as scalars `n` and `t`, as vectors `n1` and `t1`.
testing::Model sequence(int opset = 13) {
  testing::Model m(opset);
  m.input("x", {-1, -2, 8}).node("Shape", {"x"}, {"s"});
  m.int64s("zero", {0}).int64s("one", {1}).int64s("two", {2}).int64s("three", {3}).int64s("minus", {-1}).int64s("far", {INT64_MAX});
  m.int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1}).int64s("heads", {2, 4}).int64s("eight", {8});
  m.node("Gather", {"s", "i"}, {"n"}).node("Gather", {"s", "j"}, {"t"});
  m.node("Unsqueeze", {"n", "zero"}, {"n1"}).node("Unsqueeze", {"t", "zero"}, {"t1"});
  return m;
}

TEST(FreeExport, NamesOfDims) {
  testing::Model m;
  m.input("x", {-1, 2, -2, 4}).input("y", {-1, 3}).floats("w", {2, 2, 3, 3});
  m.graph().mutable_input(1)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->set_dim_param("batch size");
  m.node("Conv", {"x", "w"}, {"c"}, {ints("strides", {2, 2}), ints("pads", {1, 1, 1, 1})}).output("c");
  m.node("Relu", {"y"}, {"r"}).output("r");
  const onnx::ModelProto out = written(m, {{{"x", {2, 2, 5, 4}}, {"y", {1, 3}}}});
  EXPECT_EQ(shapeText(out.graph().input(0)), "N1,2,N2,4");
  EXPECT_EQ(shapeText(out.graph().input(1)), "batch size,3");
  EXPECT_EQ(shapeText(out.graph().output(0)), "N1,2,(N2+1)//2,2");
  EXPECT_EQ(shapeText(out.graph().output(1)), "batch size,3");
}

TEST(FreeExport, DimsWithoutANameGetOne) {
  testing::Model m;
  m.input("x", {-1, 2});
  m.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->clear_dim_param();
  m.node("Relu", {"x"}, {"y"}).output("y");
  EXPECT_EQ(shapeText(written(m, {{{"x", {4, 2}}}}).graph().output(0)), "x.0,2");
}

TEST(FreeExport, HeadsNeedNoShape) {
  testing::Model m = sequence();
  m.node("Concat", {"n1", "t1", "heads"}, {"to"}, {integer("axis", 0)})
      .node("Concat", {"n1", "t1", "eight"}, {"back"}, {integer("axis", 0)});
  m.node("Reshape", {"x", "to"}, {"h"}).node("Transpose", {"h"}, {"p"}, {ints("perm", {0, 2, 1, 3})});
  m.node("Relu", {"p"}, {"r"}).node("Transpose", {"r"}, {"q"}, {ints("perm", {0, 2, 1, 3})});
  m.node("Reshape", {"q", "back"}, {"y"}).output("y");
  const onnx::ModelProto out = written(m, kSequences);
  EXPECT_EQ(count(out, "Shape"), 0);
  EXPECT_EQ(count(out, "Reshape"), 2);
}

// A Reshape with -1 beside a dim that is copied fails where a batch is empty.
TEST(FreeExport, DimsOfOneNeedNoTarget) {
  testing::Model m = sequence();
  m.int64s("flat", {0, -1});
  m.node("Unsqueeze", {"x", "one"}, {"u"}).node("Neg", {"u"}, {"v"}).node("Squeeze", {"v", "one"}, {"w"});
  m.node("Relu", {"w"}, {"r"}).node("Reshape", {"r", "flat"}, {"f"}).node("Abs", {"f"}, {"y"}).output("y");
  const onnx::ModelProto out = written(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 5, 8}}}, {{"x", {0, 5, 8}}}});
  EXPECT_EQ(count(out, "Reshape"), 0);
  EXPECT_EQ(count(out, "Unsqueeze"), 1);
  EXPECT_EQ(count(out, "Squeeze"), 1);
  EXPECT_EQ(count(out, "Flatten"), 1);
}

TEST(FreeExport, OneShapeForAllThatNeedIt) {
  testing::Model m = sequence();
  m.node("Mul", {"n1", "t1"}, {"rows"}).node("Concat", {"rows", "eight"}, {"flat"}, {integer("axis", 0)});
  m.node("Concat", {"n1", "t1", "heads"}, {"to"}, {integer("axis", 0)});
  std::string x = "x";
  for (int i = 0; i < 4; ++i) {
    const std::string k = std::to_string(i);
    m.node("Reshape", {x, "flat"}, {"f" + k}).node("Relu", {"f" + k}, {"r" + k});
    m.node("Reshape", {"r" + k, "to"}, {"h" + k}).node("Neg", {"h" + k}, {"g" + k});
    x = "g" + k;
  }
  m.node("Identity", {x}, {"y"}).output("y");
  const onnx::ModelProto out = written(m, kSequences);
  EXPECT_EQ(count(out, "Shape"), 1);
  EXPECT_EQ(count(out, "Gather"), 2);
  EXPECT_EQ(count(out, "Concat"), 1);
  EXPECT_EQ(count(out, "Mul"), 0);  // -1 says N1*N2
}

TEST(FreeExport, MasksThatBroadcast) {
  testing::Model m = sequence();
  m.floats("row", {1, 1, 8}).floats("one number", {}, {0.5f});
  m.node("Expand", {"row", "s"}, {"e"}).node("Add", {"x", "e"}, {"a"});
  m.node("Concat", {"n1", "one", "t1", "t1"}, {"square"}, {integer("axis", 0)});
  m.node("Expand", {"one number", "square"}, {"mask"}).node("Trilu", {"mask"}, {"z"}, {integer("upper", 0)}).output("z");
  m.node("Concat", {"one", "two", "one"}, {"twice"}, {integer("axis", 0)}).node("Expand", {"a", "one"}, {"y"}).output("y");
  written(m, kSequences);
}

TEST(FreeExport, SlicesOfEveryKind) {
  testing::Model m = sequence();
  m.int64s("minus two", {-2}).int64s("beginning", {INT64_MIN}).int64s("both", {1, 0}).int64s("steps", {2, 3}).int64s("zeros", {0, 0});
  m.node("Div", {"t1", "two"}, {"half"})
      .node("Sub", {"t1", "one"}, {"last"})
      .node("Concat", {"half", "eight"}, {"ends"}, {integer("axis", 0)});
  const std::vector<std::vector<std::string>> kinds = {
      {"one", "far"},   {"zero", "minus"}, {"minus two", "far"}, {"zero", "two"},        {"one", "three"}, {"half", "far"},
      {"zero", "half"}, {"half", "t1"},    {"one", "minus"},     {"minus two", "minus"}, {"zero", "half"}, {"minus two", "far"},
  };
  for (size_t i = 0; i < kinds.size(); ++i)
    m.node("Slice", {"x", kinds[i][0], kinds[i][1], "one"}, {"y" + std::to_string(i)}).output("y" + std::to_string(i));
  m.node("Slice", {"x", "zero", "far", "one", "two"}, {"even"}).output("even");
  m.node("Slice", {"x", "one", "minus", "one", "three"}, {"third"}).output("third");
  m.node("Slice", {"x", "minus", "beginning", "one", "minus"}, {"reversed"}).output("reversed");
  m.node("Slice", {"x", "zeros", "ends", "both", "steps"}, {"two axes"}).output("two axes");
  m.node("Slice", {"x", "zero", "far", "one"}, {"all"}).output("all");
  written(m, {{{"x", {1, 3, 8}}}, {{"x", {11, 6, 8}}}, {{"x", {2, 2, 8}}}, {{"x", {1, 1, 8}}}});
}

TEST(FreeExport, TilesAndPieces) {
  testing::Model m = sequence(18);
  m.node("Concat", {"n1", "one", "two"}, {"times"}, {integer("axis", 0)}).node("Tile", {"x", "times"}, {"y"}).output("y");
  m.node("Split", {"x"}, {"a", "b", "c"}, {integer("num_outputs", 3), integer("axis", 1)}).output("a").output("b").output("c");
  m.node("Div", {"t1", "two"}, {"half"})
      .node("Sub", {"t1", "half"}, {"rest"})
      .node("Concat", {"half", "rest"}, {"pieces"}, {integer("axis", 0)});
  m.node("Split", {"x", "pieces"}, {"d", "e"}, {integer("axis", 1)}).output("d").output("e");
  written(m, {{{"x", {1, 6, 8}}}, {{"x", {3, 9, 8}}}});
}

TEST(FreeExport, PositionsAndConstants) {
  testing::Model m = sequence();
  m.floats("table", {16, 8}).node("Range", {"i", "t", "j"}, {"positions"}).node("Gather", {"table", "positions"}, {"p"});
  m.node("Add", {"x", "p"}, {"a"}).node("ConstantOfShape", {"s"}, {"zeros"}).node("Add", {"a", "zeros"}, {"y"}).output("y");
  EXPECT_EQ(count(written(m, kSequences), "Shape"), 1);
}

TEST(FreeExport, WindowsAndResizes) {
  testing::Model m;
  m.input("x", {-1, 2, -2, -3}).floats("w", {2, 2, 3, 3}).floats("by", {4}, {1, 1, 2, 2}).floats("v", {2, 2, 2, 2});
  m.int64s("pads", {0, 0, 1, 2, 0, 0, 0, 1});
  m.node("Conv", {"x", "w"}, {"c"}, {ints("pads", {1, 1, 1, 1}), ints("strides", {2, 2})});
  m.node("Resize", {"c", "", "by"}, {"u"}, {text("mode", "nearest")}).output("u");
  m.node("MaxPool", {"x"}, {"p"}, {ints("kernel_shape", {3, 3}), ints("strides", {2, 2})}).output("p");
  m.node("AveragePool", {"x"}, {"q"}, {ints("kernel_shape", {2, 2}), integer("ceil_mode", 1), ints("strides", {2, 2})}).output("q");
  m.node("ConvTranspose", {"x", "v"}, {"t"}, {ints("strides", {2, 2})}).output("t");
  m.node("Pad", {"x", "pads"}, {"d"}).output("d").node("GlobalAveragePool", {"x"}, {"g"}).output("g");
  written(m, {{{"x", {1, 2, 8, 6}}}, {{"x", {2, 2, 7, 9}}}, {{"x", {3, 2, 5, 5}}}});
}

TEST(FreeExport, ResizesInProportion) {
  for (const char* policy : {"not_larger", "not_smaller"}) {
    testing::Model m(18);
    m.input("x", {-1, 2, -2, -3}).int64s("to", {9, 12}).int64s("all", {1, 2, 9, 12}).node("Relu", {"x"}, {"r"});
    m.node("Resize", {"r", "", "", "to"}, {"y"}, {text("keep_aspect_ratio_policy", policy), text("mode", "linear"), ints("axes", {2, 3})});
    m.output("y");
    written(m, {{{"x", {1, 2, 8, 6}}}, {{"x", {2, 2, 7, 11}}}, {{"x", {3, 2, 40, 3}}}});
  }
}

TEST(FreeExport, ShapesThatAreData) {
  testing::Model m = sequence();
  m.node("Size", {"x"}, {"size"}).output("size", onnx::TensorProto::INT64);
  m.node("Cast", {"s"}, {"small"}, {integer("to", onnx::TensorProto::INT32)}).output("small", onnx::TensorProto::INT32);
  m.node("Cast", {"t"}, {"real"}, {integer("to", onnx::TensorProto::FLOAT)}).node("Div", {"x", "real"}, {"y"}).output("y");
  m.output("s", onnx::TensorProto::INT64).output("t", onnx::TensorProto::INT64);
  written(m, kSequences);
}

// Also where the function of the quantized form is given states that the layer has not: zeros of a free batch.
TEST(FreeExport, StatesOfRecurrentLayers) {
  testing::Model m;
  m.input("x", {-1, -2, 32}).floats("w", {1, 96, 32}).floats("r", {1, 96, 32});
  m.floats("lw", {1, 128, 32}).floats("lr", {1, 128, 32}).node("Sigmoid", {"x"}, {"s"});
  m.node("GRU", {"s", "w", "r"}, {"g", "gh"}, {integer("hidden_size", 32)}).output("g").output("gh");
  m.node("LSTM", {"s", "lw", "lr"}, {"l"}, {integer("hidden_size", 32)}).output("l");
  const std::vector<Sizes> shapes = {{{"x", {3, 1, 32}}}, {{"x", {5, 2, 32}}}};
  written(m, shapes);
  const auto int8 = quantize(Model(read(m.bytes()), "m"), dynamicQConfigMapping(Backend::x86));
  ASSERT_TRUE(int8) << int8.error().render();
  EXPECT_EQ(count(written(int8->model.graph(), shapes, Back::sameBits), "ConstantOfShape"), 1) << int8->model.text();
}

// Every form of expression, where its parts are negative as well.
TEST(FreeExport, ArithmeticOfSizes) {
  const Graph graph = parseGraph(R"(
graph @net(%x: f32[N,T], %y: f32["a b"]) -> ("v") {
  %0 = dims {values=[(N-T)//3,(T-N)//("a b"+1)+T,min(N,3),max(T-4,0),N*T*2-7,-T,N//T,"a b",(5-N*T)//("a b"+1)], shape=[9]} : s64[9]
  return %0
}
)")
                          .value();
  std::vector<Sizes> shapes;
  for (const auto& [n, t, a] : {std::tuple<int64_t, int64_t, int64_t>{1, 9, 4}, {9, 1, 1}, {7, 7, 7}, {2, 3, 5}, {11, 4, 2}})
    shapes.push_back({{"x", {n, t}}, {"y", {a}}});
  const onnx::ModelProto out = written(graph, shapes);
  EXPECT_EQ(count(out, "Mod"), 2);
  EXPECT_EQ(count(out, "Shape"), 2);
}

// What the others leave is written as -1, and what only gives a size a name as nothing.
TEST(FreeExport, ReshapesThatLeaveOneSizeOpen) {
  const Graph graph = parseGraph(R"(
const #yes : bool[] = [1]
graph @net(%x: f32[N,T,8]) {
  %yes = const #yes : bool[]
  %0 = reshape %x {shape=[3,?]} : f32[3,?]
  %1 = choose %yes, %0, %0 {axes=[1], sizes=[rest]} : f32[3,rest]
  %2 = relu %1 : f32[3,rest]
  return %2
}
)")
                          .value();
  const onnx::ModelProto out = written(graph, {{{"x", {1, 3, 8}}}, {{"x", {3, 5, 8}}}, {{"x", {2, 6, 8}}}}, Back::sameBits);
  EXPECT_EQ(count(out, "Reshape"), 1);
  EXPECT_EQ(count(out, "If"), 0);
}

TEST(FreeExport, LoopsWithTheirBodies) {
  const Graph graph = parseGraph(R"(
graph @net(%x: f32[N,T,8], %y: f32[(T+1)//2,8]) {
  %n = dims {values=[N], shape=[]} : s64[]
  %last, %all = loop %n, _, %y, %x {body={
    const #yes : bool[] = [1]
    graph @body(%i: s64[], %h: f32[H,8], %x: f32[N,T,8]) {
      %yes = const #yes : bool[]
      %row = gather %x, %i {axis=0} : f32[T,8]
      %sum = reduce_sum %row {axes=[0], keepdims=0} : f32[8]
      %next = add %h, %sum : f32[H,8]
      return %yes, %next, %row
    }
  }, carried=1, count=[N]} : f32[(T+1)//2,8], f32[N,T,8]
  %grown = loop %n, _, %last {body={
    const #yes : bool[] = [1]
    graph @body(%i: s64[], %h: f32[H,8]) {
      %yes = const #yes : bool[]
      %next = concat %h, %h {axis=0} : f32[2*H,8]
      return %yes, %next
    }
  }, carried=1, sizes=[G]} : f32[G,8]
  return %last, %all, %grown
}
)")
                          .value();
  std::vector<Sizes> shapes;
  for (const auto& [n, t] : {std::pair<int64_t, int64_t>{1, 3}, {2, 5}, {0, 4}, {3, 1}})
    shapes.push_back({{"x", {n, t, 8}}, {"y", {(t + 1) / 2, 8}}});
  EXPECT_EQ(count(written(graph, shapes, Back::sameBits), "Loop"), 2);
}

// The dim of an intermediate value where no input has it alone.
TEST(FreeExport, SymbolsThatAreNoDimOfAnything) {
  const Graph graph = parseGraph(R"(
graph @net(%x: f32[2*T,3]) {
  %0 = dims {values=[T], shape=[1]} : s64[1]
  return %0
}
)")
                          .value();
  const auto bytes = exportOnnx(graph);
  ASSERT_FALSE(bytes);
  EXPECT_THAT(bytes.error().render(), HasSubstr("'T' is the size of no input, and of nothing that is computed before"));
}

// What a quantized file consists of, with parameters that are known and with those that are computed.
TEST(FreeExport, QuantizedModels) {
  testing::Model m = sequence();
  m.floats("w", {8, 16}).floats("b", {16}).node("MatMul", {"x", "w"}, {"mm"}).node("Add", {"mm", "b"}, {"a"}).node("Relu", {"a"}, {"r"});
  m.node("Concat", {"n1", "t1", "heads", "two"}, {"to"}, {integer("axis", 0)});
  m.node("Reshape", {"r", "to"}, {"h"}).node("Softmax", {"h"}, {"y"}, {integer("axis", -1)}).output("y");
  const Model model(read(m.bytes()), "m");
  for (const QConfigMapping& rules : {dynamicQConfigMapping(Backend::x86), weightOnlyQConfigMapping(Backend::x86)}) {
    const auto int8 = quantize(model, rules);
    ASSERT_TRUE(int8) << int8.error().render();
    EXPECT_EQ(shapeText(written(int8->model.graph(), kSequences, Back::sameBits).graph().output(0)), "N1,N2,2,4,2");
  }
  std::vector<Sample> samples;
  for (const Sizes& sizes : kSequences) samples.push_back({{"x", sample(TensorType(DType::f32, toShape(sizes.at("x"))))}});
  const QConfigMapping rules = defaultQConfigMapping(Backend::x86);
  const auto ranges = calibrate(model, rules, memoryDataset(samples, model).value());
  ASSERT_TRUE(ranges) << ranges.error().render();
  const auto int8 = quantize(model, rules, *ranges);
  ASSERT_TRUE(int8) << int8.error().render();
  const onnx::ModelProto out = written(int8->model.graph(), kSequences, Back::sameBits);
  EXPECT_GE(count(out, "QuantizeLinear"), 1);
  EXPECT_EQ(shapeText(out.graph().input(0)), "N1,N2,8");
}

}  // namespace
}  // namespace qc
