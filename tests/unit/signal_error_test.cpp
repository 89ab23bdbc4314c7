// Measures of error against recorded values.
#include "quantizer/signal_error.h"

#include "vectors.h"

namespace qc {
namespace {

TEST(SignalError, ByHand) {
  const std::vector<float> x = {1, 2, 3}, y = {1.1f, 1.9f, 3}, zero = {0, 0, 0};
  EXPECT_NEAR(sqnr(x, y), 28.45098, 1e-4);
  EXPECT_EQ(sqnr(x, x), INFINITY);
  EXPECT_EQ(sqnr(zero, x), -INFINITY);
  EXPECT_TRUE(std::isnan(sqnr(zero, zero)));
  EXPECT_EQ(cosineSimilarity(zero, x), 0);
  EXPECT_EQ(meanSquaredError({}, {}), 0);
}

TEST(SignalError, RecordedValues) {
  QC_VECTORS(file, "sqnr");
  const auto same = [](double ours, const nlohmann::json& j) {
    const double theirs = test::number(j);
    if (std::isnan(theirs)) return std::isnan(ours);
    return ours == theirs || std::abs(ours - theirs) <= std::abs(theirs) * 1e-5 + 1e-7;
  };
  for (const auto& c : file["cases"]) {
    const auto reference = test::numbers(c["reference"]), actual = test::numbers(c["actual"]);
    EXPECT_TRUE(same(sqnr(reference, actual), c["sqnr_db"])) << c;
    EXPECT_TRUE(same(normalizedL2(reference, actual), c["normalized_l2"])) << c;
    EXPECT_TRUE(same(cosineSimilarity(reference, actual), c["cosine"])) << c;
    EXPECT_TRUE(same(meanSquaredError(reference, actual), c["mse"])) << c;
  }
}

}  // namespace
}  // namespace qc
