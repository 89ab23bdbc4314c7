// Which boxes are left is what comparing each with all better ones leaves, whatever the boxes are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "ir/ops/suppression.h"

namespace qc {
namespace {

float side(const float* box, bool centerPoint, int axis, bool high) {  // axis 0: x
  if (centerPoint) return high ? box[axis] + box[2 + axis] / 2 : box[axis] - box[2 + axis] / 2;
  const float a = box[1 - axis], b = box[3 - axis];
  return (a > b) == high ? a : b;
}

// As ONNX Runtime has it.
bool overlap(const Suppression& s, const float* a, const float* b) {
  float common = 1, area[2] = {1, 1};
  for (const int axis : {0, 1}) {
    const float low = std::max(side(a, s.centerPoint, axis, false), side(b, s.centerPoint, axis, false));
    const float high = std::min(side(a, s.centerPoint, axis, true), side(b, s.centerPoint, axis, true));
    if (high <= low) return false;
    common *= high - low;
    area[0] *= side(a, s.centerPoint, axis, true) - side(a, s.centerPoint, axis, false);
    area[1] *= side(b, s.centerPoint, axis, true) - side(b, s.centerPoint, axis, false);
  }
  const float all = area[0] + area[1] - common;
  return !(common <= 0 || area[0] <= 0 || area[1] <= 0 || all <= 0) && common / all > s.iou;
}

std::vector<int64_t> expected(const Suppression& s, const std::vector<float>& boxes, const std::vector<float>& scores) {
  std::vector<int64_t> order, chosen;
  for (int64_t i = 0; i < std::ssize(scores); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[size_t(a)] > scores[size_t(b)]; });
  for (const int64_t i : order)
    if (std::ssize(chosen) < s.most &&
        std::none_of(chosen.begin(), chosen.end(), [&](int64_t k) { return overlap(s, &boxes[size_t(4 * i)], &boxes[size_t(4 * k)]); }))
      chosen.push_back(i);
  return chosen;
}

TEST(Suppression, LeavesWhatComparingAllPairsLeaves) {
  std::mt19937 random(3);
  const auto pick = [&](float low, float high) { return std::uniform_real_distribution<float>(low, high)(random); };
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kMost = std::numeric_limits<float>::max();
  const float odd[] = {std::nanf(""), kInfinity, -kInfinity, kMost, -kMost, 0.0f, -0.0f};
  size_t suppressed = 0;
  for (int round = 0; round < 300; ++round) {
    const int count = 1 + round % 150, kind = round % 5;
    std::vector<float> boxes, scores;
    for (int i = 0; i < count; ++i) {
      // Spread out, crowded, wide, of several classes apart from each other, and with what is not a number.
      const float at = kind == 1 ? 1 : kind == 3 ? 1000.0f * static_cast<float>(random() % 4) : 100, size = kind == 2 ? 200.0f : 8.0f;
      const float x = at + pick(0, 100), y = pick(0, kind == 2 ? 10 : 100);
      boxes.insert(boxes.end(), {y, x, y + pick(-1, size), x + pick(-1, size)});
      if (kind == 4 && random() % 4 == 0) boxes[boxes.size() - 1 - random() % 4] = odd[random() % std::size(odd)];
      scores.push_back(static_cast<float>(random() % 50));
    }
    Suppression s;
    s.centerPoint = round % 2 == 1;
    s.most = round % 7 == 0 ? 5 : 1000;
    s.iou = pick(0, 0.6f);
    const std::vector<int64_t> want = expected(s, boxes, scores);
    suppressed += scores.size() - want.size();
    EXPECT_EQ(s.selected(boxes.data(), scores), want) << round;
  }
  EXPECT_GT(suppressed, 1000u);
}

}  // namespace
}  // namespace qc
