// What an importer makes of control flow, model-local functions, nodes out of order, results that nobody reads and symbols of shapes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "frontend/onnx/import.h"
#include "ir/interp.h"
#include "ir/text.h"
#include "passes/lower/bound_graph.h"
#include "tests/onnx_models.h"

namespace qc {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::integer;
using testing::Ints;
using testing::ints;
using testing::Model;
using testing::real;
using testing::subgraph;

Graph imported(const Model& m, const ImportOptions& options = {}) {
  auto g = importOnnx(m.bytes(), ".", options);
  EXPECT_TRUE(g) << g.error().render();
  return std::move(g).value();
}
std::string errorOf(const Model& m, const ImportOptions& options = {}) {
  const auto g = importOnnx(m.bytes(), ".", options);
  return g ? "imported" : g.error().render();
}
std::vector<float> run(const Graph& g, const std::vector<float>& x, size_t output = 0) {
  const Tensor in = Tensor::ofFloats(g.inputs()[0]->type().sizes(), x);
  auto out = interpret(g, std::vector{in});
  EXPECT_TRUE(out) << out.error().render();
  return out->at(output).toFloats();
}

constexpr int kBool = onnx::TensorProto::BOOL, kInt64 = onnx::TensorProto::INT64;

// (round, goes on, s) -> (goes on, s * 2 + round, s)
onnx::GraphProto doubling(const std::string& condition = "goes") {
  Model body;
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("s", {2}).floats("two", {}, {2});
  body.node("Cast", {"i"}, {"f"}, {integer("to", onnx::TensorProto::FLOAT)}).node("Mul", {"s", "two"}, {"d"}, {}, "double");
  body.node("Add", {"d", "f"}, {"t"}).node("Identity", {condition}, {"on"}).node("Identity", {"s"}, {"seen"});
  body.output("on", kBool).output("t").output("seen");
  return body.graph();
}

Model loop(const Ints& rounds, const onnx::GraphProto& body) {
  Model m;
  m.input("x", {2}).int64s("n", {}, rounds).small("true", {}, kBool, {1});
  m.node("Loop", {"n", "true", "x"}, {"y", "all"}, {subgraph("body", body)}, "loop").output("y").output("all");
  return m;
}

TEST(OnnxControl, LoopsOfKnownLengthAreUnrolled) {
  const Graph g = imported(loop({3}, doubling()));
  EXPECT_THAT(run(g, {1, -1}), ElementsAre(8 + 4, -8 + 4));  // ((x * 2 + 0) * 2 + 1) * 2 + 2
  EXPECT_THAT(run(g, {1, -1}, 1), ElementsAre(1, -1, 2, -2, 5, -3));
  EXPECT_THAT(print(g, {.locations = true}), HasSubstr("loop[2]/double")) << "nodes are named after their rounds";
}

TEST(OnnxControl, LoopsOfNoRoundsGiveWhatTheyGot) {
  const Graph g = imported(loop({0}, doubling()));
  EXPECT_THAT(run(g, {1, -1}), ElementsAre(1, -1));
  EXPECT_THAT(g.outputs()[1]->type().sizes(), ElementsAre(0, 2));
}

TEST(OnnxControl, ConditionsThatAreKnownEndLoops) {
  auto body = doubling("below");
  auto& limit = *body.add_initializer();
  limit.set_name("limit");
  limit.set_data_type(kInt64);
  limit.add_int64_data(1);
  auto& less = *body.add_node();
  less.set_op_type("Less");
  less.add_input("i");
  less.add_input("limit");
  less.add_output("below");
  EXPECT_THAT(run(imported(loop({100}, body)), {1, 0}), ElementsAre(5, 1)) << "rounds 0 and 1";
}

TEST(OnnxControl, LoopsThatDataEndsStayLoops) {
  auto body = doubling("negative");
  auto& sum = *body.add_node();
  sum.set_op_type("ReduceSum");
  sum.add_input("s");
  sum.add_output("sum");
  *sum.add_attribute() = integer("keepdims", 0);
  auto& less = *body.add_node();
  less.set_op_type("Less");
  less.add_input("sum");
  less.add_input("sum_limit");
  less.add_output("negative");
  auto& limit = *body.add_initializer();
  limit.set_name("sum_limit");
  limit.set_data_type(onnx::TensorProto::FLOAT);
  limit.add_float_data(5);
  const Graph ended = imported(loop({30}, body));
  EXPECT_THAT(run(ended, {1, 1}), ElementsAre(12, 12)) << "2, 5, 12: in the third round the sum is beyond 5";
  const Graph counted = imported([] {
    Model m;
    m.input("x", {2}).input("n", {}, kInt64).small("true", {}, kBool, {1});
    m.node("Loop", {"n", "true", "x"}, {"y", "all"}, {subgraph("body", doubling())}, "loop").output("y").output("all");
    return m;
  }());
  for (const int64_t rounds : {0, 1, 3}) {
    const auto out =
        interpret(counted, std::vector{Tensor::ofFloats({2}, std::vector{1.0f, -1.0f}), Tensor::ofInts({}, std::vector{rounds})});
    ASSERT_TRUE(out) << out.error().render();
    EXPECT_THAT((*out)[1].sizes(), ElementsAre(rounds, 2));
  }
}

TEST(OnnxControl, LoopsWithoutEndAreRefused) {
  EXPECT_THAT(errorOf(loop({1000000000000}, doubling())), AllOf(HasSubstr("node 'loop'"), HasSubstr("is larger than")));
}

// Too many rounds to be unrolled; their results are not stacked, as nothing reads them.
TEST(OnnxControl, LongLoopsStayLoops) {
  auto body = doubling();
  body.mutable_output()->RemoveLast();
  Model m;
  m.input("x", {2}).int64s("n", {}, {100000}).small("true", {}, kBool, {1});
  m.node("Loop", {"n", "true", "x"}, {"y"}, {subgraph("body", body)}, "loop").output("y");
  const Graph g = imported(m);
  EXPECT_EQ(g.outputs()[0]->producer()->op(), "loop");
}

TEST(OnnxControl, WhatALoopCannotHandOnIsNamed) {
  Model m, body;
  body.input("i", {}, kInt64).input("c", {}, kBool).input("s", {2});
  body.node("Unsqueeze", {"s"}, {"t"}, {ints("axes", {0})}).node("Identity", {"c"}, {"on"}).output("on", kBool).output("t");
  m.input("x", {2}).input("n", {}, kInt64).small("true", {}, kBool, {1});
  m.node("Loop", {"n", "true", "x"}, {"y"}, {subgraph("body", body.graph())}, "loop").output("y");
  EXPECT_THAT(errorOf(m), AllOf(HasSubstr("node 'loop'"), HasSubstr("hands on f32[1,2]"), HasSubstr("help:")));
}

TEST(OnnxControl, BodiesThatDoNotFitAreRefused) {
  for (int cut = 0; cut < 2; ++cut) {
    auto body = doubling();
    cut ? body.mutable_output()->RemoveLast() : body.mutable_input()->RemoveLast();
    if (cut) body.mutable_output()->RemoveLast();
    EXPECT_THAT(errorOf(loop({2}, body)), HasSubstr("'loop'"));
  }
}

TEST(OnnxControl, ScansAreUnrolled) {
  Model body;
  body.input("s", {2}).input("e", {2}).node("Add", {"s", "e"}, {"t"}).node("Neg", {"t"}, {"r"}).output("t").output("r");
  for (const bool backwards : {false, true}) {
    Model m;
    m.input("x", {2, 3}).floats("zero", {2}, {0, 0});
    m.node("Scan", {"zero", "x"}, {"sum", "all"},
           {subgraph("body", body.graph()), integer("num_scan_inputs", 1), ints("scan_input_axes", {1}),
            ints("scan_input_directions", {backwards ? 1 : 0}), ints("scan_output_axes", {-1}), ints("scan_output_directions", {1})},
           "scan");
    m.output("sum").output("all");
    const Graph g = imported(m);
    EXPECT_THAT(run(g, {1, 2, 3, 4, 5, 6}), ElementsAre(6, 15));
    EXPECT_EQ(run(g, {1, 2, 3, 4, 5, 6}, 1),
              (backwards ? std::vector<float>{-6, -5, -3, -15, -11, -6} : std::vector<float>{-6, -3, -1, -15, -9, -4}));
  }
}

TEST(OnnxControl, BranchesThatAreNotTakenDoNotMatter) {
  Model good, bad, m;
  good.node("Relu", {"x"}, {"t"}).output("t");
  bad.node("Frobnicate", {"x"}, {"t"}).output("t");
  m.input("x", {2}).small("on", {}, kBool, {1});
  m.node("If", {"on"}, {"y"}, {subgraph("then_branch", good.graph()), subgraph("else_branch", bad.graph())}).output("y");
  EXPECT_THAT(run(imported(m), {1, -1}), ElementsAre(1, 0));
  Model taken;
  taken.input("x", {2}).small("on", {}, kBool, {0});
  taken.node("If", {"on"}, {"y"}, {subgraph("then_branch", good.graph()), subgraph("else_branch", bad.graph())}).output("y");
  EXPECT_THAT(errorOf(taken), HasSubstr("Frobnicate"));
}

// Splits, takes apart, puts together: nothing of it is left but slices and a concat.
TEST(OnnxControl, SequencesOfKnownLengthAreTakenApart) {
  Model m;
  m.input("x", {2, 5}).int64s("two", {}, {2}).int64s("last", {}, {-1}).int64s("first", {}, {0});
  m.node("SplitToSequence", {"x", "two"}, {"parts"}, {integer("axis", 1)});  // 2, 2 and 1 columns
  m.node("Identity", {"parts"}, {"same"}).node("SequenceAt", {"same", "last"}, {"tail"}).node("SequenceErase", {"parts", "last"}, {"rest"});
  m.node("SequenceInsert", {"rest", "tail", "first"}, {"turned"}).node("SequenceLength", {"turned"}, {"count"});
  m.node("ConcatFromSequence", {"turned"}, {"y"}, {integer("axis", 1)}).output("y").output("count", kInt64);
  const Graph g = imported(m);
  EXPECT_THAT(run(g, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}), ElementsAre(5, 1, 2, 3, 4, 10, 6, 7, 8, 9));
  EXPECT_THAT(run(g, std::vector<float>(10), 1), ElementsAre(3));
}

TEST(OnnxControl, SequencesGrowInLoops) {
  Model body;  // inserts x * round
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("list", {});
  body.node("Cast", {"i"}, {"f"}, {integer("to", onnx::TensorProto::FLOAT)}).node("Mul", {"x", "f"}, {"v"});
  body.node("SequenceInsert", {"list", "v"}, {"more"}).node("Identity", {"goes"}, {"on"}).output("on", kBool).output("more");
  Model m;
  m.input("x", {2}).int64s("n", {}, {3}).small("true", {}, kBool, {1}).node("SequenceEmpty", {}, {"none"});
  m.node("Loop", {"n", "true", "none"}, {"all"}, {subgraph("body", body.graph())});
  m.node("ConcatFromSequence", {"all"}, {"y"}, {integer("axis", 0), integer("new_axis", 1)}).output("y");
  EXPECT_THAT(run(imported(m), {1, -1}), ElementsAre(0, 0, 1, -1, 2, -2));
}

TEST(OnnxControl, ACarriedValueThatIsLeftOutIsNamed) {
  Model m;
  m.input("x", {2}).input("n", {}, kInt64).node("Loop", {"n", "", ""}, {"y", "all"}, {subgraph("body", doubling())}, "loop").output("y");
  EXPECT_THAT(errorOf(m), AllOf(HasSubstr("node 'loop'"), HasSubstr("carried value 0 is left out")));
}

// A loop of as many rounds as data says, from x [2] and a list: (round, goes on, s, list) -> (goes on, s + x, what `append` makes of it).
Model collecting(const std::function<void(Model&)>& append, const std::vector<std::string>& before = {}) {
  Model m, body;
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("s", {2}).input("list", {});
  body.node("Add", {"s", "x"}, {"t"}).node("Identity", {"goes"}, {"on"});
  append(body);
  body.output("on", kBool).output("t").output("more");
  m.input("x", {2}).input("n", {}, kInt64).small("true", {}, kBool, {1});
  m.node(before.empty() ? "SequenceEmpty" : "SequenceConstruct", before, {"start"});
  return m.node("Loop", {"n", "true", "x", "start"}, {"last", "all"}, {subgraph("body", body.graph())}, "loop");
}
void appendOne(Model& body) { body.node("SequenceInsert", {"list", "t"}, {"more"}); }

std::vector<float> runOften(const Graph& g, const std::vector<float>& x, int64_t rounds) {
  auto out = interpret(g, std::vector{Tensor::ofFloats({2}, x), Tensor::ofInts({}, std::vector{rounds})});
  EXPECT_TRUE(out) << out.error().render();
  return out->at(0).toFloats();
}

TEST(OnnxControl, SequencesGrowInLoopsOfAnyLength) {
  for (const auto& [axis, newAxis, wanted] : {std::tuple(0, 1, std::vector<float>{2, 4, 3, 6, 4, 8}),
                                              {-1, 1, std::vector<float>{2, 3, 4, 4, 6, 8}},
                                              {0, 0, std::vector<float>{2, 4, 3, 6, 4, 8}}}) {
    Model m = collecting(appendOne);
    m.node("ConcatFromSequence", {"all"}, {"y"}, {integer("axis", axis), integer("new_axis", newAxis)}).output("y");
    const Graph g = imported(m);
    EXPECT_EQ(runOften(g, {1, 2}, 3), wanted);
    EXPECT_EQ(runOften(g, {1, 2}, 0).size(), 0U);
  }
  // Two in a round, behind one that is there before; read by place, and counted.
  Model m = collecting(
      [](Model& body) {
        body.node("Neg", {"t"}, {"u"}).node("SequenceInsert", {"list", "t"}, {"one"}).node("SequenceInsert", {"one", "u"}, {"two"});
        body.node("Identity", {"two"}, {"more"});
      },
      {"x"});
  m.int64s("third", {}, {3}).node("SequenceAt", {"all", "third"}, {"element"}).node("SequenceLength", {"all"}, {"length"});
  m.node("Cast", {"length"}, {"real"}, {integer("to", onnx::TensorProto::FLOAT)}).node("Mul", {"element", "real"}, {"y"}).output("y");
  EXPECT_THAT(runOften(imported(m), {1, 2}, 2), ElementsAre(3 * 5, 6 * 5));
}

// Elements of a dim of any size.
TEST(OnnxControl, SequencesOfAnyLengthAreReadByPlace) {
  Model m, body;
  body.input("i", {}, kInt64).input("goes", {}, kBool).input("s", {1, 2});
  body.node("SequenceAt", {"rows", "i"}, {"row"}).node("Sub", {"row", "s"}, {"t"}).node("Identity", {"goes"}, {"on"});
  body.output("on", kBool).output("t");
  m.input("x", {-1, 2}).small("true", {}, kBool, {1}).floats("zero", {1, 2}, {0, 0});
  m.node("SplitToSequence", {"x"}, {"rows"}).node("SequenceLength", {"rows"}, {"count"});
  m.node("Loop", {"count", "true", "zero"}, {"y"}, {subgraph("body", body.graph())}, "loop").output("y");
  const Graph g = imported(m, {.freeDims = true});
  const Tensor x = Tensor::ofFloats({3, 2}, std::vector<float>{1, 2, 3, 4, 5, 6});
  const auto out = interpret(boundGraph(g, {{"x", {3, 2}}}).value(), std::vector{x});
  ASSERT_TRUE(out) << out.error().render();
  EXPECT_THAT(out->at(0).toFloats(), ElementsAre(5 - (3 - 1), 6 - (4 - 2)));
}

TEST(OnnxControl, WhatALoopDoesWithSequencesBesideAppendingIsNamed) {
  const auto error = [](const std::function<void(Model&)>& append) {
    Model m = collecting(append);
    return errorOf(m.node("ConcatFromSequence", {"all"}, {"y"}, {integer("axis", 0)}).output("y"));
  };
  const auto more = AllOf(HasSubstr("node 'loop'"), HasSubstr("more with 'list'"), HasSubstr("help:"));
  EXPECT_THAT(error([](Model& body) { body.node("SequenceInsert", {"list", "t", "i"}, {"more"}); }), more);
  EXPECT_THAT(error([](Model& body) { body.node("Identity", {"list"}, {"more"}); }), more);
  EXPECT_THAT(error([](Model& body) {
                appendOne(body);
                body.node("SequenceLength", {"list"}, {"length"});
              }),
              more);
  EXPECT_THAT(error([](Model& body) {
                appendOne(body);
                body.node("SequenceLength", {"more"}, {"length"});
              }),
              more);
  EXPECT_THAT(error([](Model& body) {
                body.node("Cast", {"i"}, {"f"}, {integer("to", onnx::TensorProto::FLOAT)}).node("Greater", {"t", "f"}, {"mask"});
                body.node("Compress", {"t", "mask"}, {"some"}).node("SequenceInsert", {"list", "some"}, {"more"});
              }),
              AllOf(HasSubstr("node 'loop'"), HasSubstr("unlike sizes")));
}

TEST(OnnxControl, SequencesThatDoNotFitAreRefused) {
  const auto error = [](const std::function<void(Model&)>& add) {
    Model m;
    m.input("x", {2, 5}).int64s("far", {}, {7}).int64s("sizes", {2, 2});
    m.node("SplitToSequence", {"x"}, {"parts"}, {}, "split");
    add(m);
    return errorOf(m.output("y"));
  };
  EXPECT_THAT(error([](Model& m) { m.node("SequenceAt", {"parts", "far"}, {"y"}); }), HasSubstr("position 7 of a sequence of 2"));
  EXPECT_THAT(error([](Model& m) { m.node("Relu", {"parts"}, {"y"}, {}, "relu"); }), AllOf(HasSubstr("'relu'"), HasSubstr("sequence")));
  EXPECT_THAT(error([](Model& m) { m.node("SequenceLength", {"x"}, {"y"}); }), HasSubstr("not a sequence"));
  EXPECT_THAT(error([](Model& m) { m.node("SplitToSequence", {"x", "sizes"}, {"y"}, {integer("axis", 1)}); }), HasSubstr("do not add up"));
  EXPECT_THAT(error([](Model& m) { m.node("Identity", {"parts"}, {"y"}); }), HasSubstr("an output that is a sequence"));
}

// ---- functions --------------------------------------------------------------------------------------------------------------

onnx::FunctionProto& function(Model& m, const std::string& name, const std::vector<std::string>& inputs, const std::string& output) {
  auto& f = *m.proto().add_functions();
  f.set_domain("my.lib");
  f.set_name(name);
  f.add_opset_import()->set_version(13);
  for (const auto& i : inputs) f.add_input(i);
  f.add_output(output);
  return f;
}

onnx::NodeProto& node(onnx::FunctionProto& f, const std::string& op, const std::vector<std::string>& inputs, const std::string& output,
                      const std::string& domain = "") {
  auto& n = *f.add_node();
  n.set_op_type(op);
  n.set_domain(domain);
  for (const auto& i : inputs) n.add_input(i);
  n.add_output(output);
  return n;
}

// Leaky(x) with attribute `slope`, 0.5 unless the call says otherwise: a field that came after the ONNX library's version.
void addLeaky(Model& m) {
  auto& f = function(m, "Leaky", {"x"}, "y");
  auto& n = node(f, "LeakyRelu", {"x"}, "y");
  auto alpha = real("alpha", 0);
  alpha.set_ref_attr_name("slope");
  alpha.clear_f();
  *n.add_attribute() = alpha;
  *f.mutable_unknown_fields()->AddLengthDelimited(11) = real("slope", 0.5f).SerializeAsString();
}

TEST(OnnxFunctions, AreInlinedWithTheirAttributes) {
  Model m;
  addLeaky(m);
  node(function(m, "Twice", {"x", "unused"}, "z"), "Leaky", {"x"}, "z", "my.lib");
  m.input("x", {2}).node("Twice", {"x"}, {"a"}, {}, "first", "my.lib");
  m.node("Leaky", {"a"}, {"y"}, {real("slope", 0.25f)}, "second", "my.lib").output("y");
  const Graph g = imported(m);
  EXPECT_THAT(run(g, {4, -4}), ElementsAre(4, -0.5f));
  EXPECT_THAT(print(g, {.locations = true}), AllOf(HasSubstr("%a = leaky_relu"), HasSubstr("first/")));
}

TEST(OnnxFunctions, ThatCallThemselvesAreRefused) {
  Model m;
  node(function(m, "A", {"x"}, "y"), "B", {"x"}, "y", "my.lib");
  node(function(m, "B", {"x"}, "y"), "A", {"x"}, "y", "my.lib");
  m.input("x", {2}).node("A", {"x"}, {"y"}, {}, "call", "my.lib").output("y");
  EXPECT_THAT(errorOf(m), AllOf(HasSubstr("'A' calls itself"), HasSubstr("call")));
}

TEST(OnnxFunctions, ThatUnfoldWithoutEndAreRefused) {
  Model m;  // each calls the one before twice: 2^40 nodes
  node(function(m, "F0", {"x"}, "y"), "Relu", {"x"}, "y");
  for (int i = 1; i <= 40; ++i) {
    auto& f = function(m, "F" + std::to_string(i), {"x"}, "y");
    node(f, "F" + std::to_string(i - 1), {"x"}, "t", "my.lib");
    node(f, "F" + std::to_string(i - 1), {"t"}, "y", "my.lib");
  }
  m.input("x", {2}).node("F40", {"x"}, {"y"}, {}, "call", "my.lib").output("y");
  EXPECT_THAT(errorOf(m), HasSubstr("unfold into more than"));
  Model deep;
  node(function(deep, "F0", {"x"}, "y"), "Relu", {"x"}, "y");
  for (int i = 1; i <= 3000; ++i)
    node(function(deep, "F" + std::to_string(i), {"x"}, "y"), "F" + std::to_string(i - 1), {"x"}, "y", "my.lib");
  deep.input("x", {2}).node("F3000", {"x"}, {"y"}, {}, "call", "my.lib").output("y");
  EXPECT_THAT(errorOf(deep), HasSubstr("deep"));
}

TEST(OnnxFunctions, WhatTheyLackIsNamed) {
  Model m;
  node(function(m, "F", {"x"}, "y"), "Frobnicate", {"x"}, "y");
  m.input("x", {2}).node("F", {"x"}, {"y"}, {}, "call", "my.lib").output("y");
  EXPECT_THAT(errorOf(m), HasSubstr("Frobnicate"));
  Model opset;
  auto& f = function(opset, "F", {"x"}, "y");
  f.mutable_opset_import(0)->set_version(99);
  node(f, "Relu", {"x"}, "y");
  opset.input("x", {2}).node("F", {"x"}, {"y"}, {}, "call", "my.lib").output("y");
  EXPECT_THAT(errorOf(opset), HasSubstr("function 'F' is of opset 99"));
  Model missing;
  node(function(missing, "F", {"x"}, "z"), "Relu", {"x"}, "y");
  missing.input("x", {2}).node("F", {"x"}, {"y"}, {}, "call", "my.lib").output("y");
  EXPECT_THAT(errorOf(missing), AllOf(HasSubstr("'call'"), HasSubstr("does not compute")));
}

// ---- order, unread results, symbols ------------------------------------------------------------------------------------------

TEST(OnnxOrder, NodesMayStandInAnyOrder) {
  Model m, branch;
  branch.node("Relu", {"late"}, {"t"}).output("t");
  m.input("x", {2}).small("on", {}, kBool, {1});
  m.node("Neg", {"b"}, {"y"}).node("If", {"on"}, {"b"}, {subgraph("then_branch", branch.graph()), subgraph("else_branch", branch.graph())});
  m.node("Neg", {"x"}, {"late"}).output("y");
  EXPECT_THAT(run(imported(m), {1, -2}), ElementsAre(0, -2));
}

TEST(OnnxOrder, CirclesAreNamed) {
  Model m;
  m.input("x", {2}).node("Add", {"x", "c"}, {"a"}, {}, "first").node("Relu", {"a"}, {"b"}, {}, "second");
  m.node("Neg", {"b"}, {"c"}, {}, "third").node("Neg", {"c"}, {"y"}, {}, "after").output("y");
  EXPECT_THAT(errorOf(m),
              AllOf(HasSubstr("circle"), HasSubstr("'first'"), HasSubstr("'second'"), HasSubstr("'third'"), Not(HasSubstr("after"))));
}

TEST(OnnxOutputs, ThatNobodyReadsAreNotAskedFor) {
  Model m;
  m.input("x", {1, 2, 4, 4}).floats("c", {2}).node("BatchNormalization", {"x", "c", "c", "c", "c"}, {"p", "mean"}, {}, "norm");
  m.node("Dropout", {"p"}, {"y", "mask"}).output("y");
  EXPECT_EQ(errorOf(m), "imported");
  m.output("mean");
  EXPECT_THAT(errorOf(m), AllOf(HasSubstr("'norm'"), HasSubstr("'mean'")));
}

TEST(OnnxShapes, SymbolsBindEveryInputThatNamesThem) {
  Model m;
  m.input("ids", {-1, -2}).input("mask", {-1, -2}).node("Add", {"ids", "mask"}, {"y"}).output("y");
  for (const std::map<std::string, Ints>& shapes :
       {std::map<std::string, Ints>{{"N2", {7}}}, {{"ids", {1, 7}}}, {{"mask", {1, 7}}}, {{"mask", {1, 7}}, {"N2", {7}}}}) {
    const Graph g = imported(m, {.shapes = shapes});
    for (const Value* v : g.inputs()) EXPECT_THAT(v->type().sizes(), ElementsAre(1, 7));
  }
  EXPECT_THAT(imported(m, {.shapes = {{"N1", {3}}, {"N2", {7}}}}).inputs()[1]->type().sizes(), ElementsAre(3, 7));
  EXPECT_THAT(errorOf(m), AllOf(HasSubstr("'ids'"), HasSubstr("'mask'"), HasSubstr("N2=N")));
  EXPECT_THAT(errorOf(m, {.shapes = {{"ids", {1, 7}}, {"mask", {1, 8}}}}),
              AllOf(HasSubstr("'N2'"), HasSubstr("ids=1x7"), HasSubstr("mask=1x8")));
  EXPECT_THAT(errorOf(m, {.shapes = {{"N2", {7, 8}}}}), HasSubstr("one symbol"));
  EXPECT_THAT(errorOf(m, {.shapes = {{"N3", {7}}}}), AllOf(HasSubstr("N3"), HasSubstr("N2")));
}

}  // namespace
}  // namespace qc
