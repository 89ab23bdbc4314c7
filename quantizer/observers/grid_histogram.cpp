#include "quantizer/observers/grid_histogram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

constexpr int64_t kCellsPerBin = 4;
constexpr int64_t kZeroSlots = 8;
constexpr int kSmallestExponent = -149;  // of a float32
constexpr double kMaxCount = 9e15;       // whole numbers that a double of a file holds

// floor(x * scale) - first, for whole vectors at a time; zeros take turns among the cells from `zero` on, since neighbours that count
// in one place would wait for each other.  The product must be exact.
QC_MULTIVERSION void cellsInFloat(const float* x, int64_t n, float scale, int32_t first, int32_t zero, int32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float position = x[i] * scale;
    const int32_t toZero = static_cast<int32_t>(position);
    const int32_t cell = toZero - (position < static_cast<float>(toZero) ? 1 : 0) - first;
    const int32_t isZero = x[i] == 0.0f ? -1 : 0;
    out[i] = cell + ((zero + static_cast<int32_t>(i & (kZeroSlots - 1)) - cell) & isZero);
  }
}

QC_MULTIVERSION void cellsInDouble(const float* x, int64_t n, double scale, int32_t first, int32_t zero, int32_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const double position = static_cast<double>(x[i]) * scale;
    const int32_t toZero = static_cast<int32_t>(position);
    const int32_t cell = toZero - (position < static_cast<double>(toZero) ? 1 : 0) - first;
    const int32_t isZero = x[i] == 0.0f ? -1 : 0;
    out[i] = cell + ((zero + static_cast<int32_t>(i & (kZeroSlots - 1)) - cell) & isZero);
  }
}

int64_t cellOf(float x, int exponent) { return static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(x), -exponent))); }

}  // namespace

int64_t GridHistogram::total() const { return std::accumulate(cells_.begin(), cells_.end(), zeros_); }

// The finest grid that has few enough cells.  24 bits below the largest magnitude there is nothing left to tell apart, and cell
// numbers stay small.
GridHistogram::Grid GridHistogram::gridFor(float min, float max) const {
  const float largest = std::max(std::abs(min), std::abs(max));
  Grid grid;
  grid.exponent = largest > 0 ? std::max(std::ilogb(largest) - 23, kSmallestExponent) : kSmallestExponent;
  for (;; ++grid.exponent) {
    grid.first = cellOf(min, grid.exponent);
    grid.count = cellOf(max, grid.exponent) - grid.first + 1;
    if (grid.count <= bins_ * kCellsPerBin) return grid;
  }
}

void GridHistogram::growTo(float min, float max) {
  if (seen_ && min == min_ && max == max_) return;
  const Grid grid = gridFor(min, max);
  std::vector<int64_t> grown(usize(grid.count), 0);
  if (seen_) {
    const int shift = grid.exponent - grid_.exponent;
    for (size_t i = 0; i < cells_.size(); ++i) {
      const int64_t cell = (grid_.first + static_cast<int64_t>(i)) >> std::min(shift, 62);  // rounds down, as the grid does
      nth(grown, cell - grid.first) += cells_[i];
    }
  }
  cells_ = std::move(grown);
  grid_ = grid;
  min_ = min;
  max_ = max;
  seen_ = true;
}

void GridHistogram::count(std::span<const float> data) {
  const auto stride = usize(grid_.count + kZeroSlots);  // two counters per cell
  std::vector<uint32_t> counts(2 * stride, 0);
  std::array<int32_t, kBlockElements> cell;
  const auto flush = [&] {
    for (size_t c = 0; c < cells_.size(); ++c) cells_[c] += int64_t{counts[c]} + counts[stride + c];
    for (size_t c = cells_.size(); c < stride; ++c) zeros_ += int64_t{counts[c]} + counts[stride + c];
    std::fill(counts.begin(), counts.end(), 0);
  };
  // Scaling up by a power of two is exact in float32 unless the factor itself leaves its range.
  const bool inFloat = grid_.exponent <= 0 && grid_.exponent >= -126;
  const auto first = static_cast<int32_t>(grid_.first), zero = static_cast<int32_t>(grid_.count);
  const auto n = static_cast<int64_t>(data.size());
  int64_t sinceFlush = 0;
  for (int64_t start = 0; start < n; start += kBlockElements) {
    const int64_t length = std::min(kBlockElements, n - start);
    const double scale = std::ldexp(1.0, -grid_.exponent);
    if (inFloat)
      cellsInFloat(data.data() + start, length, static_cast<float>(scale), first, zero, cell.data());
    else
      cellsInDouble(data.data() + start, length, scale, first, zero, cell.data());
    int64_t i = 0;
    for (; i + 2 <= length; i += 2) {
      ++nth(counts, nth(cell, i));
      ++counts[stride + usize(cell[usize(i) + 1])];
    }
    if (i < length) ++nth(counts, nth(cell, i));
    sinceFlush += length;
    if (sinceFlush > (int64_t{1} << 31)) {
      flush();
      sinceFlush = 0;
    }
  }
  flush();
}

void GridHistogram::add(std::span<const float> data, float min, float max) {
  if (data.empty()) return;
  growTo(seen_ ? std::min(min_, min) : min, seen_ ? std::max(max_, max) : max);
  count(data);
}

void GridHistogram::merge(const GridHistogram& other) {
  if (!other.seen_) return;
  const float min = seen_ ? std::min(min_, other.min_) : other.min_, max = seen_ ? std::max(max_, other.max_) : other.max_;
  growTo(min, max);
  GridHistogram moved = other;
  moved.growTo(min, max);
  for (size_t i = 0; i < cells_.size(); ++i) cells_[i] += moved.cells_[i];
  zeros_ += other.zeros_;
}

Histogram GridHistogram::histogram() const {
  Histogram result(bins_);
  if (!seen_) return result;
  const double low = min_, width = (static_cast<double>(max_) - low) / static_cast<double>(bins_);
  std::vector<double> mass = histc({}, bins_, 0, 0);
  const auto binOf = [&](double x) { return std::clamp<int64_t>(static_cast<int64_t>(std::floor((x - low) / width)), 0, bins_ - 1); };
  const auto edgeOf = [&](int64_t cell) { return std::ldexp(static_cast<double>(cell), grid_.exponent); };
  if (!(width > 0)) {
    const float value = min_;
    mass = histc(std::span(&value, 1), bins_, value, value);
    for (double& m : mass) m *= static_cast<double>(total());
    return Histogram::restore(min_, max_, std::move(mass)).value();
  }
  for (size_t i = 0; i < cells_.size(); ++i) {
    if (cells_[i] == 0) continue;
    const int64_t cell = grid_.first + static_cast<int64_t>(i);
    const double from = std::max(edgeOf(cell), low), to = std::min<double>(edgeOf(cell + 1), max_);
    const int64_t firstBin = binOf(from), lastBin = std::max(firstBin, binOf(to));
    if (firstBin == lastBin || !(to > from)) {
      nth(mass, firstBin) += static_cast<double>(cells_[i]);
      continue;
    }
    for (int64_t b = firstBin; b <= lastBin; ++b) {
      const double left = std::max(from, low + static_cast<double>(b) * width),
                   right = std::min(to, low + static_cast<double>(b + 1) * width);
      nth(mass, b) += static_cast<double>(cells_[i]) * std::max(0.0, right - left) / (to - from);
    }
  }
  if (zeros_ > 0) nth(mass, binOf(0.0)) += static_cast<double>(zeros_);
  return Histogram::restore(min_, max_, std::move(mass)).value();
}

Result<GridHistogram> GridHistogram::restore(int64_t bins, float min, float max, std::span<const double> cells, double zeros) {
  if (!std::isfinite(min) || !std::isfinite(max) || min > max)
    return fail(ErrorCode::kInvalidData, "a saved histogram has the range [{}, {}]", min, max);
  const auto isCount = [](double v) { return v >= 0 && v < kMaxCount && v == std::floor(v); };
  GridHistogram result(bins);
  result.growTo(min, max);
  if (cells.size() != result.cells_.size())
    return fail(ErrorCode::kInvalidData, "a saved histogram has {} cells, expected {}", cells.size(), result.cells_.size());
  double sum = zeros;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (!isCount(cells[i])) return fail(ErrorCode::kInvalidData, "a saved histogram has a count of {}", cells[i]);
    result.cells_[i] = static_cast<int64_t>(cells[i]);
    sum += cells[i];
  }
  if (!isCount(zeros) || !(sum < kMaxCount)) return fail(ErrorCode::kInvalidData, "a saved histogram counts {} values", sum);
  result.zeros_ = static_cast<int64_t>(zeros);
  return result;
}

}  // namespace qc
