// The cutter: a graph whose data decides sizes becomes graphs that run one after another.  What they compute is in golden/deciding and the
// differential tests; here is how they are cut, and what is refused.
#include "passes/lower/segments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

// By the interpreter, each segment at the sizes that came out.
Result<Tensors> ran(const CutGraph& c, const Tensors& inputs) {
  return c.run(inputs, [&](size_t i, const Tensors& own) -> Result<Tensors> {
    const Graph& graph = c.segments[i].graph;
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
  });
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
