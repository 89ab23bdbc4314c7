// Measures of a pair of tensors, against sums written out here.
#include "runtime/insight/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace qc {
namespace {

using ::testing::HasSubstr;

constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(Metrics, AccumulateOverSamples) {
  Measurement m;
  const std::vector<float> x{1, -2, 3, 4}, y{1, -2.5, 3, 3.75}, x2{0, 8}, y2{1, 8};
  ASSERT_TRUE(m.add({.reference = x, .actual = y, .sample = 5}));
  ASSERT_TRUE(m.add({.reference = x2, .actual = y2, .sample = 9}));
  const double signal = 1 + 4 + 9 + 16 + 64, noise = 0.25 + 0.0625 + 1, other = 1 + 6.25 + 9 + 14.0625 + 1 + 64,
               product = 1 + 5 + 9 + 15 + 64;
  EXPECT_DOUBLE_EQ(m.of("sqnr"), 10 * std::log10(signal / noise));
  EXPECT_DOUBLE_EQ(m.of("mse"), noise / 6);
  EXPECT_DOUBLE_EQ(m.of("normalized_l2"), std::sqrt(noise / signal));
  EXPECT_DOUBLE_EQ(m.of("cosine"), product / std::sqrt(signal * other));
  EXPECT_EQ(m.of("max_error"), 1);
  EXPECT_EQ(m.elements(), 6);
  EXPECT_TRUE(std::isnan(m.of("clipped_low"))) << "nothing was rounded";
  EXPECT_TRUE(std::isnan(m.of("no_such")));
}

TEST(Metrics, SayWhereTheLargestErrorIs) {
  Measurement m;
  const std::vector<int64_t> sizes{1, 2, 3};
  const std::vector<float> x{0, 0, 0, 0, 0, 7}, y{0, 0, 0, 0.5, 0, 5};
  ASSERT_TRUE(m.add({.reference = x, .actual = y, .sizes = sizes, .sample = 12}));
  for (const Measured& each : m.results())
    EXPECT_EQ(each.detail, each.name == "max_error" ? "sample 12, [0,1,2]: 7 became 5" : "") << each.name;
}

TEST(Metrics, CountWhatIsClippedAndUsed) {
  const QuantParams params{DType::u8, 0, 255, -1, 0, {0.5f}, {10}};  // -5 to 122.5
  Measurement m;
  const std::vector<float> x{-5.2f, -5.3f, -100, 0, 122.7f, 122.8f, 4, 4}, y{-5, -5, -5, 0, 122.5f, 122.5f, 4, 4};
  ASSERT_TRUE(m.add({.reference = x, .actual = y, .params = &params}));
  EXPECT_DOUBLE_EQ(m.of("clipped_low"), 100.0 * 2 / 8);
  EXPECT_DOUBLE_EQ(m.of("clipped_high"), 100.0 * 1 / 8);
  EXPECT_DOUBLE_EQ(m.of("steps_used"), 100.0 * 4 / 256);
}

TEST(Metrics, TakeAScaleForEachChannel) {
  const QuantParams params{DType::s8, -128, 127, 1, 0, {1, 0.01f}, {0}};
  Measurement m;
  const std::vector<int64_t> sizes{2, 2, 1};
  const std::vector<float> x{100, 2, 1, 1}, y{100, 1.27f, 1, 1};
  ASSERT_TRUE(m.add({.reference = x, .actual = y, .sizes = sizes, .params = &params}));
  EXPECT_DOUBLE_EQ(m.of("clipped_high"), 25);
  EXPECT_DOUBLE_EQ(m.of("clipped_low"), 0);
}

TEST(Metrics, AreNotFooledByWhatIsNoNumber) {
  Measurement both, lost;
  const std::vector<float> x{1, kNaN, kInf}, y{1, 0, -kInf}, z{1, 2, 3}, w{1, kNaN, 3};
  ASSERT_TRUE(both.add({.reference = x, .actual = y}));
  EXPECT_EQ(both.of("sqnr"), 120) << "no number was to be met but the first";
  ASSERT_TRUE(lost.add({.reference = z, .actual = w}));
  EXPECT_EQ(lost.of("sqnr"), -120);
  EXPECT_EQ(lost.of("max_error"), kInf);
}

TEST(Metrics, OfNothingHaveNoMeaning) {
  Measurement m;
  ASSERT_TRUE(m.add({.reference = {}, .actual = {}}));
  for (const Measured& each : m.results()) EXPECT_TRUE(std::isnan(each.value)) << each.name;
}

TEST(Metrics, RefuseOtherSizes) {
  Measurement m;
  const std::vector<float> x{1, 2}, y{1};
  const std::vector<int64_t> sizes{3};
  EXPECT_FALSE(m.add({.reference = x, .actual = y}));
  EXPECT_FALSE(m.add({.reference = x, .actual = x, .sizes = sizes}));
}

struct Bias : MetricState {
  double sum = 0;
  void add(const TensorPair& pair) override {
    if (pair.sample == 99) throw std::runtime_error("ninety-nine");
    for (size_t i = 0; i < pair.reference.size(); ++i) sum += static_cast<double>(pair.actual[i]) - pair.reference[i];
  }
  double value() const override { return sum; }
};

TEST(Metrics, OfOnesOwnAreMeasuredWithTheRest) {
  const Metric bias{"bias", "", "sum of errors", [] { return std::make_unique<Bias>(); }};
  ASSERT_TRUE(registerMetric(bias));
  const Status again = registerMetric(bias);
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().render(), HasSubstr("a metric named 'bias' exists"));
  EXPECT_FALSE(registerMetric({"sqnr", "", "", bias.start}));
  EXPECT_FALSE(registerMetric({"Two words", "", "", bias.start}));
  EXPECT_FALSE(registerMetric({"nothing", "", "", {}}));
  Measurement m;
  const std::vector<float> x{1, 2}, y{2, 4};
  ASSERT_TRUE(m.add({.reference = x, .actual = y}));
  EXPECT_EQ(m.of("bias"), 3);
  EXPECT_EQ(m.results().back().name, "bias");
  const Status thrown = m.add({.reference = x, .actual = y, .sample = 99});
  ASSERT_FALSE(thrown);
  EXPECT_THAT(thrown.error().render(), HasSubstr("metric 'bias' threw: ninety-nine"));
}

}  // namespace
}  // namespace qc
