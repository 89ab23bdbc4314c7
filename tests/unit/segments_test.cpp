// The cutter: a graph whose data decides sizes becomes graphs that run one after another.  What they compute is in golden/deciding and the
// differential tests; here is how they are cut, and what is refused.
#include "passes/lower/segments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ir/interp.h"
#include "ir/text.h"
#include "ir/verify.h"
#include "passes/lower/bound_graph.h"

namespace qc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Tensors = CutGraph::Tensors;

Graph parsed(const std::string& text) {
  auto graph = parseGraph(text, "test");
  EXPECT_TRUE(graph) << (graph ? "" : graph.error().render());
  return std::move(*graph);
}

CutGraph cut(const std::string& text) {
  auto made = cutAtDecidedSizes(parsed(text));
  EXPECT_TRUE(made) << (made ? "" : made.error().render());
  return std::move(*made);
}

std::vector<std::string> inputsOf(const Segment& s) {
  std::vector<std::string> names;
  for (const Value* v : s.graph.inputs()) names.push_back(v->name());
  return names;
}

std::vector<bool> kindsOf(const CutGraph& c) {
  std::vector<bool> decides;
  for (const Segment& s : c.segments) {
    decides.push_back(s.decides);
    const Status sound = verify(s.graph);
    EXPECT_TRUE(sound) << sound.error().render();
  }
  return decides;
}

// By the interpreter, a segment at the sizes that came out.
Result<Tensors> ranSegment(const Graph& graph, const Tensors& own) {
  std::map<std::string, std::vector<int64_t>> shapes;
  std::vector<Tensor> in;
  for (const Value* v : graph.inputs()) {
    shapes[v->name()] = own.at(v->name()).sizes();
    in.push_back(own.at(v->name()));
  }
  QC_ASSIGN(const Graph bound, boundGraph(graph, shapes));
  QC_ASSIGN(const std::vector<Tensor> results, interpret(bound, in));
  Tensors out;
  for (size_t k = 0; k < results.size(); ++k) out.emplace(graph.outputNames()[k], results[k]);
  return out;
}
Result<Tensors> ran(const CutGraph& c, const Tensors& inputs) {
  return c.run(inputs, [&](size_t i, const Tensors& own) { return ranSegment(c.segments[i].graph, own); });
}

constexpr const char* kFound = R"(
const #two : f32[1] = [2.0]
graph @found(%x: f32[T]) -> ("places", "twice", "two") {
  %two = const #two : f32[1]
  %r = relu %x : f32[T]
  %n = nonzero %r {sizes=[n]} : s64[1,n]
  %p = reshape %n {shape=[n]} : s64[n]
  %g = gather %x, %p {axis=0} : f32[n]
  %y = mul %g, %two : f32[n]
  return %n, %y, %two
}
)";

TEST(Segments, InFrontOfWhatDecidesItAndBehind) {
  const CutGraph c = cut(kFound);
  EXPECT_THAT(kindsOf(c), ElementsAre(false, true, false));
  EXPECT_THAT(inputsOf(c.segments[0]), ElementsAre("x"));
  EXPECT_THAT(inputsOf(c.segments[1]), ElementsAre("r"));
  EXPECT_THAT(c.outputs, ElementsAre("places", "twice", "two"));
  const auto out = ran(c, {{"x", Tensor::ofFloats({4}, std::vector{1.0f, -1.0f, 0.0f, 3.0f})}});
  ASSERT_TRUE(out) << out.error().render();
  EXPECT_THAT(out->at("twice").toFloats(), ElementsAre(2.0f, 6.0f));
  EXPECT_THAT(out->at("places").toInts(), ElementsAre(0, 3));
  EXPECT_THAT(out->at("two").toFloats(), ElementsAre(2.0f)) << "a constant is an output of no segment";
}

TEST(Segments, OfNothingFound) {
  const CutGraph c = cut(kFound);
  for (const int64_t length : {0, 1, 5}) {
    const auto out = ran(c, {{"x", Tensor::ofFloats({length}, std::vector<float>(usize(length), -1.0f))}});
    ASSERT_TRUE(out) << out.error().render();
    EXPECT_EQ(out->at("twice").numElements(), 0);
  }
}

// A size that no operand shows comes in by itself, as a tensor without elements.
TEST(Segments, ASizeThatIsNotShown) {
  const CutGraph c = cut(R"(
const #one : f32[] = [1.0]
graph @g(%x: f32[3], %"size of n": f32[2]) -> ("y", "z") {
  %one = const #one : f32[]
  %n = nonzero %x {sizes=[n]} : s64[1,n]
  %y = expand %one {shape=[n,2]} : f32[n,2]
  %z = relu %"size of n" : f32[2]
  return %y, %z
}
)");
  ASSERT_EQ(c.segments.size(), 3u);
  EXPECT_THAT(inputsOf(c.segments.back()), ElementsAre("size of n'")) << "the name is taken already";
  const auto out =
      ran(c, {{"x", Tensor::ofFloats({3}, std::vector{1.0f, 0.0f, 3.0f})}, {"size of n", Tensor::ofFloats({2}, std::vector{1.0f, 2.0f})}});
  ASSERT_TRUE(out) << out.error().render();
  EXPECT_THAT(out->at("y").sizes(), ElementsAre(2, 2));
}

// Nodes that decide independently of one another stand side by side; one that reads what another decides comes behind it.
TEST(Segments, SeveralThatDecide) {
  const CutGraph c = cut(R"(
graph @g(%x: f32[3], %m: bool[3]) -> ("a", "b", "c") {
  %a = nonzero %x {sizes=[n]} : s64[1,n]
  %b = compress %x, %m {sizes=[k]} : f32[k]
  %c = nonzero %b {sizes=[l]} : s64[1,l]
  return %a, %b, %c
}
)");
  EXPECT_THAT(kindsOf(c), ElementsAre(true, true, true));
  Tensor mask(DType::boolean, {3});
  for (int i = 0; i < 3; ++i) storeElement(DType::boolean, mask.mutableData(), i, i > 0 ? 1 : 0);
  const auto out = ran(c, {{"x", Tensor::ofFloats({3}, std::vector{1.0f, 0.0f, 3.0f})}, {"m", mask}});
  ASSERT_TRUE(out) << out.error().render();
  EXPECT_EQ(out->at("a").sizes().back(), 2);
  EXPECT_EQ(out->at("b").sizes().back(), 2);
  EXPECT_THAT(out->at("c").toInts(), ElementsAre(1));
}

// What is packed for one segment serves the others: they hold the bytes of the whole graph's constants.
TEST(Segments, ShareTheConstants) {
  const Graph graph = parsed(kFound);
  const auto made = cutAtDecidedSizes(graph);
  ASSERT_TRUE(made) << made.error().render();
  const Graph behind = made->segments.back().graph.clone();
  ASSERT_EQ(behind.constants().entries().size(), 1u);
  EXPECT_EQ(behind.constants().entries().begin()->second.data(), graph.findValue("two")->constant()->data());
}

TEST(Segments, WhatNobodyReadsIsLeftOut) {
  const CutGraph c = cut(R"(
graph @g(%x: f32[3]) -> ("a") {
  %r = relu %x : f32[3]
  %s = relu %r : f32[3]
  %a = nonzero %x {sizes=[n]} : s64[1,n]
  return %a
}
)");
  EXPECT_THAT(kindsOf(c), ElementsAre(true));
}

TEST(Segments, WithoutAnythingToDecideThereIsOne) {
  EXPECT_THAT(kindsOf(cut("graph @g(%x: f32[T]) {\n  %r = relu %x : f32[T]\n  return %r\n}\n")), ElementsAre(false));
}

TEST(Segments, InputsThatDoNotFit) {
  const CutGraph c = cut(kFound);
  const auto said = [&](const Tensors& inputs) {
    const auto out = ran(c, inputs);
    return out ? std::string("nothing") : out.error().render();
  };
  const Tensor x = Tensor::ofFloats({2}, std::vector{1.0f, 2.0f});
  EXPECT_THAT(said({}), HasSubstr("no shape is given for this input"));
  EXPECT_THAT(said({{"x", x}, {"other", x}}), HasSubstr("the model has no such input"));
  EXPECT_THAT(said({{"x", Tensor::ofInts({2}, std::vector<int64_t>{1, 2})}}), HasSubstr("input is s64[2], expected f32[T]"));
  EXPECT_THAT(said({{"x", Tensor::ofFloats({1, 2}, std::vector{1.0f, 2.0f})}}), HasSubstr("[1,2] was given"));
}

// ---- branches that data decides -----------------------------------------------------------------

Tensor truth(bool value) {
  Tensor t(DType::boolean, {1});
  storeElement(DType::boolean, t.mutableData(), 0, value ? 1 : 0);
  return t;
}

// "c=1,d=0" for each segment.
std::vector<std::string> guardsIn(const CutGraph& c) {
  std::vector<std::string> all;
  for (const Segment& s : c.segments) {
    std::string text;
    for (const auto& [condition, side] : s.guards) text += fmt::format("{}{}={}", text.empty() ? "" : ",", condition, side ? 1 : 0);
    all.push_back(std::move(text));
  }
  return all;
}

constexpr const char* kNested = R"(
graph @nested(%c: bool[1], %d: bool[1], %x: f32[T]) -> ("y", "shared") {
  %s = relu %x : f32[T]
  %in_both = add %s, %x : f32[T]
  %t = exp %in_both : f32[T]
  %e = neg %in_both : f32[T]
  %i = choose %d, %t, %e {axes=[], sizes=[]} : f32[T]
  %a = add %i, %s : f32[T]
  %p = nonzero %x {sizes=[n]} : s64[1,n]
  %q = reshape %p {shape=[n]} : s64[n]
  %b = gather %x, %q {axis=0} : f32[n]
  %y = choose %c, %a, %b {axes=[0], sizes=[k]} : f32[k]
  return %y, %s
}
)";

TEST(SegmentsOfBranches, AreGuarded) {
  const CutGraph c = cut(kNested);
  EXPECT_THAT(kindsOf(c), ElementsAre(false, false, false, false, true, true, false, false, true));
  // What both need; of each branch what is in front of what decides in it; that; what is behind; and which of the two is taken.
  EXPECT_THAT(guardsIn(c), ElementsAre("", "c=1", "c=1,d=1", "c=1,d=0", "c=1", "c=0", "c=1", "c=0", ""));
}

// The segments that have run, by the values that they give, and what came out.
std::string ranOf(const CutGraph& c, bool first, bool second, Tensors& out) {
  std::string names;
  const Tensors inputs = {{"c", truth(first)}, {"d", truth(second)}, {"x", Tensor::ofFloats({3}, std::vector{1.0f, 0.0f, -2.0f})}};
  const auto run = c.run(inputs, [&](size_t i, const Tensors& own) {
    for (const std::string& name : c.segments[i].graph.outputNames()) names += name + " ";
    return ranSegment(c.segments[i].graph, own);
  });
  EXPECT_TRUE(run) << (run ? "" : run.error().render());
  if (run) out = *run;
  return names;
}

TEST(SegmentsOfBranches, OfOneThatIsNotTakenNothingRuns) {
  const CutGraph c = cut(kNested);
  Tensors out;
  EXPECT_EQ(ranOf(c, true, true, out), "s in_both t a ");
  EXPECT_THAT(out.at("y").toFloats(), ElementsAre(std::exp(2.0f) + 1, 1.0f, std::exp(-2.0f)));
  EXPECT_EQ(ranOf(c, true, false, out), "s in_both e a ");
  EXPECT_THAT(out.at("y").toFloats(), ElementsAre(-1.0f, 0.0f, 2.0f));
  for (const bool second : {true, false}) {
    EXPECT_EQ(ranOf(c, false, second, out), "s b ");
    EXPECT_THAT(out.at("y").toFloats(), ElementsAre(1.0f, -2.0f));
    EXPECT_THAT(out.at("shared").toFloats(), ElementsAre(1.0f, 0.0f, 0.0f));
  }
}

// Outputs that are only looked at have no elements where their branch is not taken; the others are computed always.
TEST(SegmentsOfBranches, WhatIsLookedAt) {
  Graph graph = parsed(kNested);
  std::vector<Value*> outputs = graph.outputs();
  for (const char* name : {"e", "b", "s"}) outputs.push_back(graph.findValue(name));
  graph.setOutputs(outputs);
  graph.setOutputNames({"y", "shared", "e", "b", "again"});
  const auto looked = cutAtDecidedSizes(graph, 2);
  ASSERT_TRUE(looked) << looked.error().render();
  Tensors out;
  EXPECT_EQ(ranOf(*looked, true, true, out), "s in_both t a ");
  EXPECT_EQ(out.at("e").sizes(), std::vector<int64_t>{0});
  EXPECT_EQ(out.at("b").dtype(), DType::f32);
  EXPECT_THAT(out.at("again").toFloats(), ElementsAre(1.0f, 0.0f, 0.0f));
  ranOf(*looked, true, false, out);
  EXPECT_THAT(out.at("e").toFloats(), ElementsAre(-2.0f, 0.0f, 2.0f));
  const auto needed = cutAtDecidedSizes(graph);
  ASSERT_TRUE(needed) << needed.error().render();
  ranOf(*needed, true, true, out);
  EXPECT_THAT(out.at("e").toFloats(), ElementsAre(-2.0f, 0.0f, 2.0f));
  EXPECT_THAT(out.at("b").toFloats(), ElementsAre(1.0f, -2.0f));
}

// What leads nowhere is there where its operands are.
TEST(SegmentsOfBranches, WhatIsLookedAtAlone) {
  const Graph graph = parsed(R"(
graph @g(%c: bool[1], %x: f32[T]) -> ("y", "seen", "always") {
  %a = exp %x : f32[T]
  %seen = neg %a : f32[T]
  %always = relu %x : f32[T]
  %b = neg %x : f32[T]
  %y = choose %c, %a, %b {axes=[], sizes=[]} : f32[T]
  return %y, %seen, %always
}
)");
  const auto looked = cutAtDecidedSizes(graph, 1);
  ASSERT_TRUE(looked) << looked.error().render();
  EXPECT_THAT(guardsIn(*looked), ElementsAre("", "c=1", "c=0", ""));
}

// A condition that is computed runs first; one that stands behind what it could guard guards nothing.
TEST(SegmentsOfBranches, ConditionsThatAreComputed) {
  const CutGraph c = cut(R"(
graph @g(%c: bool[1], %x: f32[3]) -> ("y") {
  %early = exp %x : f32[3]
  %n = not %c : bool[1]
  %late = neg %x : f32[3]
  %y = choose %n, %early, %late {axes=[], sizes=[]} : f32[3]
  return %y
}
)");
  EXPECT_THAT(kindsOf(c), ElementsAre(false, false, true));
  EXPECT_THAT(guardsIn(c), ElementsAre("", "n=0", ""));
}

TEST(SegmentsOfBranches, AConditionThatIsNotOne) {
  const CutGraph c = cut(R"(
graph @g(%c: bool[N], %x: f32[3]) -> ("y") {
  %a = exp %x : f32[3]
  %b = neg %x : f32[3]
  %y = choose %c, %a, %b {axes=[], sizes=[]} : f32[3]
  return %y
}
)");
  const auto out = ran(c, {{"c", Tensor(DType::boolean, {0})}, {"x", Tensor::ofFloats({3}, std::vector{1.0f, 2.0f, 3.0f})}});
  ASSERT_FALSE(out);
  EXPECT_THAT(out.error().render(), HasSubstr("a condition is bool[0]"));
  EXPECT_EQ(out.error().tensor(), "c");
}

// What a caller may build, though no text says it.
TEST(Segments, ASizeThatNothingDecides) {
  Graph graph;
  Value* x = graph.addInput("x", TensorType(DType::f32, {3}));
  Node* relu = graph.insert(OpRegistry::get().at("relu"), {x}, {}, {TensorType(DType::f32, {Dim::symbol("n")})});
  relu->setLocation("/relu");
  graph.setOutputs({relu->result()});
  const auto made = cutAtDecidedSizes(graph);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().render(), HasSubstr("the size 'n' is decided by nothing in front of this node"));
  EXPECT_EQ(made.error().node(), "/relu");
}

}  // namespace
}  // namespace qc
