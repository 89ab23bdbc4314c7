// Augmentation: images keep their values but for those that leave, and draws decide alone.
#include "runtime/training/augment.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace qc {
namespace {

std::vector<float> augmented(const char* words, const std::vector<int64_t>& sizes, uint64_t seed) {
  const TensorType type{DType::f32, toShape(sizes)};
  std::vector<float> image(usize(type.numElements() / sizes[0]));
  std::iota(image.begin(), image.end(), 1.f);
  Draws draws(seed);
  Augmentation::parse(words).value().apply(type, image, draws);
  return image;
}

TEST(Augmentation, MirrorsAndMoves) {
  const std::vector<float> plain = {1, 2, 3, 4}, mirrored = {2, 1, 4, 3};
  std::set<std::vector<float>> seen;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    seen.insert(augmented("flip", {8, 1, 2, 2}, seed));
    EXPECT_EQ(augmented("", {8, 1, 2, 2}, seed), plain);
    EXPECT_EQ(augmented("crop", {8, 1, 2, 2}, seed), plain);  // an eighth of two is nothing
    EXPECT_EQ(augmented("flip,crop", {8, 3, 16, 16}, seed), augmented("crop,flip", {8, 3, 16, 16}, seed));
  }
  EXPECT_EQ(seen, (std::set{plain, mirrored}));
  std::set<std::vector<float>> moved;
  for (uint64_t seed = 0; seed < 300; ++seed) moved.insert(augmented("crop", {1, 1, 8, 8}, seed));
  EXPECT_EQ(moved.size(), 9u);  // by one or none, each way
  EXPECT_TRUE(moved.contains(augmented("", {1, 1, 8, 8}, 0)));
}

TEST(Augmentation, KeepsChannelsApart) {
  // Channels last: element i is channel i % 3, and stays one of it.
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<float> image = augmented("flip,crop", {1, 8, 8, 3}, seed);
    for (size_t i = 0; i < image.size(); ++i) EXPECT_EQ(static_cast<int64_t>(image[i] - 1) % 3, static_cast<int64_t>(i) % 3);
  }
  EXPECT_TRUE(Augmentation::takes({DType::f32, toShape({8, 3, 32, 32})}));
  EXPECT_TRUE(Augmentation::takes({DType::f32, toShape({8, 32, 32, 1})}));
  EXPECT_FALSE(Augmentation::takes({DType::f32, toShape({8, 49, 10})}));
  EXPECT_FALSE(Augmentation::takes({DType::u8, toShape({8, 3, 32, 32})}));
  EXPECT_FALSE(Augmentation::parse("flip,blur"));
}

}  // namespace
}  // namespace qc
