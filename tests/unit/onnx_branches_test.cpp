// An If on the sizes of inputs, whose dims stay free: both branches are kept, or one is read for all sizes but some, which the graph says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "free_dims_testing.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/assumptions.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/lower/bound_graph.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Ints;
using testing::ints;
using testing::sample;
using testing::Sizes;
using testing::subgraph;

Result<Graph> freeGraph(const std::string& bytes) { return importOnnx(bytes, {}, {.shapes = {}, .values = {}, .freeDims = true}); }

Result<std::vector<Tensor>> outputsAt(const Graph& free, const Sizes& sizes) {
  QC_ASSIGN(const Graph graph, boundGraph(free, sizes));
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(sample(v->type()));
  return interpret(graph, inputs);
}

// At these sizes the free graph, and what its file reads back as, compute what the model read at them does.
void expectSame(const testing::Model& m, const std::vector<Sizes>& all) {
  const auto free = freeGraph(m.bytes());
  ASSERT_TRUE(free) << free.error().render();
  const auto file = exportOnnx(*free);
  ASSERT_TRUE(file) << file.error().render();
  const auto again = freeGraph(*file);
  ASSERT_TRUE(again) << again.error().render();
  for (const Sizes& sizes : all) {
    const auto fixed = importOnnx(m.bytes(), {}, {.shapes = sizes, .values = {}});
    ASSERT_TRUE(fixed) << fixed.error().render();
    const std::vector<Tensor> want = outputsAt(*fixed, sizes).value();
    for (const Graph* graph : {&*free, &*again}) {
      const auto got = outputsAt(*graph, sizes);
      ASSERT_TRUE(got) << got.error().render();
      for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE((*got)[i].sameBytes(want[i])) << graph->str();
    }
  }
}

// x: f32[N1,N2,8], N2 as `t`, and `four`.
testing::Model sequence() {
  testing::Model m;
  m.input("x", {-1, -2, 8}).int64s("one", {1}).int64s("four", {}, {4}).int64s("place", {}, {1});
  m.node("Shape", {"x"}, {"s"}).node("Gather", {"s", "place"}, {"t"});
  return m;
}

onnx::GraphProto branch(const std::string& op, const std::vector<std::string>& inputs,
                        const std::vector<onnx::AttributeProto>& attributes = {}) {
  testing::Model m;
  m.node(op, inputs, {"result_of_" + op}, attributes).output("result_of_" + op);
  return m.graph();
}

const std::vector<Sizes> kLengths = {{{"x", {1, 3, 8}}}, {{"x", {2, 9, 8}}}, {{"x", {3, 1, 8}}}, {{"x", {1, 4, 8}}}};

// Neither branch is possible at the sizes of the other.
TEST(Branches, OfUnlikeSizes) {
  testing::Model m = sequence();
  m.node("Less", {"t", "four"}, {"is_short"}).node("Sub", {"four", "t"}, {"lack"}).int64s("flat", {-1});
  m.node("Reshape", {"lack", "flat"}, {"lacks"}).int64s("none", {0, 0, 0, 0}).int64s("end", {0});
  m.node("Concat", {"none", "lacks", "end"}, {"pads"}, {testing::integer("axis", 0)}).int64s("front", {4}).int64s("all", {4, 8});
  m.node("Neg", {"lacks"}, {"rest"}).node("Concat", {"front", "rest"}, {"pieces"}, {testing::integer("axis", 0)});
  testing::Model cut;
  cut.node("Split", {"x", "pieces"}, {"head", "tail"}, {testing::integer("axis", 1)}).output("head");
  m.node("If", {"is_short"}, {"y"}, {subgraph("then_branch", branch("Pad", {"x", "pads"})), subgraph("else_branch", cut.graph())});
  m.node("Relu", {"y"}, {"z"}).output("z");
  expectSame(m, kLengths);
  const Graph graph = freeGraph(m.bytes()).value();
  EXPECT_THAT(graph.outputs()[0]->type().str(), HasSubstr("f32[N1,n_y,8]"));
  EXPECT_TRUE(assumptionsOf(graph.info())->empty());
}

TEST(Branches, InsideBranches) {
  testing::Model m = sequence(), inner;
  m.node("Less", {"t", "four"}, {"is_short"}).int64s("two", {}, {2}).int64s("zero", {}, {0}).node("Mod", {"t", "two"}, {"rest"});
  m.node("Equal", {"rest", "zero"}, {"is_even"});
  inner.node("Exp", {"x"}, {"e"});
  inner.node("If", {"is_even"}, {"i"}, {subgraph("then_branch", branch("Neg", {"e"})), subgraph("else_branch", branch("Tanh", {"e"}))});
  inner.output("i");
  m.node("If", {"is_short"}, {"y"}, {subgraph("then_branch", inner.graph()), subgraph("else_branch", branch("Relu", {"x"}))}).output("y");
  expectSame(m, kLengths);
}

// A squeeze of dims that are 1, as PyTorch's older exporter has it: read for all other sizes, and at 1 by itself.
testing::Model squeezed() {
  testing::Model m = sequence();
  m.node("Gather", {"s", "one"}, {"size"}).node("Equal", {"size", "one"}, {"is_one"});
  m.node("If", {"is_one"}, {"y"},
         {subgraph("then_branch", branch("Squeeze", {"x", "one"})), subgraph("else_branch", branch("Identity", {"x"}))}, "/squeeze/If");
  m.node("Relu", {"y"}, {"z"}).output("z");
  return m;
}

TEST(Branches, OfUnlikeRanksAreAssumed) {
  const testing::Model m = squeezed();
  expectSame(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 9, 8}}}});
  const Graph graph = freeGraph(m.bytes()).value();
  const auto refused = boundGraph(graph, {{"x", {2, 1, 8}}});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().render(), HasSubstr("N2 is 1, and what this model was read for is N2 != 1"));
  EXPECT_EQ(refused.error().node(), "/squeeze/If");
  EXPECT_THAT(refused.error().render(), HasSubstr("dim 1 of 'x' is 1"));
  // The file says so as well.
  const std::string file = exportOnnx(graph).value();
  EXPECT_FALSE(boundGraph(freeGraph(file).value(), {{"x", {2, 1, 8}}}));
  const auto bound = importOnnx(file, {}, {.shapes = {{"N2", {1}}}, .values = {}});
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().node(), "/squeeze/If");
  EXPECT_EQ(importOnnx(m.bytes(), {}, {.shapes = {{"x", {2, 1, 8}}}, .values = {}})->outputs()[0]->type().str(), "f32[2,8]");
}

// Where all that follows needs the size that is the exception, it is the one.
TEST(Branches, TheOtherWayWhereTheFirstLeadsNowhere) {
  testing::Model m = squeezed();
  m.floats("w", {8, 3}).node("Gemm", {"z", "w"}, {"out"});
  m.graph().mutable_output(0)->set_name("out");
  const Graph graph = freeGraph(m.bytes()).value();
  EXPECT_EQ(graph.inputs()[0]->type().str(), "f32[N1,1,8]");
  EXPECT_EQ(graph.outputs()[0]->type().str(), "f32[N1,3]");
}

TEST(Branches, ForTensorsWithoutElementsAreLeftOut) {
  testing::Model m = sequence();
  m.node("Size", {"x"}, {"count"}).int64s("zero", {}, {0}).node("Equal", {"count", "zero"}, {"is_empty"});
  m.node("If", {"is_empty"}, {"y"}, {subgraph("then_branch", branch("Frobnicate", {"x"})), subgraph("else_branch", branch("Relu", {"x"}))})
      .output("y");
  expectSame(m, kLengths);
  EXPECT_FALSE(boundGraph(freeGraph(m.bytes()).value(), {{"x", {0, 3, 8}}}));
}

TEST(Branches, SqueezeWithoutAxes) {
  testing::Model m;
  m.input("x", {-1, 1, -2, 8}).node("Squeeze", {"x"}, {"y"}, {}, "/Squeeze").output("y");
  expectSame(m, {{{"x", {2, 1, 3, 8}}}, {{"x", {5, 1, 2, 8}}}});
  const Graph graph = freeGraph(m.bytes()).value();
  EXPECT_EQ(graph.outputs()[0]->type().str(), "f32[N1,N2,8]");
  std::vector<std::string> assumed;
  const auto assumptions = assumptionsOf(graph.info());
  for (const Assumption& a : *assumptions) assumed.push_back(a.str());
  EXPECT_THAT(assumed, ElementsAre("N1 != 1", "N2 != 1"));
}

// A plain slope is that of the channels unless it fits the last dim.
TEST(Branches, SlopesOfChannels) {
  testing::Model m;
  m.input("x", {-1, 4, -2}).floats("slope", {4}).node("PRelu", {"x", "slope"}, {"y"}).output("y");
  expectSame(m, {{{"x", {2, 4, 3}}}, {{"x", {1, 4, 8}}}});
  EXPECT_FALSE(boundGraph(freeGraph(m.bytes()).value(), {{"x", {2, 4, 4}}}));
}

// ---- an If on data ------------------------------------------------------------------------------

constexpr auto kBool = onnx::TensorProto::BOOL;

// "on" is bool[1], a graph input; x: f32[N1,N2,8].
testing::Model switched() {
  testing::Model m = sequence();
  m.input("on", {1}, kBool);
  return m;
}

std::vector<Tensor> outputsWhere(const Graph& free, bool on, const std::vector<int64_t>& sizes) {
  std::vector<Tensor> inputs;
  const Graph graph = boundGraph(free, {{"x", sizes}, {"on", {1}}}).value();
  for (const Value* v : graph.inputs()) {
    inputs.push_back(sample(v->type()));
    if (v->name() == "on") storeElement(DType::boolean, inputs.back().mutableData(), 0, on ? 1 : 0);
  }
  auto out = interpret(graph, inputs);
  EXPECT_TRUE(out) << (out ? "" : out.error().render()) << graph.str();
  return out ? *out : std::vector<Tensor>(free.outputs().size());
}

// Values as those of the model with the condition fixed, of the graph and of what its file reads back as; how many Ifs the file has.
int expectSameWhereSwitched(const testing::Model& m) {
  const auto free = freeGraph(m.bytes());
  EXPECT_TRUE(free) << (free ? "" : free.error().render());
  if (!free) return -1;
  const auto file = exportOnnx(*free);
  EXPECT_TRUE(file) << (file ? "" : file.error().render());
  if (!file) return -1;
  const auto again = freeGraph(*file);
  EXPECT_TRUE(again) << (again ? "" : again.error().render());
  for (const bool on : {true, false}) {
    Tensor value(DType::boolean, {1});
    storeElement(DType::boolean, value.mutableData(), 0, on ? 1 : 0);
    const auto fixed = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {{"on", value}}, .freeDims = true});
    EXPECT_TRUE(fixed) << (fixed ? "" : fixed.error().render());
    for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{1, 3, 8}, {2, 5, 8}}) {
      const std::vector<Tensor> want = outputsAt(*fixed, {{"x", sizes}}).value();
      for (const Graph* graph : {&*free, &*again}) {
        const std::vector<Tensor> got = outputsWhere(*graph, on, sizes);
        for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(got[i].sameBytes(want[i])) << on << graph->str();
      }
    }
  }
  onnx::ModelProto read;
  EXPECT_TRUE(read.ParseFromString(*file));
  return static_cast<int>(std::ranges::count_if(read.graph().node(), [](const auto& n) { return n.op_type() == "If"; }));
}

TEST(BranchesOnData, SeveralOutputsOfWhichSomeHaveUnlikeSizes) {
  testing::Model m = switched(), first, second;
  m.floats("w", {8, 8});
  first.node("MatMul", {"x", "w"}, {"a"})
      .node("Concat", {"x", "a"}, {"longer"}, {testing::integer("axis", 1)})
      .output("a")
      .output("longer");
  second.node("MatMul", {"x", "w"}, {"t"}).node("Tanh", {"t"}, {"b"}).node("Neg", {"x"}, {"same"}).output("b").output("same");
  m.node("If", {"on"}, {"y", "z"}, {subgraph("then_branch", first.graph()), subgraph("else_branch", second.graph())});
  m.node("Relu", {"z"}, {"r"}).output("y").output("r");
  EXPECT_EQ(expectSameWhereSwitched(m), 1) << "both outputs are of one If";
  const Graph graph = freeGraph(m.bytes()).value();
  EXPECT_EQ(graph.outputs()[0]->type().str(), "f32[N1,N2,8]");
  EXPECT_THAT(graph.outputs()[1]->type().str(), ::testing::MatchesRegex("f32\\[N1,n_.*,8\\]"));
  // The weight of both lies outside of both, once.
  onnx::ModelProto file;
  ASSERT_TRUE(file.ParseFromString(exportOnnx(graph).value()));
  EXPECT_EQ(std::ranges::count_if(file.graph().initializer(), [](const auto& t) { return t.dims_size() == 2; }), 1);
  for (const auto& node : file.graph().node())
    for (const auto& attribute : node.attribute()) EXPECT_EQ(attribute.g().initializer_size(), 0);
}

TEST(BranchesOnData, OuterValuesAndConstants) {
  testing::Model m = switched(), outer, constant;
  m.node("Exp", {"x"}, {"e"}).floats("outside", {1, 1, 8});
  outer.node("Identity", {"e"}, {"same"}).output("same");
  constant.floats("inside", {1, 1, 8}).node("Identity", {"inside"}, {"c"}).output("c");
  m.node("If", {"on"}, {"y"}, {subgraph("then_branch", outer.graph()), subgraph("else_branch", constant.graph())}).output("y");
  testing::Model direct;
  direct.output("outside");
  m.node("If", {"on"}, {"z"}, {subgraph("then_branch", direct.graph()), subgraph("else_branch", branch("Neg", {"e"}))}).output("z");
  EXPECT_EQ(expectSameWhereSwitched(m), 1) << "two on one condition, neither behind the other, are one";
}

// A cache that only the first step makes: of the other branch it is a constant without elements.
TEST(BranchesOnData, AConstantWithoutElements) {
  testing::Model m = switched(), none;
  none.floats("none", {0, 1, 8}).node("Identity", {"none"}, {"empty"}).output("empty");
  m.node("If", {"on"}, {"y"}, {subgraph("then_branch", none.graph()), subgraph("else_branch", branch("Exp", {"x"}))}).output("y");
  EXPECT_EQ(expectSameWhereSwitched(m), 1);
}

TEST(BranchesOnData, OneBehindTheOtherAndInOneAnother) {
  testing::Model m = switched(), inner, nested;
  m.node("Not", {"on"}, {"off"});
  m.node("If", {"on"}, {"y"}, {subgraph("then_branch", branch("Exp", {"x"})), subgraph("else_branch", branch("Neg", {"x"}))});
  inner.node("Sin", {"y"}, {"s"})
      .node("If", {"off"}, {"i"}, {subgraph("then_branch", branch("Cos", {"s"})), subgraph("else_branch", branch("Tanh", {"s"}))});
  inner.output("i");
  m.node("If", {"on"}, {"z"}, {subgraph("then_branch", inner.graph()), subgraph("else_branch", branch("Relu", {"y"}))}).output("z");
  EXPECT_EQ(expectSameWhereSwitched(m), 2);
}

// What one branch of two Ifs on one condition needs, one behind the other, is in both of the file's branches.
TEST(BranchesOnData, OfOneConditionTwice) {
  testing::Model m = switched(), first, second;
  first.node("Exp", {"x"}, {"e"}).output("e");
  second.node("Exp", {"x"}, {"e2"}).node("Add", {"e2", "y"}, {"s"}).output("s");
  m.node("If", {"on"}, {"y"}, {subgraph("then_branch", first.graph()), subgraph("else_branch", branch("Neg", {"x"}))});
  m.node("If", {"on"}, {"z"}, {subgraph("then_branch", second.graph()), subgraph("else_branch", branch("Relu", {"y"}))}).output("z");
  EXPECT_EQ(expectSameWhereSwitched(m), 2);
}

TEST(BranchesOnData, InAFunctionOnWhatIsComputed) {
  testing::Model m = sequence();
  m.input("on", {1}, kBool);
  auto& function = *m.proto().add_functions();
  function.set_name("Either");
  function.set_domain("own");
  function.add_input("v");
  function.add_input("flag");
  function.add_output("w");
  testing::Model body;
  body.node("Not", {"flag"}, {"not"});
  body.node("If", {"not"}, {"w"}, {subgraph("then_branch", branch("Neg", {"v"})), subgraph("else_branch", branch("Exp", {"v"}))});
  *function.mutable_node() = body.graph().node();
  auto& opset = *function.add_opset_import();
  opset.set_domain("");
  opset.set_version(17);
  auto& own = *m.proto().add_opset_import();
  own.set_domain("own");
  own.set_version(1);
  m.node("Either", {"x", "on"}, {"y"}).output("y");
  m.graph().mutable_node(m.graph().node_size() - 1)->set_domain("own");
  EXPECT_EQ(expectSameWhereSwitched(m), 1);
}

// A branch whose sizes data decides, in one that data decides.
TEST(BranchesOnData, WithSizesOfTheirOwn) {
  testing::Model m = switched(), found;
  found.node("Relu", {"x"}, {"r"}).node("NonZero", {"r"}, {"places"}).output("places", onnx::TensorProto::INT64);
  testing::Model all;
  all.node("NonZero", {"x"}, {"places2"}).output("places2", onnx::TensorProto::INT64);
  m.node("If", {"on"}, {"y"}, {subgraph("then_branch", found.graph()), subgraph("else_branch", all.graph())});
  m.output("y", onnx::TensorProto::INT64);
  EXPECT_EQ(expectSameWhereSwitched(m), 1);
}

// Integers lie outside of the branches, once; each makes real numbers of them beside the node that reads these.
TEST(BranchesOnData, DequantizeInside) {
  const Graph graph = parseGraph(R"(
!w = q<s8, scale=0.25, zp=0>
!x = q<u8, scale=0.1, zp=3>
const #w : s8[2,4] = [2, 1, 4, 3, -1, 5, 0, 7]
graph @g(%c: bool[1], %x: f32[N,4]) -> ("y") {
  %w = const #w : !w[2,4]
  %wd = dequantize %w : f32[2,4]
  %xq = quantize %x : !x[N,4]
  %xd = dequantize %xq : f32[N,4]
  %a = linear %xd, %wd : f32[N,2]
  %n = neg %xd : f32[N,4]
  %b = linear %n, %wd : f32[N,2]
  %y = choose %c, %a, %b {axes=[], sizes=[]} : f32[N,2]
  return %y
})")
                          .value();
  onnx::ModelProto file;
  ASSERT_TRUE(file.ParseFromString(exportOnnx(graph).value()));
  const auto count = [](const auto& nodes) {
    return std::ranges::count_if(nodes, [](const auto& n) { return n.op_type() == "DequantizeLinear"; });
  };
  EXPECT_EQ(count(file.graph().node()), 0);
  EXPECT_EQ(std::ranges::count_if(file.graph().initializer(), [](const auto& t) { return t.dims_size() == 2; }), 1);
  const auto isIf = [](const auto& n) { return n.op_type() == "If"; };
  const auto either = std::ranges::find_if(file.graph().node(), isIf);
  ASSERT_NE(either, file.graph().node().end());
  for (const auto& attribute : either->attribute()) EXPECT_EQ(count(attribute.g().node()), 2) << attribute.name();
}

// As optimum merges decoders: the mask has the names of the export without a cache, where it is as long as the tokens.
TEST(BranchesOnData, LengthsThatOneNameIsGivenFor) {
  const auto made = [](bool isSwitched) {
    testing::Model m;
    for (const char* name : {"ids", "mask"}) {
      m.input(name, {-1, -2}, onnx::TensorProto::INT64);
      m.graph()
          .mutable_input(m.graph().input_size() - 1)
          ->mutable_type()
          ->mutable_tensor_type()
          ->mutable_shape()
          ->mutable_dim(1)
          ->set_dim_param("tokens");
    }
    m.input("on", {1}, kBool);
    if (isSwitched)
      m.node("If", {"on"}, {"y"}, {subgraph("then_branch", branch("Neg", {"ids"})), subgraph("else_branch", branch("Neg", {"mask"}))});
    else
      m.node("Add", {"ids", "mask"}, {"y"});
    m.output("y", onnx::TensorProto::INT64);
    std::string inputs;
    const Graph graph = freeGraph(m.bytes()).value();
    for (const Value* v : graph.inputs()) inputs += v->type().str() + " ";
    return inputs;
  };
  EXPECT_THAT(made(true), HasSubstr("s64[N1,tokens] s64[N1,\"mask.1\"] "));
  EXPECT_THAT(made(false), HasSubstr("s64[N1,tokens] s64[N1,tokens] "));
}

TEST(BranchesOnData, WhatCannotBeOneTensor) {
  const auto said = [](const testing::Model& m) {
    const auto graph = freeGraph(m.bytes());
    return graph ? graph->str() : graph.error().render();
  };
  testing::Model ranks = switched();
  ranks
      .node("If", {"on"}, {"y"},
            {subgraph("then_branch", branch("Squeeze", {"x", "one"})), subgraph("else_branch", branch("Identity", {"x"}))}, "/either")
      .output("y");
  EXPECT_THAT(said(ranks), ::testing::AllOf(HasSubstr("/either"), HasSubstr("data decides between them"), HasSubstr("'on'"),
                                            HasSubstr("LoadOptions::values")));
  testing::Model types = switched();
  types
      .node("If", {"on"}, {"y"},
            {subgraph("then_branch", branch("Cast", {"x"}, {testing::integer("to", onnx::TensorProto::INT32)})),
             subgraph("else_branch", branch("Neg", {"x"}))},
            "/either")
      .output("y");
  EXPECT_THAT(said(types), ::testing::AllOf(HasSubstr("s32[N1,N2,8] and f32[N1,N2,8] as output 0"), HasSubstr("/either")));
  testing::Model sequences = switched();
  sequences.node("If", {"on"}, {"y"},
                 {subgraph("then_branch", branch("SequenceConstruct", {"x"})), subgraph("else_branch", branch("Neg", {"x"}))}, "/either");
  sequences.node("ConcatFromSequence", {"y"}, {"z"}, {testing::integer("axis", 0)}).output("z");
  EXPECT_THAT(said(sequences), ::testing::AllOf(HasSubstr("a sequence and f32[N1,N2,8] as output 0"), HasSubstr("/either")));
  testing::Model condition = sequence();
  condition.input("on", {2}, kBool);
  condition
      .node("If", {"on"}, {"y"}, {subgraph("then_branch", branch("Exp", {"x"})), subgraph("else_branch", branch("Neg", {"x"}))}, "/either")
      .output("y");
  EXPECT_THAT(said(condition), ::testing::AllOf(HasSubstr("its condition is bool[2]"), HasSubstr("/either")));
}

TEST(Assumptions, ThatCannotBeReadAreSaid) {
  testing::Model m;
  m.input("x", {-1, 8}).node("Relu", {"x"}, {"y"}).output("y");
  auto& entry = *m.proto().add_metadata_props();
  entry.set_key("qcompile.assumes");
  for (const char* text : {"{differ=[N1,1]}", "{differ=[N1]} by \"n\"", "{between=[N1,1]} by \"n\"", "N1 != 1", "{differ=[N1,1]} by n"}) {
    entry.set_value(text);
    const auto graph = freeGraph(m.bytes());
    EXPECT_FALSE(graph && boundGraph(*graph, {{"x", {3, 8}}})) << text;
  }
  entry.set_value("{differ=[other,1]} by \"n\"\n{at_most=[N1,4]} by \"m\"\n");
  EXPECT_TRUE(boundGraph(freeGraph(m.bytes()).value(), {{"x", {3, 8}}}));
  EXPECT_FALSE(boundGraph(freeGraph(m.bytes()).value(), {{"x", {5, 8}}}));
}

}  // namespace
}  // namespace qc
