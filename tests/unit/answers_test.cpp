#include "runtime/insight/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

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
