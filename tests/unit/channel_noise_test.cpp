#include "passes/channel_noise.h"

#include <gtest/gtest.h>

#include "ir/text.h"

namespace qc {
namespace {

Graph linearOf32() {
  auto graph = parseGraph(R"(const #w : f32[16,32] = rand(1, -1.0, 1.0)
graph @g(%x: f32[8,32]) -> ("y") {
  %w = const #w : f32[16,32]
  %y = linear %x, %w : f32[8,16]
  return %y
})");
  EXPECT_TRUE(graph) << graph.error().render();
  return std::move(*graph);
}

ChannelStatistics evenChannels() {
  ChannelStatistics x;
  for (int c = 0; c < 32; ++c) {
    x.min.push_back(-1);
    x.max.push_back(1);
    x.square.push_back(0.1);
  }
  return x;
}

TEST(ChannelNoise, EvenChannelsStay) {
  const Graph graph = linearOf32();
  EXPECT_TRUE(bestFactors({graph.back()}, evenChannels(), 0.8).empty());
}

TEST(ChannelNoise, OneOutlierIsLimitedAlone) {
  const Graph graph = linearOf32();
  ChannelStatistics x = evenChannels();
  x.max[5] = 40;  // rarely: its mean square is that of the others
  const std::vector<double> s = bestFactors({graph.back()}, x, 0.8);
  ASSERT_EQ(s.size(), 32u);
  EXPECT_GT(s[5], 4);
  for (size_t c = 0; c < s.size(); ++c) {
    if (c != 5) {
      EXPECT_EQ(s[c], 1.0) << c;
    }
  }
}

}  // namespace
}  // namespace qc
