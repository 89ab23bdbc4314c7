#include "ir/ops/suppression.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

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

struct Box {
  Interval x, y;
  float area;
  bool isFinite() const { return std::isfinite(x.low) && std::isfinite(x.high); }
};

Box boxOf(const float* b, bool centerPoint) {
  const Interval x = centerPoint ? around(b[0], b[2]) : between(b[1], b[3]), y = centerPoint ? around(b[1], b[3]) : between(b[0], b[2]);
  return {x, y, (x.high - x.low) * (y.high - y.low)};
}

bool overlap(const Box& a, const Box& b, float iou) {
  const float left = std::max(a.x.low, b.x.low), right = std::min(a.x.high, b.x.high);
  if (right <= left) return false;
  const float top = std::max(a.y.low, b.y.low), bottom = std::min(a.y.high, b.y.high);
  if (bottom <= top) return false;
  const float common = (right - left) * (bottom - top);
  if (common <= 0) return false;
  const float all = a.area + b.area - common;
  if (a.area <= 0 || b.area <= 0 || all <= 0) return false;
  return common / all > iou;
}

// The boxes that are chosen, by where they lie along x: one that overlaps another has a shelf in common with it, so that most pairs are
// not looked at.  What is not finite, or spans many shelves, is compared with all.
class Shelves {
 public:
  explicit Shelves(std::span<const Box> all) {
    double high = -HUGE_VAL;
    low_ = HUGE_VAL;
    for (const Box& b : all)
      if (b.isFinite()) low_ = std::min<double>(low_, b.x.low), high = std::max<double>(high, b.x.high);
    scale_ = high > low_ ? kShelves / (high - low_) : 0;
  }

  bool anyOverlaps(const Box& box, float iou) const {
    const auto overlaps = [&](const Box& other) { return overlap(box, other, iou); };
    const Span own = spanOf(box);
    if (!own.isNarrow) return std::ranges::any_of(chosen_, overlaps);
    if (std::ranges::any_of(wide_, [&](size_t i) { return overlaps(chosen_[i]); })) return true;
    for (int s = own.first; s <= own.last; ++s)
      for (const auto& [i, first] : shelves_[usize(s)])
        if (s == std::max(first, own.first) && overlaps(chosen_[i])) return true;  // on the first that both have
    return false;
  }

  void add(const Box& box) {
    const Span own = spanOf(box);
    if (!own.isNarrow) wide_.push_back(chosen_.size());
    for (int s = own.first; own.isNarrow && s <= own.last; ++s) shelves_[usize(s)].emplace_back(chosen_.size(), own.first);
    chosen_.push_back(box);
  }

 private:
  static constexpr int kShelves = 256, kNarrow = 16;
  struct Span {
    int first, last;  // the last before the first: the box is empty, and overlaps none
    bool isNarrow;
  };
  // Grows with x, whatever is rounded.
  int shelfOf(float x) const { return static_cast<int>(std::clamp((x - low_) * scale_, 0.0, kShelves - 1.0)); }
  Span spanOf(const Box& box) const {
    if (!box.isFinite()) return {0, 0, false};
    const int first = shelfOf(box.x.low), last = shelfOf(box.x.high);
    return {first, last, last - first < kNarrow};
  }

  double low_ = 0, scale_ = 0;
  std::vector<Box> chosen_;
  std::vector<size_t> wide_;
  std::array<std::vector<std::pair<size_t, int>>, kShelves> shelves_;  // with the first shelf of each
};

}  // namespace

std::vector<int64_t> Suppression::selected(const float* boxes, std::span<const float> scores) const {
  std::vector<int64_t> chosen;
  if (most <= 0) return chosen;
  std::vector<int64_t> candidates;
  for (int64_t i = 0; i < std::ssize(scores); ++i)
    if (!score || nth(scores, i) > *score) candidates.push_back(i);
  // Equal scores in their order; what is not a number last.
  std::sort(candidates.begin(), candidates.end(), [&](int64_t a, int64_t b) {
    const float sa = nth(scores, a), sb = nth(scores, b);
    if (std::isnan(sa) != std::isnan(sb)) return std::isnan(sb);
    return sa > sb || (!(sb > sa) && a < b);
  });
  std::vector<Box> all;
  for (const int64_t i : candidates) all.push_back(boxOf(boxes + 4 * i, centerPoint));
  Shelves kept(all);
  for (size_t k = 0; k < candidates.size() && std::ssize(chosen) < most; ++k) {
    if (kept.anyOverlaps(all[k], iou)) continue;
    kept.add(all[k]);
    chosen.push_back(candidates[k]);
  }
  return chosen;
}

}  // namespace qc
