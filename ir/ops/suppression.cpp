#include "ir/ops/suppression.h"

#include <algorithm>
#include <cmath>

#include "ir/signed_index.h"

namespace qc {
namespace {

struct Interval {
  float low, high;
};

Interval between(float a, float b) { return a > b ? Interval{b, a} : Interval{a, b}; }
Interval around(float center, float size) {
  const float half = size / 2;
  return {center - half, center + half};
}

}  // namespace

bool Suppression::overlap(const float* a, const float* b) const {
  const Interval ax = centerPoint ? around(a[0], a[2]) : between(a[1], a[3]), bx = centerPoint ? around(b[0], b[2]) : between(b[1], b[3]);
  const float left = std::max(ax.low, bx.low), right = std::min(ax.high, bx.high);
  if (right <= left) return false;
  const Interval ay = centerPoint ? around(a[1], a[3]) : between(a[0], a[2]), by = centerPoint ? around(b[1], b[3]) : between(b[0], b[2]);
  const float top = std::max(ay.low, by.low), bottom = std::min(ay.high, by.high);
  if (bottom <= top) return false;
  const float common = (right - left) * (bottom - top);
  if (common <= 0) return false;
  const float areaA = (ax.high - ax.low) * (ay.high - ay.low), areaB = (bx.high - bx.low) * (by.high - by.low);
  const float all = areaA + areaB - common;
  if (areaA <= 0 || areaB <= 0 || all <= 0) return false;
  return common / all > iou;
}

std::vector<int64_t> Suppression::selected(const float* boxes, std::span<const float> scores) const {
  std::vector<int64_t> chosen;
  if (most <= 0) return chosen;
  std::vector<int64_t> candidates;
  for (int64_t i = 0; i < std::ssize(scores); ++i)
    if (!score || nth(scores, i) > *score) candidates.push_back(i);
  // Equal scores in their order; what is no number last.
  std::sort(candidates.begin(), candidates.end(), [&](int64_t a, int64_t b) {
    const float sa = nth(scores, a), sb = nth(scores, b);
    if (std::isnan(sa) != std::isnan(sb)) return std::isnan(sb);
    return sa > sb || (!(sb > sa) && a < b);
  });
  for (const int64_t i : candidates) {
    if (std::ssize(chosen) >= most) break;
    const bool suppressed =
        std::any_of(chosen.begin(), chosen.end(), [&](int64_t better) { return overlap(boxes + 4 * i, boxes + 4 * better); });
    if (!suppressed) chosen.push_back(i);
  }
  return chosen;
}

}  // namespace qc
