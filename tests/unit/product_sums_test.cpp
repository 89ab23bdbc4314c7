// Sums of products against plain loops in the order that the header defines, to the bit.
#include "quantizer/observers/product_sums.h"

#include <gtest/gtest.h>

#include <bit>

namespace qc {
namespace {

float element(int64_t vector, int64_t g, int64_t i) {
  return static_cast<float>((vector * 7919 + g * 104729 + i * 1299709) % 10007) / 997.0f - 5.0f;
}

void expectSums(int64_t groups, int64_t size, int64_t vectors) {
  ProductSums sums(groups, size, true), alone(groups, size, false);
  std::vector<float> x(usize(size));
  for (int64_t v = 0; v < vectors; ++v) {
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t i = 0; i < size; ++i) alone.at(0, g, i) = nth(x, i) = element(v, g, i);
      sums.set(0, g, x.data());
    }
    sums.add(1);
    alone.add(1);
  }
  const std::vector<float> products = sums.products();
  const std::vector<double> elements = sums.sums();
  ASSERT_EQ(static_cast<int64_t>(products.size()), groups * size * size);
  ASSERT_EQ(static_cast<int64_t>(elements.size()), groups * size);
  EXPECT_TRUE(alone.products().empty());
  EXPECT_EQ(alone.sums(), elements);
  const auto value = [&](int64_t v, int64_t g, int64_t i) { return v < vectors ? element(v, g, i) : 0.0f; };
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t i = 0; i < size; ++i) {
      double sum = 0;
      for (int64_t v = 0; v < vectors; ++v) sum += static_cast<double>(element(v, g, i));
      EXPECT_EQ(nth(elements, g * size + i), sum);
      for (int64_t j = 0; j < size; ++j) {
        float expected = 0;
        for (int64_t v = 0; v < vectors; v += 4) {
          float p[4];
          for (int64_t k = 0; k < 4; ++k) p[k] = value(v + k, g, i) * value(v + k, g, j);
          expected += (p[0] + p[1]) + (p[2] + p[3]);
        }
        const float found = nth(products, (g * size + i) * size + j);
        ASSERT_EQ(std::bit_cast<uint32_t>(found), std::bit_cast<uint32_t>(expected)) << g << " " << i << " " << j;
      }
    }
}

TEST(ProductSums, AreThoseOfTheDefinedOrder) {
  for (const int64_t size : {1, 15, 16, 17, 50})
    for (const int64_t vectors : {0, 1, 6, 128, 300}) expectSums(1, size, vectors);
}

TEST(ProductSums, GroupsAreApart) {
  expectSums(3, 9, 131);
  expectSums(2, 33, 7);
}

}  // namespace
}  // namespace qc
