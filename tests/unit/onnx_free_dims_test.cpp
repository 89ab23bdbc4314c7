// Models whose dims stay free at import: what Shape and the arithmetic behind it give are expressions, and the graph, bound to sizes,
// computes what the model imported at these sizes does.
#include <gtest/gtest.h>

#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "passes/lower/bound_graph.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using testing::integer;
using testing::Ints;
using testing::ints;

using Sizes = std::map<std::string, Ints>;

Tensor sample(const TensorType& type) {
  Tensor t(type.dtype, type.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(t.dtype(), t.mutableData(), i, isFloat(t.dtype()) ? 0.25 * (i % 13) - 1 : i % 5);
  return t;
}

std::vector<Tensor> outputsOf(const Graph& graph) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(sample(v->type()));
  return interpret(graph, inputs).value();
}

// The type of the output with free dims; each binding is compared with the import at these sizes.
std::string freeType(const testing::Model& m, const std::vector<Sizes>& bindings) {
  const auto graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true});
  if (!graph) return graph.error().render();
  for (const Sizes& sizes : bindings) {
    const auto bound = boundGraph(*graph, sizes);
    EXPECT_TRUE(bound.has_value()) << bound.error().render();
    if (!bound) continue;
    const Graph fixed = importOnnx(m.bytes(), {}, {.shapes = sizes, .values = {}}).value();
    const std::vector<Tensor> ours = outputsOf(*bound), theirs = outputsOf(fixed);
    for (size_t i = 0; i < theirs.size(); ++i) EXPECT_TRUE(ours[i].sameBytes(theirs[i])) << bound->str();
  }
  return graph->outputs()[0]->type().str();
}

const std::vector<Sizes> kSequences = {{{"x", {1, 3, 8}}}, {{"x", {2, 5, 8}}}, {{"x", {3, 1, 8}}}};

// x: f32[N1,N2,8], and its shape as `s`.
testing::Model sequence(int opset = 13) {
  testing::Model m(opset);
  m.input("x", {-1, -2, 8}).node("Shape", {"x"}, {"s"});
  m.int64s("zero", {0}).int64s("one", {1}).int64s("two", {2}).int64s("heads", {2, 4}).int64s("minus", {-1});
  return m;
}

TEST(FreeDims, HeadsOfAttentionByShapeAndConcat) {
  testing::Model m = sequence();
  m.node("Slice", {"s", "zero", "two"}, {"outer"}).node("Concat", {"outer", "heads"}, {"to"}, {integer("axis", 0)});
  m.node("Reshape", {"x", "to"}, {"h"}).node("Transpose", {"h"}, {"y"}, {ints("perm", {0, 2, 1, 3})}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,2,N2,4]");
}

TEST(FreeDims, FlattenedByProductsAndMinusOne) {
  testing::Model m = sequence();
  m.int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1});
  m.node("Gather", {"s", "i"}, {"n"}).node("Gather", {"s", "j"}, {"t"}).node("Mul", {"n", "t"}, {"rows"});
  m.node("Unsqueeze", {"rows", "zero"}, {"r"}).node("Concat", {"r", "minus"}, {"to"}, {integer("axis", 0)});
  m.node("Reshape", {"x", "to"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1*N2,8]");
}

TEST(FreeDims, CopiedAndInferredDimsOfReshape) {
  testing::Model m = sequence();
  m.int64s("to", {0, -1, 4}).node("Reshape", {"x", "to"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,2*N2,4]");
}

TEST(FreeDims, SlicesFromEitherEnd) {
  testing::Model m = sequence();
  m.int64s("last", {-2}).int64s("far", {INT64_MAX}).node("Slice", {"x", "last", "far", "one"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 2, 8}}}, {{"x", {2, 1, 8}}}}), "f32[N1,max(0,N2-max(0,N2-2)),8]");
}

TEST(FreeDims, PositionsByRangeAndConstantOfShape) {
  testing::Model m = sequence();
  m.int64s("from", Ints{}, {0}).int64s("by", Ints{}, {1}).int64s("j", Ints{}, {1}).floats("table", {16, 8});
  m.node("Gather", {"s", "j"}, {"t"}).node("Range", {"from", "t", "by"}, {"positions"});
  m.node("Gather", {"table", "positions"}, {"p"}).node("Add", {"x", "p"}, {"a"});
  m.node("ConstantOfShape", {"s"}, {"zeros"}).node("Add", {"a", "zeros"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,N2,8]");
}

TEST(FreeDims, ExpandWhereTheShapeHoldsMinusOne) {
  testing::Model m = sequence();
  m.floats("row", {1, 1, 8}).int64s("wanted", {-1, -1, 8}).int64s("none", {-1, -1, -1});
  m.node("Equal", {"wanted", "none"}, {"open"}).node("Where", {"open", "s", "wanted"}, {"to"});
  m.node("Expand", {"row", "to"}, {"e"}).node("Mul", {"x", "e"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,N2,8]");
}

TEST(FreeDims, HalvesAndDoublesOfImages) {
  testing::Model m;
  m.input("x", {1, 2, -1, -2}).floats("w", {2, 2, 3, 3}).floats("by", {4}, {1, 1, 2, 2}).floats("roi", {0});
  m.node("Conv", {"x", "w"}, {"c"}, {ints("pads", {1, 1, 1, 1}), ints("strides", {2, 2})});
  m.node("Resize", {"c", "roi", "by"}, {"y"}, {testing::text("mode", "nearest")}).output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 2, 8, 6}}}, {{"x", {1, 2, 7, 9}}}}), "f32[1,2,2*((N1+1)//2),2*((N2+1)//2)]");
}

TEST(FreeDims, PiecesOfAFreeDim) {
  testing::Model m(18);
  m.input("x", {-1, 2}).node("Split", {"x"}, {"a", "b"}, {integer("num_outputs", 2), integer("axis", 0)});
  m.node("Concat", {"b", "a"}, {"y"}, {integer("axis", 0)}).output("y");
  for (const auto& sizes : std::vector<Sizes>{{{"x", {4, 2}}}, {{"x", {5, 2}}}}) freeType(m, {sizes});
}

// What the sizes decide is refused by node, not guessed.
TEST(FreeDims, RefusesWhatDependsOnSizes) {
  testing::Model squeezed = sequence();
  squeezed.node("Squeeze", {"x"}, {"y"}).output("y");
  EXPECT_NE(freeType(squeezed, {}).find("whether dim 0 is 1 depends on N1"), std::string::npos);
  testing::Model hard = sequence();
  hard.node("Hardmax", {"x"}, {"y"}, {integer("axis", 0)}).output("y");
  EXPECT_NE(freeType(hard, {}).find("Hardmax of f32[N1,N2,8], whose dims are free"), std::string::npos);
}

// Sizes that a node cannot take are found when they are bound.
TEST(FreeDims, SizesThatDoNotDivide) {
  testing::Model m;
  m.input("x", {-1, 3}).int64s("to", {-1, 2}).node("Reshape", {"x", "to"}, {"y"}, {}, "/fold").output("y");
  const Graph graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}).value();
  EXPECT_TRUE(boundGraph(graph, {{"x", {4, 3}}}).has_value());
  const auto odd = boundGraph(graph, {{"x", {3, 3}}});
  ASSERT_FALSE(odd.has_value());
  EXPECT_EQ(odd.error().node(), "/fold");
}

}  // namespace
}  // namespace qc
