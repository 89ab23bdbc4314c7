// An If on the sizes of inputs, whose dims stay free: both branches are kept, or one is read for all sizes but some, which the graph says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "free_dims_testing.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "ir/assumptions.h"
#include "ir/interp.h"
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
