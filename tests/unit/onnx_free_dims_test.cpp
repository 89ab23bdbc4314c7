// Models whose dims stay free at import: what Shape and the arithmetic behind it give are expressions, and the graph, bound to sizes,
// computes what the model imported at these sizes does.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "free_dims_testing.h"
#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "passes/lower/bound_graph.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using testing::integer;
using testing::Ints;
using testing::ints;
using testing::sample;
using testing::Sizes;

std::vector<Tensor> outputsOf(const Graph& graph) {
  std::vector<Tensor> inputs;
  for (const Value* v : graph.inputs()) inputs.push_back(sample(v->type()));
  return interpret(graph, inputs).value();
}

// The same bytes, or floats that are no further apart.
bool areNear(const Tensor& a, const Tensor& b, double apart) {
  if (apart == 0 || a.type() != b.type()) return a.sameBytes(b);
  bool near = true;
  for (int64_t i = 0; i < a.numElements(); ++i) near = near && std::abs(a.at(i) - b.at(i)) <= apart;
  return near;
}

// The type of the output with free dims; each binding is compared with the import at these sizes.
std::string freeType(const testing::Model& m, const std::vector<Sizes>& bindings, double apart = 0) {
  const auto graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true});
  if (!graph) return graph.error().render();
  for (const Sizes& sizes : bindings) {
    const auto bound = boundGraph(*graph, sizes);
    EXPECT_TRUE(bound.has_value()) << bound.error().render();
    if (!bound) continue;
    const Graph fixed = importOnnx(m.bytes(), {}, {.shapes = sizes, .values = {}}).value();
    const std::vector<Tensor> ours = outputsOf(*bound), theirs = outputsOf(fixed);
    for (size_t i = 0; i < theirs.size(); ++i) EXPECT_TRUE(areNear(ours[i], theirs[i], apart)) << bound->str();
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

// Backwards, over a part: both ends may lie beyond the dim.
TEST(FreeDims, SlicesBackwards) {
  for (const auto& [first, last, step] : std::vector<std::array<int64_t, 3>>{{-1, -3, -1},
                                                                             {-2, INT64_MIN, -1},
                                                                             {3, 0, -1},
                                                                             {100, 1, -2},
                                                                             {-4, -100, -1},
                                                                             {INT64_MAX, -3, -2},
                                                                             {1, 2, -1},
                                                                             {-1, INT64_MIN, -3}}) {
    testing::Model m = sequence();
    m.int64s("first", {first}).int64s("last", {last}).int64s("step", {step});
    m.node("Slice", {"x", "first", "last", "one", "step"}, {"y"}).output("y");
    EXPECT_EQ(freeType(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 7, 8}}}, {{"x", {2, 1, 8}}}, {{"x", {2, 2, 8}}}}).find("error"),
              std::string::npos)
        << first << " to " << last << " by " << step;
  }
}

TEST(FreeDims, PositionsByRangeAndConstantOfShape) {
  testing::Model m = sequence();
  m.int64s("from", Ints{}, {0}).int64s("by", Ints{}, {1}).int64s("j", Ints{}, {1}).floats("table", {16, 8});
  m.node("Gather", {"s", "j"}, {"t"}).node("Range", {"from", "t", "by"}, {"positions"});
  m.node("Gather", {"table", "positions"}, {"p"}).node("Add", {"x", "p"}, {"a"});
  m.node("ConstantOfShape", {"s"}, {"zeros"}).node("Add", {"a", "zeros"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,N2,8]");
}

// Where each of an EmbeddingBag's bags begins, as PyTorch's older exporter counts it.
TEST(FreeDims, PositionsAtAFreeStep) {
  testing::Model m = sequence();
  m.int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1}).node("Gather", {"s", "i"}, {"rows"}).node("Gather", {"s", "j"}, {"t"});
  m.node("Mul", {"rows", "t"}, {"all"}).node("Range", {"i", "all", "t"}, {"y"}, {}, "/begins").output("y");
  EXPECT_EQ(freeType(m, kSequences), "s64[N1]");
  const Graph graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}).value();
  const auto none = boundGraph(graph, {{"x", {1, 0, 8}}});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().node(), "/begins");
  testing::Model over = sequence();
  over.int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1}).node("Gather", {"s", "i"}, {"rows"}).node("Gather", {"s", "j"}, {"t"});
  over.node("Range", {"i", "rows", "t"}, {"y"}).output("y");
  EXPECT_NE(freeType(over, {}).find("a step of N2 from 0 to N1"), std::string::npos);
}

// Counted in doubles, as PyTorch's older exporter writes positions that are real numbers.
TEST(FreeDims, PositionsAndSizesInDoubles) {
  testing::Model m = sequence();
  m.int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1}).node("Gather", {"s", "j"}, {"t"});
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"i", "first"}, {"t", "end"}, {"j", "by"}})
    m.node("Cast", {from}, {to}, {integer("to", onnx::TensorProto::DOUBLE)});
  m.node("Range", {"first", "end", "by"}, {"wide"}).node("Cast", {"wide"}, {"p"}, {integer("to", onnx::TensorProto::FLOAT)});
  m.node("Unsqueeze", {"p", "one"}, {"positions"}).node("Add", {"x", "positions"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,N2,8]");
  testing::Model part = sequence();
  part.int64s("j", {1}).node("Gather", {"s", "j"}, {"t"}).node("Cast", {"t"}, {"wide"}, {integer("to", onnx::TensorProto::DOUBLE)});
  part.floats("few", {1}, {0.75f}).node("Cast", {"few"}, {"share"}, {integer("to", onnx::TensorProto::DOUBLE)});
  part.node("Mul", {"wide", "share"}, {"scaled"}).node("Floor", {"scaled"}, {"whole"});
  part.node("Cast", {"whole"}, {"end"}, {integer("to", onnx::TensorProto::INT64)});
  part.node("Slice", {"x", "zero", "end", "one"}, {"y"}).output("y");
  EXPECT_EQ(freeType(part, kSequences), "f32[N1,-((N2+3)//4)+N2,8]");
}

// Padding to whole frames, as audio codecs count them: ceil((size - 3) / 4 + 1) in floats, where the quotient may be negative.
TEST(FreeDims, FramesInFloats) {
  testing::Model m = sequence();
  m.int64s("j", {1})
      .int64s("kernel", {3})
      .int64s("stride", {4})
      .floats("by", {1}, {4})
      .floats("more", {1}, {1})
      .int64s("lead", {0, 0, 0, 0});
  m.node("Gather", {"s", "j"}, {"t"})
      .node("Sub", {"t", "kernel"}, {"over"})
      .node("Cast", {"over"}, {"wide"}, {integer("to", onnx::TensorProto::FLOAT)});
  m.node("Div", {"wide", "by"}, {"quotient"}).node("Add", {"quotient", "more"}, {"sum"}).node("Ceil", {"sum"}, {"frames"});
  m.node("Cast", {"frames"}, {"count"}, {integer("to", onnx::TensorProto::INT64)}).node("Mul", {"count", "stride"}, {"ideal"});
  m.node("Sub", {"ideal", "t"}, {"missing"}).node("Concat", {"lead", "missing", "zero"}, {"pads"}, {integer("axis", 0)});
  m.node("Pad", {"x", "pads"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 8, 8}}}, {{"x", {3, 2, 8}}}, {{"x", {1, 13, 8}}}}), "f32[N1,4*(N2//4)+4,8]");
}

// (size - 1) / 2 + 1, as PyTorch's newer exporter says sizes behind a stride: division towards 0 is the floor for all sizes but 0, for
// which the model was not read.
TEST(FreeDims, SizesBehindStrides) {
  testing::Model m;
  m.input("x", {1, 2, -1, -2}).floats("w", {2, 2, 3, 3}).node("Shape", {"x"}, {"s"});
  m.int64s("less", Ints{}, {-1}).int64s("more", Ints{}, {1}).int64s("by", Ints{}, {2}).int64s("lead", {1, 2}).int64s("flat", {1});
  m.node("Conv", {"x", "w"}, {"c"}, {ints("pads", {1, 1, 1, 1}), ints("strides", {2, 2})});
  for (const std::string side : {"h", "w"}) {
    m.int64s(side + "_at", Ints{}, {side == "h" ? 2 : 3}).node("Gather", {"s", side + "_at"}, {side + "_size"});
    m.node("Add", {"less", side + "_size"}, {side + "_last"})
        .node("Div", {side + "_last", "by"}, {side + "_half"}, {}, "/" + side + "_half");
    m.node("Add", {"more", side + "_half"}, {side + "_out"});
  }
  m.node("Mul", {"h_out", "w_out"}, {"n"})
      .node("Reshape", {"n", "flat"}, {"pixels"})
      .node("Concat", {"lead", "pixels"}, {"to"}, {integer("axis", 0)});
  m.node("Reshape", {"c", "to"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 2, 8, 6}}}, {{"x", {1, 2, 7, 9}}}, {{"x", {1, 2, 1, 2}}}}), "f32[1,2,((N1+1)//2)*((N2+1)//2)]");
  const Graph graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}).value();
  const auto none = boundGraph(graph, {{"x", {1, 2, 4, 0}}});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().node(), "/w_half");
}

TEST(FreeDims, ExpandWhereTheShapeHoldsMinusOne) {
  testing::Model m = sequence();
  m.floats("row", {1, 1, 8}).int64s("wanted", {-1, -1, 8}).int64s("none", {-1, -1, -1});
  m.node("Equal", {"wanted", "none"}, {"open"}).node("Where", {"open", "s", "wanted"}, {"to"});
  m.node("Expand", {"row", "to"}, {"e"}).node("Mul", {"x", "e"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,N2,8]");
}

// To the shape of the first slice of something, as PyTorch's older exporter expands what index_add adds: the dim that is 1 there stays.
TEST(FreeDims, ExpandToTheShapeOfASlice) {
  testing::Model m;
  m.input("x", {-1, 4}).input("all", {-2, 4}).int64s("zero", {0}).int64s("one", {1});
  m.node("Slice", {"all", "zero", "one", "zero"}, {"first"})
      .node("Shape", {"first"}, {"to"})
      .node("Expand", {"x", "to"}, {"y"}, {}, "/add");
  m.output("y");
  EXPECT_EQ(freeType(m, {{{"x", {3, 4}}, {"all", {5, 4}}}, {{"x", {1, 4}}, {"all", {1, 4}}}, {{"x", {5, 4}}, {"all", {2, 4}}}}),
            "f32[N1,4]");
  const Graph graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}).value();
  const auto none = boundGraph(graph, {{"x", {3, 4}}, {"all", {0, 4}}});
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().node(), "/add");
}

TEST(FreeDims, HalvesAndDoublesOfImages) {
  testing::Model m;
  m.input("x", {1, 2, -1, -2}).floats("w", {2, 2, 3, 3}).floats("by", {4}, {1, 1, 2, 2}).floats("roi", {0});
  m.node("Conv", {"x", "w"}, {"c"}, {ints("pads", {1, 1, 1, 1}), ints("strides", {2, 2})});
  m.node("Resize", {"c", "roi", "by"}, {"y"}, {testing::text("mode", "nearest")}).output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 2, 8, 6}}}, {{"x", {1, 2, 7, 9}}}}), "f32[1,2,2*((N1+1)//2),2*((N2+1)//2)]");
}

// To a fixed size the scale follows from the free one.
// The parameters of a norm say how many channels a free dim has: what it is made of keeps that.
TEST(FreeDims, ChannelsOfNorms) {
  const auto norm = [](const char* op, std::vector<std::string> operands, std::vector<onnx::AttributeProto> attributes) {
    testing::Model m(21);
    m.input("x", {-1, -2, -3}).floats("a", {4}, {1, 2, 3, 4}).floats("b", {4}, {4, 3, 2, 1});
    m.node(op, std::move(operands), {"y"}, std::move(attributes)).output("y");
    return freeType(m, {{{"x", {2, 4, 4}}}, {{"x", {1, 4, 4}}}});
  };
  EXPECT_EQ(norm("BatchNormalization", {"x", "a", "b", "a", "b"}, {}), "f32[N1,4,N3]");
  EXPECT_EQ(norm("InstanceNormalization", {"x", "a", "b"}, {}), "f32[N1,4,N3]");
  EXPECT_EQ(norm("GroupNormalization", {"x", "a", "b"}, {integer("num_groups", 2)}), "f32[N1,4,N3]");
  EXPECT_EQ(norm("LayerNormalization", {"x", "a", "b"}, {}), "f32[N1,N2,4]");
}

TEST(FreeDims, ResizeToASize) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 8, 6}}}, {{"x", {1, 2, 5, 11}}}};
  for (const char* mode : {"nearest", "linear"}) {
    testing::Model m(13);
    m.input("x", {1, 2, -1, -2}).floats("none", {0}, {}).int64s("to", Ints{4}, {1, 2, 7, 9});
    m.node("Resize", {"x", "none", "none", "to"}, {"y"}, {testing::text("mode", mode)}).output("y");
    EXPECT_EQ(freeType(m, images), "f32[1,2,7,9]");
  }
}

TEST(FreeDims, PiecesOfAFreeDim) {
  testing::Model m(18);
  m.input("x", {-1, 2}).node("Split", {"x"}, {"a", "b"}, {integer("num_outputs", 2), integer("axis", 0)});
  m.node("Concat", {"b", "a"}, {"y"}, {integer("axis", 0)}).output("y");
  for (const auto& sizes : std::vector<Sizes>{{{"x", {4, 2}}}, {{"x", {5, 2}}}}) freeType(m, {sizes});
}

// Ops that become several.
TEST(FreeDims, ComposedOps) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 8, 6}}}, {{"x", {3, 2, 7, 9}}}};
  testing::Model pooled;
  pooled.input("x", {-1, 2, -2, -3}).node("LpPool", {"x"}, {"p"}, {ints("kernel_shape", {3, 3}), ints("strides", {2, 2})});
  pooled.node("LpPool", {"p"}, {"y"}, {ints("kernel_shape", {2, 2}), integer("ceil_mode", 1)}).output("y");
  EXPECT_EQ(freeType(pooled, images), "f32[N1,2,(N2+1)//2-2,(N3+1)//2-2]");
  testing::Model eye = sequence();
  eye.int64s("i", Ints{}, {0}).node("Gather", {"x", "i"}, {"m"}, {integer("axis", 0)});
  eye.node("EyeLike", {"m"}, {"e"}, {integer("k", 1)}).node("Add", {"x", "e"}, {"y"}).output("y");
  EXPECT_EQ(freeType(eye, kSequences), "f32[N1,N2,8]");
  for (const int opset : {11, 13}) {
    testing::Model hard = sequence(opset);
    hard.node("Hardmax", {"x"}, {"y"}, {integer("axis", 2)}).output("y");
    EXPECT_EQ(freeType(hard, kSequences), "f32[N1,N2,8]");
  }
  testing::Model cropped = sequence(18);
  cropped.int64s("j", Ints{}, {1}).node("Gather", {"s", "j"}, {"t"});
  cropped.node("Unsqueeze", {"t", "zero"}, {"t1"}).int64s("twelve", {12}).node("Concat", {"t1", "twelve"}, {"same"}, {integer("axis", 0)});
  cropped.node("CenterCropPad", {"x", "same"}, {"y"}, {ints("axes", {1, 2})}).output("y");
  EXPECT_EQ(freeType(cropped, kSequences), "f32[N1,N2,12]");
}

TEST(FreeDims, EinsumOfEveryForm) {
  const auto typeOf = [](const char* equation, const std::vector<std::string>& operands) {
    testing::Model m = sequence();
    m.floats("w", {8, 4}).floats("v", {2, 4, 8}).node("Einsum", operands, {"y"}, {testing::text("equation", equation)}).output("y");
    return freeType(m, kSequences);
  };
  EXPECT_EQ(typeOf("ntk,kc->ntc", {"x", "w"}), "f32[N1,N2,4]");
  EXPECT_EQ(typeOf("nqk,ntk->nqt", {"x", "x"}), "f32[N1,N2,N2]");
  EXPECT_EQ(typeOf("ntk,hck->nhtc", {"x", "v"}), "f32[N1,2,N2,4]");
  EXPECT_EQ(typeOf("...tk->...kt", {"x"}), "f32[N1,8,N2]");
  EXPECT_EQ(typeOf("ntk->nk", {"x"}), "f32[N1,8]");
  const auto diagonal = [](const char* equation) {
    testing::Model m;
    m.input("x", {-1, 3, -1}).node("Einsum", {"x"}, {"y"}, {testing::text("equation", equation)}).output("y");
    return freeType(m, {{{"x", {4, 3, 4}}}, {{"x", {1, 3, 1}}}, {{"x", {7, 3, 7}}}});
  };
  EXPECT_EQ(diagonal("iki->ik"), "f32[N1,3]");
  EXPECT_EQ(diagonal("iki->k"), "f32[3]");
}

TEST(FreeDims, AttentionAsOneNode) {
  const std::vector<Sizes> shapes = {{{"q", {2, 3, 16}}, {"k", {2, 5, 8}}, {"past", {2, 1, 4, 8}}},
                                     {{"q", {1, 1, 16}}, {"k", {1, 7, 8}}, {"past", {1, 1, 2, 8}}}};
  for (const bool past : {false, true})
    for (const int kind : {0, 1, 2, 3}) {
      testing::Model m(24);
      m.input("q", {-1, -2, 16}).input("k", {-1, -3, 8}).input("past", {-1, 1, -4, 8});
      std::vector<std::string> operands = {"q", "k", "k", "", past ? "past" : "", past ? "past" : ""};
      std::vector<onnx::AttributeProto> attributes = {integer("q_num_heads", 2), integer("kv_num_heads", 1)};
      if (kind % 2) attributes.push_back(integer("is_causal", 1));
      if (kind == 2) {  // a mask of the keys' size
        m.node(past ? "Concat" : "Identity", past ? std::vector<std::string>{"past", "k4"} : std::vector<std::string>{"k4"}, {"keys"},
               past ? std::vector{integer("axis", 2)} : std::vector<onnx::AttributeProto>());
        m.int64s("to4", {0, 1, -1, 8}).node("Reshape", {"k", "to4"}, {"k4"}).int64s("last", {3});
        m.node("ReduceSum", {"keys", "last"}, {"sums"}, {integer("keepdims", 0)}).int64s("two", {2});
        m.node("Unsqueeze", {"sums", "two"}, {"mask"});
        operands[3] = "mask";
      }
      if (kind == 3) {  // valid keys of each batch entry
        if (past) continue;
        m.int64s("zero", {0}).int64s("one", {1}).node("Shape", {"q"}, {"s"}).node("Slice", {"s", "zero", "one"}, {"n"});
        m.node("Expand", {"one", "n"}, {"lengths"});
        operands.push_back("lengths");
      }
      m.node("Attention", operands, {"y", "pk", "pv"}, attributes).output("y").output("pk");
      if (!past) m.node("Identity", {"past"}, {"kept"}).output("kept");
      EXPECT_EQ(freeType(m, shapes), "f32[N1,N2,16]") << kind << past;
    }
}

// Windows to either side, where one reaches further than any key.
TEST(FreeDims, AttentionInWindows) {
  for (const auto& [left, right] : {std::pair<int64_t, int64_t>{1, 0}, {0, 2}, {-1, INT64_MAX}, {INT64_MAX, 1}}) {
    testing::Model m(24);
    m.input("x", {-1, -2, 16});
    m.node("Attention", {"x", "x", "x"}, {"y"},
           {integer("q_num_heads", 2), integer("kv_num_heads", 2), integer("left_window_size", left), integer("right_window_size", right)});
    m.output("y");
    EXPECT_EQ(freeType(m, {{{"x", {2, 3, 16}}}, {{"x", {1, 7, 16}}}}), "f32[N1,N2,16]") << left << " " << right;
  }
}

TEST(FreeDims, RotaryEmbeddings) {
  for (const bool interleaved : {false, true}) {
    testing::Model m(23);
    m.input("x", {-1, -2, 16}).floats("cos", {16, 2}).floats("sin", {16, 2}).int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1});
    m.node("Shape", {"x"}, {"s"}).node("Gather", {"s", "j"}, {"t"}).node("Range", {"i", "t", "j"}, {"row"});
    m.int64s("zero", {0}).int64s("two", {2}).node("Slice", {"s", "zero", "two"}, {"places"}).node("Expand", {"row", "places"}, {"at"});
    m.node("RotaryEmbedding", {"x", "cos", "sin", "at"}, {"y"},
           {integer("num_heads", 2), integer("interleaved", interleaved ? 1 : 0), integer("rotary_embedding_dim", 4)});
    m.output("y");
    EXPECT_EQ(freeType(m, {{{"x", {1, 3, 16}}}, {{"x", {2, 5, 16}}}}), "f32[N1,N2,16]");
  }
}

// Models of other tools: parameters known and computed, integer ops, and the QOperator form.
TEST(FreeDims, QuantizedModels) {
  testing::Model m = sequence();
  m.floats("scale", {}, {0.02f}).small("zp", {}, onnx::TensorProto::UINT8, {120}).floats("ws", {4}, {0.01f, 0.02f, 0.03f, 0.04f});
  m.small("w", {8, 4}, onnx::TensorProto::INT8).small("wz", {4}, onnx::TensorProto::INT8, {0, 0, 0, 0});
  m.node("QuantizeLinear", {"x", "scale", "zp"}, {"q"}).node("DequantizeLinear", {"q", "scale", "zp"}, {"d"});
  m.node("DequantizeLinear", {"w", "ws", "wz"}, {"wd"}, {integer("axis", 1)}).node("MatMul", {"d", "wd"}, {"a"});
  m.node("DynamicQuantizeLinear", {"x"}, {"dq", "ds", "dz"}).node("MatMulInteger", {"dq", "w", "dz", "wz"}, {"i"});
  m.node("Cast", {"i"}, {"c"}, {integer("to", onnx::TensorProto::FLOAT)}).node("Mul", {"c", "ds"}, {"b"}).node("Mul", {"b", "ws"}, {"e"});
  m.node("Add", {"a", "e"}, {"f"}).node("QuantizeLinear", {"f", "scale", "zp"}, {"fq"});
  m.node("QLinearAdd", {"fq", "scale", "zp", "fq", "scale", "zp", "scale", "zp"}, {"g"}, {}, "", "com.microsoft");
  m.node("QLinearConcat", {"scale", "zp", "g", "scale", "zp", "fq", "scale", "zp"}, {"h"}, {integer("axis", 1)}, "", "com.microsoft");
  m.node("DequantizeLinear", {"h", "scale", "zp"}, {"y"}).output("y");
  EXPECT_EQ(freeType(m, kSequences), "f32[N1,2*N2,4]");
  testing::Model conv;
  conv.input("x", {-1, 2, -2, -3}).floats("scale", {}, {0.02f}).small("zp", {}, onnx::TensorProto::UINT8, {120});
  conv.small("w", {3, 2, 3, 3}, onnx::TensorProto::INT8).floats("ws", {}, {0.01f}).small("wz", {}, onnx::TensorProto::INT8, {0});
  conv.node("QuantizeLinear", {"x", "scale", "zp"}, {"q"});
  conv.node("QLinearConv", {"q", "scale", "zp", "w", "ws", "wz", "scale", "zp"}, {"c"}, {ints("pads", {1, 1, 1, 1})});
  conv.node("QLinearGlobalAveragePool", {"c", "scale", "zp", "scale", "zp"}, {"g"}, {}, "", "com.microsoft");
  conv.node("DequantizeLinear", {"g", "scale", "zp"}, {"y"}).output("y");
  EXPECT_EQ(freeType(conv, {{{"x", {1, 2, 5, 6}}}, {{"x", {2, 2, 7, 4}}}}), "f32[N1,3,1,1]");
}

// Padding up to a multiple of 4, and to a size that some inputs are beyond: these are cut.
TEST(FreeDims, PadsThatFollowFromSizes) {
  for (const char* mode : {"constant", "edge"}) {
    testing::Model m = sequence();
    m.int64s("four", {4}).int64s("five", {5}).int64s("front", {0, 0, 0, 0}).int64s("last", {0});
    m.node("Slice", {"s", "one", "two"}, {"t"}).node("Mod", {"t", "four"}, {"over"}).node("Sub", {"four", "over"}, {"less"});
    m.node("Mod", {"less", "four"}, {"more"}).node("Concat", {"front", "more", "last"}, {"pads"}, {integer("axis", 0)});
    m.node("Pad", {"x", "pads"}, {"y"}, {testing::text("mode", mode)}).output("y");
    EXPECT_EQ(freeType(m, kSequences), "f32[N1,4*((N2+3)//4),8]") << mode;
  }
  testing::Model square = sequence();
  square.int64s("two_", {2}).int64s("front", {0, 0, 0, 0}).int64s("last", {0}).node("Slice", {"s", "one", "two"}, {"t"});
  square.node("Sub", {"two_", "t"}, {"more"}).node("Concat", {"front", "more", "last"}, {"pads"}, {integer("axis", 0)});
  square.node("Pad", {"x", "pads"}, {"y"}).output("y");
  EXPECT_EQ(freeType(square, kSequences), "f32[N1,N2+max(-N2+2,0)-max(0,N2-2),8]");
}

// Half the size as exporters say it: in float, cast, scaled, rounded and cast back.
TEST(FreeDims, SizesByWayOfFloat) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 8, 6}}}, {{"x", {1, 2, 5, 11}}}};
  const auto image = [](const char* rounding, float by) {
    testing::Model m(13);
    m.input("x", {1, 2, -1, -2}).floats("none", {0}, {}).int64s("two", {2}).int64s("four", {4}).int64s("zero", {0}).floats("by", {1}, {by});
    m.node("Shape", {"x"}, {"s"}).node("Slice", {"s", "two", "four"}, {"size"}).node("Slice", {"s", "zero", "two"}, {"outer"});
    m.node("Cast", {"size"}, {"f"}, {integer("to", 1)}).node("Mul", {"f", "by"}, {"g"}).node(rounding, {"g"}, {"h"});
    m.node("Cast", {"h"}, {"i"}, {integer("to", 7)}).node("Concat", {"outer", "i"}, {"to"}, {integer("axis", 0)});
    m.node("Resize", {"x", "none", "none", "to"}, {"y"}, {testing::text("mode", "linear")}).output("y");
    return m;
  };
  EXPECT_EQ(freeType(image("Floor", 0.5f), images), "f32[1,2,N1//2,N2//2]");
  EXPECT_EQ(freeType(image("Ceil", 0.75f), images), "f32[1,2,N1-(N1//4),N2-(N2//4)]");
  EXPECT_EQ(freeType(image("Identity", 0.7f), images), "f32[1,2,(7*N1)//10,(7*N2)//10]");
  EXPECT_EQ(freeType(image("Floor", 2), images), "f32[1,2,2*N1,2*N2]");
  // No fraction of small integers: a size that is computed when the others are bound.
  EXPECT_NE(freeType(image("Floor", 0.7071068f), images).find("f32[1,2,n_"), std::string::npos);
}

// Of channels and dims that are searched.
TEST(FreeDims, ChannelsOfAnyNumber) {
  testing::Model hard = sequence();
  hard.node("Hardmax", {"x"}, {"y"}, {integer("axis", 1)}).output("y");
  EXPECT_EQ(freeType(hard, kSequences), "f32[N1,N2,8]");
  const std::vector<Sizes> images = {{{"x", {1, 2, 6, 7}}}, {{"x", {2, 4, 5, 5}}}};
  testing::Model pool;
  pool.input("x", {-1, -2, -3, -4}).node("LpPool", {"x"}, {"y"}, {ints("kernel_shape", {2, 2}), ints("strides", {2, 2})}).output("y");
  EXPECT_EQ(freeType(pool, images), "f32[N1,N2,N3//2,N4//2]");
  testing::Model group(18);
  group.input("x", {-1, -2, -3, -4}).floats("scale", {2}).floats("bias", {2});
  group.node("GroupNormalization", {"x", "scale", "bias"}, {"y"}, {integer("num_groups", 2)}).output("y");
  EXPECT_EQ(freeType(group, images), "f32[N1,N2,N3,N4]");
}

// A dim that scales name by their number is not another.
TEST(FreeDims, SizesThatConstantsHave) {
  testing::Model m;
  m.input("x", {-1, -2, -3}).floats("s", {3}, {0.5, 0.25, 1}).small("z", {3}, onnx::TensorProto::INT8, {0, 1, 2});
  m.node("QuantizeLinear", {"x", "s", "z"}, {"q"}, {integer("axis", 1)})
      .node("DequantizeLinear", {"q", "s", "z"}, {"y"}, {integer("axis", 1)});
  m.output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 3, 1}}}}), "f32[N1,3,N3]");
}

TEST(FreeDims, ScalesOfResize) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 10, 6}}}, {{"x", {1, 2, 5, 11}}}};
  testing::Model m;
  m.input("x", {1, 2, -1, -2}).floats("by", {4}, {1, 1, 0.7f, 1.5f}).floats("roi", {0});
  m.node("Resize", {"x", "roi", "by"}, {"y"}, {testing::text("mode", "linear")}).output("y");
  EXPECT_EQ(freeType(m, images), "f32[1,2,(7*N1)//10,N2+N2//2]");
  const Graph fixed = importOnnx(m.bytes(), {}, {.shapes = images[0], .values = {}}).value();
  EXPECT_EQ(fixed.outputs()[0]->type().str(), "f32[1,2,7,9]");  // 10 * 0.7 in float32
  // 10 * 1.3 is 12 in float32: no fraction.
  testing::Model odd;
  odd.input("x", {1, 2, -1, -2}).floats("by", {4}, {1, 1, 1.3f, 1.7f}).floats("roi", {0});
  odd.node("Resize", {"x", "roi", "by"}, {"y"}, {testing::text("mode", "linear")}).output("y");
  EXPECT_NE(freeType(odd, images).find("f32[1,2,n_y"), std::string::npos);
}

// One scale for both dims: what is wanted of the one leaves the other what is in proportion.
TEST(FreeDims, ProportionsOfImages) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 10, 6}}}, {{"x", {1, 2, 5, 11}}}, {{"x", {1, 2, 40, 3}}}, {{"x", {1, 2, 12, 9}}}};
  const auto type = [&](const char* policy, const char* mode) {
    testing::Model m(18);
    m.input("x", {1, 2, -1, -2}).int64s("to", {9, 12});
    m.node("Resize", {"x", "", "", "to"}, {"y"},
           {testing::text("keep_aspect_ratio_policy", policy), testing::text("mode", mode), ints("axes", {3, 2})});
    return freeType(m.output("y"), images);
  };
  for (const char* mode : {"nearest", "linear", "cubic"}) {
    EXPECT_EQ(type("not_larger", mode), "f32[1,2,min((18*N1+N2)//(2*N2),12),min((N1+24*N2)//(2*N1),9)]") << mode;
    EXPECT_EQ(type("not_smaller", mode), "f32[1,2,max((18*N1+N2)//(2*N2),12),max((N1+24*N2)//(2*N1),9)]") << mode;
  }
}

// Where the largest of each window stands, in all of x.
TEST(FreeDims, PlacesOfTheLargest) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 8, 6}}}, {{"x", {3, 2, 5, 11}}}, {{"x", {2, 2, 7, 7}}}};
  const auto places = [&](std::vector<onnx::AttributeProto> how) {
    testing::Model m;
    how.push_back(ints("kernel_shape", {3, 2}));
    m.input("x", {-1, 2, -2, -3}).node("MaxPool", {"x"}, {"y", "i"}, std::move(how)).output("i", onnx::TensorProto::INT64).output("y");
    return freeType(m, images);
  };
  EXPECT_EQ(places({}), "s64[N1,2,N2-2,N3-1]");
  EXPECT_EQ(places({ints("strides", {2, 2}), ints("pads", {1, 1, 0, 0})}), "s64[N1,2,N2//2,(N3+1)//2]");
  places({integer("storage_order", 1), ints("strides", {2, 1}), integer("ceil_mode", 1)});
  places({testing::text("auto_pad", "SAME_LOWER"), ints("strides", {2, 2})});
}

// Grids over images of any size, and images put together of however many blocks.
TEST(FreeDims, GridsAndBlocks) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 8, 7}}, {"theta", {1, 2, 3}}},
                                     {{"x", {3, 2, 5, 12}}, {"theta", {3, 2, 3}}},
                                     {{"x", {2, 2, 1, 3}}, {"theta", {2, 2, 3}}}};
  for (const int aligned : {0, 1}) {
    testing::Model m(20);
    m.input("x", {-1, 2, -2, -3}).input("theta", {-1, 2, 3}).node("Shape", {"x"}, {"s"});
    m.node("AffineGrid", {"theta", "s"}, {"y"}, {integer("align_corners", aligned)}).output("y");
    EXPECT_EQ(freeType(m, images), "f32[N1,N2,N3,2]");
  }
  const auto put = [](Ints block, std::vector<onnx::AttributeProto> how) {
    testing::Model m(18);
    m.input("x", {-1, 12, -2}).input("like", {-1, 2, -3, -4}).int64s("block", std::move(block)).int64s("two", {2}).int64s("four", {4});
    m.node("Shape", {"like"}, {"s"}).node("Slice", {"s", "two", "four"}, {"hw"});
    m.node("Col2Im", {"x", "hw", "block"}, {"y"}, std::move(how)).output("y");
    return m;
  };
  const auto sizes = [](int64_t blocks, int64_t h, int64_t w) { return Sizes{{"x", {2, 12, blocks}}, {"like", {2, 2, h, w}}}; };
  EXPECT_EQ(freeType(put({2, 3}, {}), {sizes(35, 8, 7), sizes(16, 5, 6)}), "f32[N1,2,N3,N4]");
  EXPECT_EQ(freeType(put({2, 3}, {ints("strides", {2, 3})}), {sizes(8, 8, 7), sizes(4, 5, 6)}), "f32[N1,2,N3,N4]");
  const std::vector<onnx::AttributeProto> all{ints("strides", {3, 2}), ints("dilations", {1, 2}), ints("pads", {1, 0, 2, 1})};
  EXPECT_EQ(freeType(put({2, 3}, all), {sizes(8, 8, 7), sizes(9, 6, 8)}), "f32[N1,2,N3,N4]");
}

// SAME of windows that move by 2: the pads depend on whether the size is odd.
TEST(FreeDims, AutoPad) {
  const std::vector<Sizes> images = {{{"x", {1, 2, 8, 7}}}, {{"x", {1, 2, 5, 12}}}};
  for (const char* mode : {"SAME_UPPER", "SAME_LOWER"}) {
    const auto type = [&](const char* op, std::vector<std::string> operands, std::vector<onnx::AttributeProto> attributes) {
      testing::Model m(13);
      m.input("x", {1, 2, -1, -2}).floats("w", {2, 2, 3, 3});
      attributes.push_back(testing::text("auto_pad", mode));
      attributes.push_back(ints("strides", {2, 2}));
      m.node(op, std::move(operands), {"y"}, std::move(attributes)).output("y");
      return freeType(m, images, std::string_view(op) == "AveragePool" ? 1e-6 : 0);
    };
    EXPECT_EQ(type("ConvTranspose", {"x", "w"}, {}), "f32[1,2,2*N1,2*N2]") << mode;
    EXPECT_EQ(type("Conv", {"x", "w"}, {}).find("error"), std::string::npos) << mode;
    EXPECT_EQ(type("MaxPool", {"x"}, {ints("kernel_shape", {3, 3})}).find("error"), std::string::npos) << mode;
    EXPECT_EQ(type("AveragePool", {"x"}, {ints("kernel_shape", {3, 3}), integer("count_include_pad", 1)}).find("error"), std::string::npos);
    // Less the padding: as for fixed sizes, but for the rounding of what it makes up for.
    EXPECT_EQ(type("AveragePool", {"x"}, {ints("kernel_shape", {3, 3})}).find("error"), std::string::npos);
  }
}

TEST(FreeDims, DiagonalsAndDepths) {
  testing::Model diagonal = sequence(14);
  diagonal.int64s("j", Ints{}, {1}).node("Gather", {"s", "j"}, {"t"}).node("Trilu", {"x", "t"}, {"y"}, {integer("upper", 0)}).output("y");
  EXPECT_EQ(freeType(diagonal, kSequences), "f32[N1,N2,8]");
  testing::Model hot = sequence();
  hot.int64s("j", Ints{}, {1}).node("Gather", {"s", "j"}, {"t"}).floats("values", {2}, {-1, 3});
  hot.node("ArgMax", {"x"}, {"i"}, {integer("axis", 1), integer("keepdims", 0)});
  hot.node("OneHot", {"i", "t", "values"}, {"y"}, {integer("axis", 1)}).output("y");
  EXPECT_EQ(freeType(hot, kSequences), "f32[N1,N2,8]");
  testing::Model down = sequence();
  down.int64s("j", Ints{}, {1}).int64s("end", Ints{}, {-1}).node("Gather", {"s", "j"}, {"t"}).node("Add", {"t", "end"}, {"first"});
  down.node("Range", {"first", "end", "end"}, {"y"}).output("y");
  EXPECT_EQ(freeType(down, kSequences), "s64[N2]");
}

// What the sizes decide is refused by node, not guessed.
// As many parts as there are of all lengths but the smallest, for which the model was not read.
TEST(FreeDims, SequencesOfParts) {
  testing::Model m = sequence();
  m.int64s("two_", Ints{}, {2}).int64s("one_", Ints{}, {1}).int64s("i", Ints{}, {0}).int64s("j", Ints{}, {1});
  m.node("Gather", {"s", "j"}, {"t"}).node("Add", {"t", "one_"}, {"more"}).node("Div", {"more", "two_"}, {"half"});
  m.node("SplitToSequence", {"x", "half"}, {"parts"}, {integer("axis", 1)}, "/chunk");
  m.node("SequenceAt", {"parts", "i"}, {"a"}).node("SequenceAt", {"parts", "j"}, {"b"});
  m.node("Concat", {"b", "a"}, {"y"}, {integer("axis", 1)}).output("y");
  EXPECT_EQ(freeType(m, {{{"x", {1, 3, 8}}}, {{"x", {2, 8, 8}}}, {{"x", {3, 2, 8}}}}), "f32[N1,N2,8]");
  const Graph graph = importOnnx(m.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}).value();
  const auto single = boundGraph(graph, {{"x", {2, 1, 8}}});
  ASSERT_FALSE(single.has_value());
  EXPECT_EQ(single.error().node(), "/chunk");
}

// One for each element, to be read by place.
TEST(FreeDims, SequencesOfElements) {
  const std::vector<Sizes> sizes = {{{"x", {1, 3, 8}}}, {{"x", {2, 5, 8}}}};
  for (const auto& [keeps, type] : {std::pair(0, "f32[N1,8]"), {1, "f32[N1,1,8]"}}) {
    testing::Model m = sequence();
    m.int64s("last", Ints{}, {-1}).node("SplitToSequence", {"x"}, {"list"}, {integer("axis", 1), integer("keepdims", keeps)});
    m.node("SequenceAt", {"list", "last"}, {"y"}).output("y");
    EXPECT_EQ(freeType(m, sizes), type);
  }
  testing::Model m = sequence();
  m.node("SplitToSequence", {"x"}, {"list"}, {integer("axis", 1)});
  m.node("ConcatFromSequence", {"list"}, {"y"}, {integer("axis", 2)}).output("y");
  EXPECT_EQ(freeType(m, sizes), "f32[N1,1,8*N2]");
}

TEST(FreeDims, RefusesWhatDependsOnSizes) {
  testing::Model listed = sequence();
  listed.node("SplitToSequence", {"x"}, {"list"}, {integer("axis", 1)}).node("SequenceErase", {"list"}, {"fewer"});
  listed.node("ConcatFromSequence", {"fewer"}, {"y"}, {integer("axis", 1)}).output("y");
  EXPECT_NE(freeType(listed, {}).find("the length of the sequence must be known"), std::string::npos);
  testing::Model filtered;
  filtered.input("x", {-1, 2, -2, -3}).input("w", {3, 2, -4, 3}).node("Conv", {"x", "w"}, {"y"}).output("y");
  EXPECT_NE(freeType(filtered, {}).find("weight f32[3,2,N4,3], whose dims are free"), std::string::npos);
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
  // To the sizes that the model was traced at: nothing is free in the result, and it is found all the same.
  testing::Model traced;
  traced.input("x", {-1, 3}).int64s("to", {2, 6}).node("Reshape", {"x", "to"}, {"y"}, {}, "/traced").output("y");
  const Graph fixed = importOnnx(traced.bytes(), {}, {.shapes = {}, .values = {}, .freeDims = true}).value();
  EXPECT_TRUE(boundGraph(fixed, {{"x", {4, 3}}}).has_value());
  const auto other = boundGraph(fixed, {{"x", {5, 3}}});
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().node(), "/traced");
  EXPECT_EQ(other.error().code(), ErrorCode::kInvalidArgument) << other.error().render();
}

}  // namespace
}  // namespace qc
