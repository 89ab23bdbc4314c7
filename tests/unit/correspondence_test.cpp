// What passes moved, as a graph carries it.
#include "passes/correspondence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ir/text.h"
#include "passes/pass_manager.h"

namespace qc {
namespace {

using ::testing::HasSubstr;

Graph withProperty(const std::string& text) {
  Graph graph;
  ModelInfo info;
  info.properties = {{"author", "me"}, {"qcompile.moved", text}};
  graph.setInfo(std::move(info));
  return graph;
}

TEST(Correspondence, IsReadAsItWasWritten) {
  Graph graph;
  Moves first("equalize_layers"), second("smooth_quant");
  std::vector<float> many;
  for (int i = 0; i < 100; ++i) many.push_back(1.0f / (3.0f + static_cast<float>(i)));
  first.add({{"a/b \"c\"\n", "a/b \"c\"\n"}, {"r", "r"}}, 1, many);
  first.add({});
  first.addTo(graph);
  second.add({{"x_smoothed", "x"}}, 2, {0.5f, 2});
  second.add({{"x_restored", "x"}});
  second.addTo(graph);
  const Graph read = parseGraph(print(graph)).value();
  const auto moves = movesOf(read).value();
  ASSERT_EQ(moves.size(), 3u);
  EXPECT_EQ(moves[0].by, "equalize_layers");
  EXPECT_EQ(moves[0].values[0].value, "a/b \"c\"\n");
  EXPECT_EQ(moves[0].values[1].of, "r");
  EXPECT_EQ(moves[0].axis, 1);
  EXPECT_EQ(moves[0].factors, many) << "every bit";
  EXPECT_EQ(moves[1].values[0].of, "x");
  EXPECT_EQ(moves[1].factors, (std::vector<float>{0.5f, 2}));
  EXPECT_TRUE(moves[2].factors.empty());
}

TEST(Correspondence, OfAFloatModelIsForgotten) {
  Graph graph = withProperty("smooth_quant %a of %b\n");
  forgetMoves(graph);
  EXPECT_TRUE(movesOf(graph).value().empty());
  EXPECT_EQ(graph.info().properties.size(), 1u);
}

// Any file may bring a property of this name.
TEST(Correspondence, OfDamagedFilesIsAnError) {
  for (const char* text : {"7",
                           "equalize_layers",
                           "equalize_layers x",
                           "equalize_layers %x,",
                           "equalize_layers %x of",
                           "equalize_layers %x axis",
                           "equalize_layers %x axis=",
                           "equalize_layers %x axis=-1 f32[1] = [1.0]",
                           "equalize_layers %x axis=99 f32[1] = [1.0]",
                           "equalize_layers %x axis=1 f32[1,1] = [1.0]",
                           "equalize_layers %x axis=1 s8[1] = [1]",
                           "equalize_layers %x axis=1 f32[N] = [1.0]",
                           "equalize_layers %x axis=1 f32[2] = [1.0]",
                           "equalize_layers %x axis=1 f32[1] = [0.0]",
                           "equalize_layers %x axis=1 f32[1] = [-1.0]",
                           "equalize_layers %x axis=1 f32[1] = [nan]",
                           "equalize_layers %x axis=1 f32[1] = [inf]",
                           "equalize_layers %x axis=1 f32[1000000000] = splat 1.0",
                           "equalize_layers %x axis=1 f32[1] = hex\"00\"",
                           "equalize_layers %x axis=1 f32[1] = elided",
                           "equalize_layers %x %y",
                           "\xff\xfe",
                           "equalize_layers %\"x"}) {
    const auto moves = movesOf(withProperty(text));
    ASSERT_FALSE(moves) << text;
    EXPECT_THAT(moves.error().render(), HasSubstr("qcompile.moved:1:")) << text;
  }
  EXPECT_TRUE(movesOf(withProperty("")).value().empty());
}

// Names and factors hold for the float model however often it is simplified on the way.
TEST(Correspondence, IsTrueOfThePassesThatMake) {
  Graph graph = parseGraph(R"(
const #w : f32[2,1,1,1] = [1.0, 2.0]
const #v : f32[1,2,1,1] = [0.5, 0.5]
graph @g(%x: f32[1,1,4,4]) {
  %w = const #w : f32[2,1,1,1]
  %v = const #v : f32[1,2,1,1]
  %h = conv %x, %w : f32[1,2,4,4]
  %r = relu %h : f32[1,2,4,4]
  %y = conv %r, %v : f32[1,1,4,4]
  return %y
})")
                    .value();
  PassContext cx;
  ASSERT_TRUE(runPipeline("equalize-layers{spread=64.0},simplify", graph, cx));
  const auto moves = movesOf(graph).value();
  ASSERT_EQ(moves.size(), 1u);
  const Tensor& w = *graph.findValue("h")->producer()->operand("w")->constant();
  const Tensor& v = *graph.findValue("y")->producer()->operand("w")->constant();
  for (size_t c = 0; c < 2; ++c) {
    EXPECT_NEAR(w.as<float>()[c] / moves[0].factors[c], c + 1.0, 1e-6);
    EXPECT_NEAR(v.as<float>()[c] * moves[0].factors[c], 0.5, 1e-6);
  }
  EXPECT_NE(moves[0].factors[0], moves[0].factors[1]);
}

}  // namespace
}  // namespace qc
