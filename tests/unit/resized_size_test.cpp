// The sizes that a scale of Resize gives, of known and of free dims.
#include <gtest/gtest.h>

#include <cmath>

#include "ir/ops/resize.h"

namespace qc {
namespace {

// Scales that exporters write: halves, thirds, tenths, whole ones, and what float32 makes of them.
constexpr float kScales[] = {0.125f, 0.2f, 0.25f, 0.3f,  1.0f / 3, 0.4f, 0.5f,  0.6f, 2.0f / 3, 0.7f, 0.75f, 0.8f,
                             0.9f,   1,    1.1f,  1.25f, 1.4f,     1.5f, 1.75f, 2,    2.5f,     3,    4,     8};

TEST(ResizedSize, KnownDimsAreMultipliedInFloat32) {
  EXPECT_EQ(resizedSize(10, 0.7f), DimExpr(7));  // 6 by the double of the scale
  EXPECT_EQ(resizedSize(10, 0.9f), DimExpr(9));
  EXPECT_EQ(resizedSize(5, 1.4f), DimExpr(7));
  EXPECT_EQ(resizedSize(0, 2.0f), DimExpr(0));
  EXPECT_FALSE(resizedSize(1 << 30, 2.0f));
  EXPECT_FALSE(resizedSize(3, NAN));
}

TEST(ResizedSize, FreeDimsGiveTheSameSizes) {
  const DimExpr h = DimExpr::symbol("H");
  for (const float scale : kScales) {
    const auto size = resizedSize(h, scale);
    ASSERT_TRUE(size) << scale;
    for (int64_t n = 1; n <= 3000; ++n) ASSERT_EQ(DimExpr(*size->evaluate({{"H", n}})), resizedSize(n, scale)) << scale << " of " << n;
  }
  EXPECT_EQ(resizedSize(h, 0.5f)->str(), "H//2");
  EXPECT_EQ(resizedSize(h, 2)->str(), "2*H");
  EXPECT_FALSE(resizedSize(h, 0.7071068f));  // no fraction of small integers: the dim must be bound
  EXPECT_FALSE(resizedSize(h, NAN));
}

}  // namespace
}  // namespace qc
