// Batches: code and packed weights of one serve all, at the bits of a program that was made for that batch; and what batches are made of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "ir/text.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "runtime/any_batch.h"
#include "runtime/specialize.h"

namespace qc {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Tensor normal(const std::vector<int64_t>& sizes, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> draw;
  Tensor t(DType::f32, sizes);
  for (float& x : t.mutableAs<float>()) x = draw(random);
  return t;
}

Graph parsed(const std::string& text) {
  auto graph = parseGraph(text, "test");
  EXPECT_TRUE(graph) << (graph ? "" : graph.error().render());
  return std::move(*graph);
}

// A convolution on padded lines, one per channel, one of single pixels, pools, interpolation, and a sequence of the lines.
constexpr const char* kImages = R"(
const #a : f32[16,3,3,3] = rand(1, -0.5, 0.5)
const #d : f32[16,1,3,3] = rand(2, -0.5, 0.5)
const #p : f32[8,16,1,1] = rand(3, -0.5, 0.5)
const #w : f32[1,24,8] = rand(4, -0.5, 0.5)
const #u : f32[1,24,6] = rand(5, -0.5, 0.5)
graph @net(%x: f32[N,3,12,20]) -> ("y", "z") {
  %a = const #a : f32[16,3,3,3]
  %d = const #d : f32[16,1,3,3]
  %p = const #p : f32[8,16,1,1]
  %w = const #w : f32[1,24,8]
  %u = const #u : f32[1,24,6]
  %0 = conv %x, %a {pads=[1,1,1,1]} : f32[N,16,12,20]
  %1 = relu %0 : f32[N,16,12,20]
  %2 = conv %1, %d {group=16, pads=[1,1,1,1], strides=[2,2]} : f32[N,16,6,10]
  %3 = relu %2 : f32[N,16,6,10]
  %4 = max_pool %3 {kernel_shape=[2,2], strides=[1,1]} : f32[N,16,5,9]
  %5 = resize %4 {sizes=[N,16,10,18], scales=[1.0,1.0,2.0,2.0], mode="linear"} : f32[N,16,10,18]
  %6 = conv %5, %p : f32[N,8,10,18]
  %7 = avg_pool %6 {kernel_shape=[3,3], strides=[2,2]} : f32[N,8,4,8]
  %8 = reduce_mean %7 {axes=[2], keepdims=0} : f32[N,8,8]
  %9 = transpose %8 {perm=[2,0,1]} : f32[8,N,8]
  %10, %11, %12 = lstm %9, %w, %u {hidden_size=6} : f32[8,1,N,6], f32[1,N,6], f32[1,N,6]
  return %7, %11
}
)";

Graph quantized(Graph graph) {
  PassContext cx;
  const Status done = runPipeline("simplify,annotate,prepare,convert{range=[-2.0,2.0]}", graph, cx);
  EXPECT_TRUE(done) << (done ? "" : done.error().render());
  return graph;
}

class Batches : public ::testing::TestWithParam<bool> {};

TEST_P(Batches, ShareWeightsAndCode) {
  const Model model(GetParam() ? quantized(parsed(kImages)) : parsed(kImages), "images");
  Specializer specializer(Model(model.graph().clone(), "images"));
  std::map<std::string, const void*> packed;
  const Tensor all = normal({32, 3, 12, 20}, 7);
  std::vector<int> compiled;
  std::vector<int64_t> batches{3, 1, 2, 7, 16, 32};
  for (int64_t batch = 17; batch < 25; ++batch) batches.push_back(batch);
  for (const int64_t batch : batches) {
    Tensor x(DType::f32, {batch, 3, 12, 20});
    std::memcpy(x.mutableData(), all.data(), usize(x.byteSize()));
    const TensorMap inputs{{"x", x}};
    const auto exe = specializer.executableFor(inputs);
    ASSERT_TRUE(exe) << exe.error().render();
    const Program& program = (*exe)->program();
    compiled.push_back(program.uniqueKernels() - program.cachedKernels());
    for (const auto& [name, tensor] : program.graph().constants().entries()) {
      if (!name.ends_with(".packed") || name.starts_with("w")) continue;  // of a few rows products take another form
      const auto [known, isNew] = packed.emplace(name, tensor.data());
      EXPECT_TRUE(isNew ? batch == 3 : known->second == tensor.data()) << name << " is packed anew for " << batch;
    }
    const auto own = compile(Model(boundGraph(model.graph(), shapesOf(inputs)).value(), "own"));
    ASSERT_TRUE(own) << own.error().render();
    for (const int threads : {1, 2}) {
      const auto want = own->session()->run(inputs), got = (*exe)->session({.threads = threads})->run(inputs);
      ASSERT_TRUE(want && got);
      for (const auto& [name, tensor] : *want) EXPECT_TRUE(got->at(name).sameBytes(tensor)) << name << " at " << batch;
    }
  }
  EXPECT_GT(compiled.front(), 5);
  EXPECT_EQ(std::accumulate(compiled.end() - 8, compiled.end(), 0), 0) << "batches that differ in nothing have code of their own";
}

INSTANTIATE_TEST_SUITE_P(FloatAndInt8, Batches, ::testing::Bool());

Shape shape(const std::string& text) {
  return parsed(fmt::format("graph @g(%x: f32[{}]) {{\n  return %x\n}}\n", text)).inputs()[0]->type().shape;
}

TEST(BatchAsked, ByShapesOfInputs) {
  const std::map<std::string, Shape> inputs{{"x", shape("1,3,8")}, {"h", shape("2,1,4")}, {"m", shape("1,T")}};
  const auto asked = batchAsked(inputs, {{"x", {7, 3, 8}}, {"h", {2, 7, 4}}, {"m", {1, 5}}});
  ASSERT_TRUE(asked && *asked);
  EXPECT_EQ((*asked)->samples, 7);
  EXPECT_EQ((*asked)->stacked.dims, (std::map<std::string, int>{{"h", 1}, {"m", -1}, {"x", 0}}));
  EXPECT_EQ((*asked)->ofOne, (Shapes{{"h", {2, 1, 4}}, {"m", {1, 5}}, {"x", {1, 3, 8}}}));
  EXPECT_FALSE(*batchAsked(inputs, {{"x", {1, 3, 8}}})) << "one sample";
  EXPECT_FALSE(*batchAsked(inputs, {{"x", {7, 3, 9}}})) << "another size too";
  EXPECT_FALSE(*batchAsked(inputs, {{"x", {7, 3}}}));
  EXPECT_FALSE(*batchAsked(inputs, {}));
  const auto two = batchAsked(inputs, {{"x", {7, 3, 8}}, {"h", {2, 6, 4}}});
  ASSERT_FALSE(two);
  EXPECT_THAT(two.error().render(), HasSubstr("7 samples by dim 0 of 'x', and 6 by dim 1 of 'h'"));
}

TEST(BatchAsked, ByName) {
  EXPECT_EQ((*batchAsked({{"x", shape("1,3")}}, {{"N", {5}}}))->samples, 5);
  EXPECT_FALSE(*batchAsked({{"x", shape("N,3")}}, {{"N", {5}}})) << "the model's own";
  EXPECT_FALSE(*batchAsked({{"x", shape("1,3")}}, {{"batch", {5}}}));
}

TEST(BatchPlaces, OfInputsAndOutputs) {
  const Model model(parsed(kImages), "images");
  const auto places = batchPlaces(model);
  ASSERT_TRUE(places && *places);
  EXPECT_EQ((*places)->inputs, (std::map<std::string, int>{{"x", 0}}));
  EXPECT_EQ((*places)->outputs, (std::map<std::string, int>{{"y", 0}, {"z", 1}}));
  EXPECT_FALSE(*batchPlaces(Model(parsed("graph @g(%x: f32[1,3]) {\n  return %x\n}\n"), "fixed")));
  const auto mean = batchPlaces(Model(
      parsed("graph @g(%x: f32[N,3]) -> (\"m\") {\n  %m = reduce_mean %x {axes=[0], keepdims=0} : f32[3]\n  return %m\n}\n"), "mean"));
  ASSERT_FALSE(mean);
  EXPECT_THAT(mean.error().render(), HasSubstr("'m'"));
}

// Along any dim, and back.
TEST(BatchPlaces, StackedAndApart) {
  const BatchPlaces places{{{"a", 0}, {"b", 1}}, {{"a", 0}, {"b", 1}}};
  std::vector<TensorMap> samples;
  for (unsigned i = 0; i < 3; ++i) samples.push_back({{"a", normal({1, 2}, i)}, {"b", normal({2, 2, 3}, 9 + i)}});
  const auto together = stackedSamples(samples, places);
  ASSERT_TRUE(together);
  EXPECT_THAT(together->at("a").sizes(), ElementsAre(3, 2));
  EXPECT_THAT(together->at("b").sizes(), ElementsAre(2, 6, 3));
  const std::vector<TensorMap> apart = samplesApart(*together, 3, places);
  for (size_t i = 0; i < 3; ++i)
    for (const auto& [name, tensor] : samples[i]) EXPECT_TRUE(apart[i].at(name).sameBytes(tensor)) << name << i;
  EXPECT_FALSE(stackedSamples({{{"a", samples[0].at("a")}}}, places)) << "b is missing";
}

}  // namespace
}  // namespace qc
