// Which samples shaped the ranges: exact merging in any order, the number of samples that was enough, what looks wrong with the data.
#include "quantizer/observers/sample_trace.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "quantizer/trace_json.h"

namespace qc {
namespace {

TEST(SampleTrace, MergesExactlyInAnyOrder) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  SampleTrace whole, parts[3];
  for (int64_t i = 0; i < 5000; ++i) {
    const float a = std::round(normal(random) * 8) / 8, b = a + std::abs(normal(random));  // many ties
    whole.see({a, b}, i, std::to_string(i));
    parts[random() % 3].see({a, b}, i, std::to_string(i));
  }
  parts[1].merge(parts[2]);
  parts[1].merge(parts[0]);
  EXPECT_EQ(TraceJson::write(parts[1]), TraceJson::write(whole));
  SampleTrace again;
  ASSERT_TRUE(TraceJson::read(TraceJson::write(whole), "t", again));
  EXPECT_EQ(TraceJson::write(again), TraceJson::write(whole));
}

TEST(SampleTrace, CountsTheSamplesThatWereNeeded) {
  SampleTrace trace;
  for (int64_t i = 0; i < 1000; ++i) trace.see({0, i < 100 ? static_cast<float>(i) : 50.0f}, i, "s");
  EXPECT_EQ(trace.highest().sample, 99);
  EXPECT_EQ(trace.samplesToCover({0, 5}, 0), 6);
  const int64_t all = trace.samplesToCover({0, 99}, 0);
  EXPECT_GE(all, 100);
  EXPECT_LE(all, 112) << "known to an eighth";
  EXPECT_LT(trace.samplesToCover({0, 99}, 0.1), 100);
  EXPECT_GE(trace.samplesToCover({0, 500}, 0), 1000) << "never seen";
}

// Where values stop, many samples have the same end; several values of one sample count once, in one run and in shards.
TEST(SampleTrace, CountsTheSamplesThatShareAnEnd) {
  SampleTrace whole, parts[2];
  for (int64_t i = 0; i < 30; ++i)
    for (const float high : {3.0f, 6.0f, 6.0f}) {
      const ValueRange range{-static_cast<float>(i), i % 3 ? high : 5.0f};
      whole.see(range, i, "s");
      parts[i / 15].see(range, i, "s");
    }
  EXPECT_EQ(whole.highest().times, 20);
  EXPECT_EQ(whole.highest().sample, 1);
  EXPECT_EQ(whole.lowest().times, 1);
  parts[1].merge(parts[0]);
  EXPECT_EQ(TraceJson::write(parts[1]), TraceJson::write(whole));
}

TEST(InputTrace, TellsNoiseFromImages) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  InputTrace noise, image, table;
  for (int sample = 0; sample < 10; ++sample) {
    Tensor n(DType::f32, {1, 3, 32, 32}), smooth(DType::f32, {1, 3, 32, 32}), features(DType::f32, {1, 40});
    float last = 0;
    for (int64_t i = 0; i < n.numElements(); ++i) {
      nth(n.mutableAs<float>(), i) = normal(random);
      nth(smooth.mutableAs<float>(), i) = last = 0.8f * last + 0.2f * normal(random);
    }
    for (float& v : features.mutableAs<float>()) v = normal(random);
    noise.see(n.ref());
    image.see(smooth.ref());
    table.see(features.ref());
  }
  EXPECT_EQ(noise.noise(), 10);
  EXPECT_EQ(image.noise(), 0);
  EXPECT_EQ(table.noise(), 0) << "features have no neighbours";
  EXPECT_FALSE(noise.allSame());
}

TEST(DataPart, JoinsStretchesAndRefusesOverlap) {
  DataPart a{"d", 10, {{0, 3}}}, b{"d", 10, {{6, 10}}}, c{"d", 10, {{3, 6}}};
  ASSERT_TRUE(a.merge(b));
  EXPECT_EQ(a.seen.size(), 2u);
  ASSERT_TRUE(a.merge(c));
  EXPECT_EQ(a, (DataPart{"d", 10, {{0, 10}}}));
  EXPECT_FALSE(a.merge(c));
}

}  // namespace
}  // namespace qc
