#include "runtime/insight/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "runtime/insight/sign_flips.h"

namespace qc {
namespace {

// scipy.stats.binomtest(min, n, 0.5).pvalue; above kExactUpTo scipy.stats.chi2.sf((|b - c| - 1)^2 / (b + c), 1).
TEST(McNemar, KnownValues) {
  struct Case {
    int64_t onlyA, onlyB;
    double p;
  };
  for (const Case& c : {Case{0, 0, 1},
                        {1, 0, 1},
                        {5, 0, 0.0625},
                        {1, 8, 0.0390625},
                        {6, 6, 1},
                        {9, 4, 0.266845703125},
                        {13, 11, 0.8388197422027588},
                        {121, 59, 4.4344492637551645e-06},
                        {37, 34, 0.8125886494061619},
                        {600, 500, 0.0028361326556546836},
                        {1200, 1200, 1},
                        {1200, 1199, 1}})
    EXPECT_NEAR(mcNemar(c.onlyA, c.onlyB) / c.p, 1, 1e-6) << c.onlyA << " " << c.onlyB;
}

TEST(McNemar, Symmetric) {
  for (const int64_t n : {3, 40, 999, 1000, 1001, 5000}) EXPECT_DOUBLE_EQ(mcNemar(n / 3, n - n / 3), mcNemar(n - n / 3, n / 3)) << n;
}

TEST(McNemar, ExactAndApproximateMeet) { EXPECT_NEAR(mcNemar(530, 470) / mcNemar(530, 471), 1, 0.1); }

// statsmodels.stats.multitest.multipletests(p, method="fdr_bh"); the first are those of the example in the paper.
TEST(FalseDiscoveries, KnownBounds) {
  const std::vector<double> paper = {0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
                                     0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000};
  EXPECT_EQ(falseDiscoveryBound(paper, 0.05), 0.0095);
  EXPECT_EQ(falseDiscoveryBound({paper.rbegin(), paper.rend()}, 0.05), 0.0095);
  // One that is above its own bound is a finding where a larger one is below its.
  EXPECT_EQ(falseDiscoveryBound({0.06, 0.06, 0.06}, 0.1), 0.06);
  EXPECT_EQ(falseDiscoveryBound({0.04, 0.05, 0.9}, 0.1), 0.05);
  EXPECT_EQ(falseDiscoveryBound({0.04}, 0.1), 0.04);
  EXPECT_LT(falseDiscoveryBound({0.04, 0.9, 0.9}, 0.1), 0);
  EXPECT_LT(falseDiscoveryBound({}, 0.1), 0);
}

// Where nothing helps, the best of 30 tries is a finding in one of three experiments if each is held to 0.1 alone, and in one of ten here:
// whatever a sample's gain is worth, as long as gains are as likely as losses.
TEST(FalseDiscoveries, HeldWhereNothingHelps) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> unit(-1, 1);
  constexpr int kTimes = 400, kTries = 30, kSamples = 16;
  int alone = 0, together = 0;
  for (int t = 0; t < kTimes; ++t) {
    std::vector<double> chances;
    for (int i = 0; i < kTries; ++i) {
      std::vector<double> gains(kSamples);
      for (double& g : gains) g = std::pow(unit(random), 5);  // some far larger than the others
      chances.push_back(signFlips(gains));
    }
    alone += *std::min_element(chances.begin(), chances.end()) <= 0.1 / 5;
    together += falseDiscoveryBound(chances, 0.1) >= 0;
  }
  EXPECT_GT(alone, kTimes / 3);
  EXPECT_LT(together, kTimes / 8);
}

// Counted in Python over itertools.product([1, -1], repeat=n); above kExactFlips erfc(sum / sqrt(2 * squares)) / 2.
TEST(SignFlips, KnownValues) {
  EXPECT_DOUBLE_EQ(signFlips(std::vector<double>{1.5, 2, -0.5, 3, -1, 4, 2.5, -0.25}), 0.0390625);
  EXPECT_DOUBLE_EQ(signFlips(std::vector<double>{1, 1, -1, 2, 2, 0, -3, 4}), 0.21875);
  EXPECT_DOUBLE_EQ(
      signFlips(std::vector<double>{0.31, -1.85, 0.53, 5.38, -0.64, 0.61, 3.4, 7.07, 1.38, -0.48, 4.16, -0.59, 1.71, 0.83, 2.94, -1.7}),
      0.0181427001953125);
  std::vector<double> all(16), many;
  for (int i = 0; i < 16; ++i) all[usize(i)] = i + 1;
  EXPECT_DOUBLE_EQ(signFlips(all), std::pow(0.5, 16));
  for (int i = 1; i <= 80; ++i) many.push_back((i * 37 % 101 - 45) / 10.0 + 0.013 * i);
  EXPECT_NEAR(signFlips(many), 0.0010436848098298037, 1e-12);
}

TEST(SignFlips, OddOnes) {
  EXPECT_EQ(signFlips({}), 1);
  EXPECT_EQ(signFlips(std::vector<double>{0, 0, NAN}), 1);
  EXPECT_EQ(signFlips(std::vector<double>{-1, -2, -3}), 1);
  EXPECT_EQ(signFlips(std::vector<double>{HUGE_VAL}), 0.5);
  EXPECT_EQ(signFlips(std::vector<double>{HUGE_VAL, -HUGE_VAL}), 0.75);
  // A few large gains outweigh as many small losses, which their number alone does not.
  EXPECT_LT(signFlips(std::vector<double>{5, 6, 7, 8, 9, 10, -0.1, -0.2, -0.3, -0.4}), 0.02);
}

TEST(Answers, Confusions) {
  GivenAnswers a;
  for (const auto& [label, answer] : std::vector<std::pair<int, int>>{{1, 1}, {2, 7}, {0, 3}, {2, 7}, {0, 1}})
    a.add(answer, label, label == answer);
  const auto c = a.confusions();
  ASSERT_EQ(c.size(), 3u);
  EXPECT_EQ(c[0].label, 2);
  EXPECT_EQ(c[0].answer, 7);
  EXPECT_EQ(c[0].count, 2);
  EXPECT_EQ(c[1].answer, 1);
}

TEST(Answers, Paired) {
  GivenAnswers a, b;
  const auto add = [&](int64_t label, int64_t first, int64_t second) {
    a.add(first, label, first == label);
    b.add(second, label, second == label);
  };
  add(0, 0, 0);
  add(0, 0, 1);
  add(0, 0, 2);
  add(1, 2, 1);
  add(1, 0, 2);
  const auto found = PairedAnswers::of(a, b);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->agreed, 1);
  EXPECT_EQ(found->differences.size(), 4u);
  EXPECT_EQ(found->flips, 1);
  EXPECT_EQ(found->all.onlyA, 2);
  EXPECT_EQ(found->all.onlyB, 1);
  ASSERT_EQ(found->classes.size(), 2u);
  EXPECT_EQ(found->classes[0].label, 0);
  EXPECT_EQ(found->classes[0].drop(), 2);
  EXPECT_EQ(found->classes[1].drop(), -1);
  b.add(1);
  EXPECT_FALSE(PairedAnswers::of(a, b).has_value());
}

}  // namespace
}  // namespace qc
