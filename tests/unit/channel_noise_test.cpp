#include "passes/quantize/channel_noise.h"

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
  EXPECT_TRUE(bestFactors({graph.back()}, evenChannels(), 0.8, 255).empty());
}

TEST(ChannelNoise, OneOutlierIsLimitedAlone) {
  const Graph graph = linearOf32();
  ChannelStatistics x = evenChannels();
  x.max[5] = 40;  // rarely: its mean square is that of the others
  const std::vector<double> s = bestFactors({graph.back()}, x, 0.8, 255);
  ASSERT_EQ(s.size(), 32u);
  EXPECT_GT(s[5], 4);
  for (size_t c = 0; c < s.size(); ++c) {
    if (c != 5) {
      EXPECT_EQ(s[c], 1.0) << c;
    }
  }
}

// Quiet channels beside loud ones: worth evening out, unless every share of the samples leaves the range of the others by as much.
ChannelStatistics quietChannels(double strays) {
  ChannelStatistics x = evenChannels();
  for (size_t c = 0; c < 24; ++c) {
    x.min[c] = -0.05f;
    x.max[c] = 0.05f;
    x.square[c] = 0.0003;
  }
  for (size_t k = 0; k < 8; ++k) {
    ChannelStatistics::Share share{x.min, x.max, 8};
    for (size_t c = k; c < 24; c += 8) share.max[c] = static_cast<float>(0.05 * (1 + strays));
    x.shares.push_back(std::move(share));
  }
  for (size_t c = 0; c < 24; ++c) x.max[c] = static_cast<float>(0.05 * (1 + strays));
  return x;
}

TEST(ChannelNoise, WhatNewSamplesCutOffCounts) {
  const Graph graph = linearOf32();
  const std::vector<double> even = bestFactors({graph.back()}, quietChannels(0), 0.8, 255);
  ASSERT_FALSE(even.empty());
  EXPECT_LT(even[0], even[31]);
  // Shares that each raise channels of their own tenfold beyond the loudest: whatever the factors, new samples would be cut off.
  ChannelStatistics strays = quietChannels(200), trusted = strays;
  trusted.shares.clear();
  EXPECT_FALSE(bestFactors({graph.back()}, trusted, 0.95, 255).empty());
  EXPECT_TRUE(bestFactors({graph.back()}, strays, 0.95, 255).empty());
}

TEST(ChannelNoise, OneSampleHasToPromiseMore) {
  const Graph graph = linearOf32();
  ChannelStatistics x = quietChannels(0);
  x.shares.resize(1);
  EXPECT_TRUE(bestFactors({graph.back()}, x, 0.8, 255).empty());
}

// What evens out the value puts weights of unlike size side by side: with few bits these lose more than the value gains.
TEST(ChannelNoise, WeightsOfFewBitsHaveNoRoomForFactors) {
  const Graph graph = linearOf32();
  EXPECT_FALSE(bestFactors({graph.back()}, quietChannels(0), 0.8, 255).empty());
  EXPECT_TRUE(bestFactors({graph.back()}, quietChannels(0), 0.8, 15).empty());
}

}  // namespace
}  // namespace qc
