#include "quantizer/observers/histogram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

// The bin of each element, or `bins` where it lies outside.  Element-wise, so whole vectors at a time.
QC_MULTIVERSION void computeBins(const float* x, int64_t n, float lo, float hi, float bins, int32_t* out) {
  const float width = hi - lo;
  const int32_t last = static_cast<int32_t>(bins) - 1, outside = static_cast<int32_t>(bins);
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i];
    const bool inside = (v >= lo) & (v <= hi);
    const float position = inside ? (v - lo) * bins / width : 0.0f;
    const int32_t bin = static_cast<int32_t>(position);
    out[i] = inside ? (bin < last ? bin : last) : outside;
  }
}

int64_t binOf(double x, double lo, double hi, int64_t bins) {
  const double position = (x - lo) * static_cast<double>(bins) / (hi - lo);
  return std::clamp<int64_t>(static_cast<int64_t>(std::floor(position)), 0, bins - 1);
}

}  // namespace

std::vector<double> histc(std::span<const float> data, int64_t bins, float lo, float hi) {
  std::vector<double> mass(usize(bins), 0.0);
  if (lo == hi) {
    lo -= 1.0f;
    hi += 1.0f;
  }
  const bool wide = std::isinf((hi - lo) * static_cast<float>(bins));  // leaves float32: the same in double
  const bool flat = !(hi > lo);                                        // so large that lo - 1 == hi + 1
  if (flat) {
    for (const float v : data) nth(mass, bins / 2) += v == lo;
    return mass;
  }
  if (wide) {
    for (const float v : data)
      if (v >= lo && v <= hi) nth(mass, binOf(v, lo, hi, bins)) += 1;
    return mass;
  }
  // Four interleaved counters per bin: equal neighbours (the zeros behind a ReLU) would otherwise wait for each other.
  const size_t stride = usize(bins) + 1;
  std::vector<uint32_t> counts(4 * stride, 0);
  std::array<int32_t, kBlockElements> bin;
  const auto flush = [&] {
    for (size_t b = 0; b + 1 < stride; ++b)
      for (size_t k = 0; k < 4; ++k) mass[b] += counts[k * stride + b];
    std::fill(counts.begin(), counts.end(), 0);
  };
  int64_t sinceFlush = 0;
  const int64_t n = static_cast<int64_t>(data.size());
  for (int64_t start = 0; start < n; start += kBlockElements) {
    const int64_t length = std::min(kBlockElements, n - start);
    computeBins(data.data() + start, length, lo, hi, static_cast<float>(bins), bin.data());
    int64_t i = 0;
    for (; i + 4 <= length; i += 4) {
      const size_t at = usize(i);
      ++nth(counts, bin[at]);
      ++counts[stride + usize(bin[at + 1])];
      ++counts[2 * stride + usize(bin[at + 2])];
      ++counts[3 * stride + usize(bin[at + 3])];
    }
    for (; i < length; ++i) ++nth(counts, nth(bin, i));
    sinceFlush += length;
    if (sinceFlush > (int64_t{1} << 31)) {
      flush();
      sinceFlush = 0;
    }
  }
  flush();
  return mass;
}

void Histogram::reset() { *this = Histogram(bins()); }

void Histogram::spread(const Histogram& from, float min, float max, std::vector<double>& into) {
  const int64_t bins = static_cast<int64_t>(into.size());
  if (from.min_ == from.max_) {
    double total = 0;
    for (const double m : from.mass_) total += m;
    const std::vector<double> where = histc(std::span(&from.min_, 1), bins, min, max);
    const auto found = std::max_element(where.begin(), where.end());
    nth(into, found - where.begin()) += total;
    return;
  }
  constexpr int kParts = 16;
  const double part = from.binWidth() / kParts;
  for (int64_t b = 0; b < from.bins(); ++b) {
    const double mass = nth(from.mass_, b) / kParts;
    if (mass == 0) continue;
    for (int p = 0; p < kParts; ++p) {
      const double middle = from.min_ + (static_cast<double>(b * kParts + p) + 0.5) * part;
      nth(into, binOf(middle, min, max, bins)) += mass;
    }
  }
}

void Histogram::growTo(float min, float max) {
  if (min == min_ && max == max_) return;
  std::vector<double> grown(mass_.size(), 0.0);
  spread(*this, min, max, grown);
  mass_ = std::move(grown);
  min_ = min;
  max_ = max;
}

void Histogram::add(std::span<const float> data, float min, float max, Growth growth) {
  if (data.empty()) return;
  if (!seen_) {
    seen_ = true;
    min_ = min;
    max_ = max;
    mass_ = histc(data, bins(), min, max);
    return;
  }
  if (growth == Growth::upsample) return addUpsampled(data, min, max);
  growTo(std::min(min_, min), std::max(max_, max));
  const std::vector<double> added = histc(data, bins(), min_, max_);
  for (size_t i = 0; i < mass_.size(); ++i) mass_[i] += added[i];
}

// The grid of the new range must contain the old grid's points: D new bins of the fine grid make one bin, and the range grows by the
// remainder e.  Memory follows D, so a range that grows out of all proportion starts afresh, as a degenerate one does.
void Histogram::addUpsampled(std::span<const float> data, float min, float max) {
  constexpr int64_t kRate = 128;
  constexpr int64_t kMaxFine = int64_t{1} << 26;
  const int64_t bins = this->bins();
  const float low = std::min(min_, min);
  float high = std::max(max_, max);
  if (low != min_ || high != max_) {
    const double range = static_cast<double>(max_) - min_, grown = static_cast<double>(high) - low;
    const double factor = range > 0 ? std::ceil(grown * kRate / range) : 0;
    if (factor < 1 || factor * static_cast<double>(bins) > static_cast<double>(kMaxFine)) {
      min_ = min;
      max_ = max;
      mass_ = histc(data, bins, min, max);
      return;
    }
    const int64_t down = static_cast<int64_t>(factor);
    high = static_cast<float>(high + (static_cast<double>(down) * range / kRate - grown));
    const int64_t start =
        static_cast<int64_t>(std::nearbyint((static_cast<double>(min_) - low) * static_cast<double>(bins * kRate) / range));
    std::vector<double> moved(mass_.size(), 0.0);
    for (int64_t b = 0; b < bins; ++b)
      for (int64_t r = 0; r < kRate; ++r) {
        const int64_t fine = std::min(start + b * kRate + r, bins * down - 1);
        nth(moved, fine / down) += nth(mass_, b) / kRate;
      }
    mass_ = std::move(moved);
    min_ = low;
    max_ = high;
  }
  const std::vector<double> added = histc(data, bins, min_, max_);
  for (size_t i = 0; i < mass_.size(); ++i) mass_[i] += added[i];
}

void Histogram::merge(const Histogram& other) {
  if (!other.seen_) return;
  if (!seen_) {
    seen_ = true;
    min_ = other.min_;
    max_ = other.max_;
    if (other.bins_ == bins_) {
      mass_ = other.mass_;
    } else {
      mass_.assign(usize(bins_), 0.0);
      spread(other, min_, max_, mass_);
    }
    return;
  }
  growTo(std::min(min_, other.min_), std::max(max_, other.max_));
  if (other.min_ == min_ && other.max_ == max_ && other.mass_.size() == mass_.size()) {
    for (size_t i = 0; i < mass_.size(); ++i) mass_[i] += other.mass_[i];
  } else {
    spread(other, min_, max_, mass_);
  }
}

Result<Histogram> Histogram::restore(float min, float max, std::vector<double> mass) {
  if (mass.empty()) return fail(ErrorCode::kInvalidData, "a saved histogram has no bins");
  if (!std::isfinite(min) || !std::isfinite(max) || min > max)
    return fail(ErrorCode::kInvalidData, "a saved histogram has the range [{}, {}]", min, max);
  for (const double m : mass)
    if (!std::isfinite(m) || m < 0) return fail(ErrorCode::kInvalidData, "a saved histogram has a bin of mass {}", m);
  Histogram result(static_cast<int64_t>(mass.size()));
  result.seen_ = true;
  result.min_ = min;
  result.max_ = max;
  result.mass_ = std::move(mass);
  return result;
}

}  // namespace qc
