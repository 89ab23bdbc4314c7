// The range searches over a histogram declared in histogram.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "quantizer/observers/histogram.h"
#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

double integral(double a, double b) { return (b * b * b - a * a * a) / 3.0; }

ValueRange rangeOfBins(const Histogram& h, int64_t start, int64_t end) {
  const double w = h.binWidth();
  return {static_cast<float>(h.min() + w * static_cast<double>(start)), static_cast<float>(h.min() + w * static_cast<double>(end + 1))};
}

std::vector<double> cumulative(const Histogram& h) {
  std::vector<double> sums(h.mass().size());
  std::partial_sum(h.mass().begin(), h.mass().end(), sums.begin());
  return sums;
}

// The bins that hold anything, and room for what each adds to an error.
struct Bins {
  double width = 0;
  std::vector<double> mass, from, error;
  explicit Bins(const Histogram& h) : width(h.binWidth()) {
    for (int64_t b = 0; b < h.bins(); ++b) {
      if (nth(h.mass(), b) == 0) continue;
      mass.push_back(nth(h.mass(), b));
      from.push_back(h.min() + width * static_cast<double>(b));
    }
    error.resize(mass.size());
  }
};

// The error of values spread evenly over each bin, for steps wider than the bins: the distance to the nearest level.
QC_MULTIVERSION void errorsOfWideSteps(const double* mass, const double* from, int64_t n, double width, double lo, double hi, double step,
                                       double* error) {
  for (int64_t b = 0; b < n; ++b) {
    const double to = from[b] + width, middle = 0.5 * (from[b] + to);
    const double level = lo + std::nearbyint((middle - lo) / step) * step;
    const double nearest = middle < lo ? lo : middle > hi ? hi : level;
    const double left = from[b] - nearest, right = to - nearest;
    error[b] = mass[b] * ((right * right * right - left * left * left) / 3.0) / width;
  }
}

// Mean squared error of uniform quantization with `levels` steps over [lo, hi], the mass of a bin taken as spread evenly over it.
double expectedError(Bins& bins, double lo, double hi, int64_t levels) {
  const double step = (hi - lo) / static_cast<double>(levels - 1), w = bins.width;
  if (!(step > 0)) return std::numeric_limits<double>::infinity();
  if (w < step)
    errorsOfWideSteps(bins.mass.data(), bins.from.data(), static_cast<int64_t>(bins.mass.size()), w, lo, hi, step, bins.error.data());
  else
    for (size_t b = 0; b < bins.mass.size(); ++b) {
      const double from = bins.from[b], to = from + w, middle = 0.5 * (from + to), edge = middle < lo ? lo : hi;
      const bool outside = middle < lo || middle > hi;
      bins.error[b] = outside ? bins.mass[b] * integral(from - edge, to - edge) / w : bins.mass[b] * step * step / 12.0;
    }
  return std::accumulate(bins.error.begin(), bins.error.end(), 0.0);
}

}  // namespace

double quantizationError(const Histogram& h, int64_t start, int64_t end, double levels) {
  const double w = h.binWidth(), width = w * static_cast<double>(end - start + 1) / levels;
  if (width == 0) return 0;
  const double half = width / 2, whole = integral(-half, half);
  double sum = 0;
  for (int64_t i = 0; i < h.bins(); ++i) {
    const double mass = nth(h.mass(), i);
    if (mass == 0) continue;
    const double b = static_cast<double>(i - start) * w, e = b + w;
    const double qb = std::clamp(std::floor(b / width), 0.0, levels - 1), qe = std::clamp(std::floor(e / width), 0.0, levels - 1);
    sum += mass / w * (integral(b - (qb + .5) * width, half) + (qe - qb - 1) * whole + integral(-half, e - (qe + .5) * width));
  }
  return sum;
}

ValueRange searchL2(const Histogram& h, double levels, bool scoreFullRange) {
  constexpr double kStep = 1e-5;
  if (h.empty()) return {};
  if (h.min() == h.max()) return {h.min(), h.max()};
  const std::vector<double> sums = cumulative(h);
  const double total = sums.back();
  int64_t start = 0, end = h.bins() - 1;
  double alpha = 0, beta = 1;
  double best = scoreFullRange ? quantizationError(h, start, end, levels) : std::numeric_limits<double>::infinity();
  while (alpha < beta) {
    const double nextAlpha = alpha + kStep, nextBeta = beta - kStep;
    int64_t l = start, r = end;
    while (l < end && nth(sums, l) < nextAlpha * total) ++l;
    while (r > start && nth(sums, r) > nextBeta * total) --r;
    int64_t newStart = start, newEnd = end;
    if (l - start > end - r) {
      newStart = l;
      alpha = nextAlpha;
    } else {
      newEnd = r;
      beta = nextBeta;
    }
    if (newStart == start && newEnd == end) continue;
    const double error = quantizationError(h, newStart, newEnd, levels);
    if (error > best) break;
    best = error;
    start = newStart;
    end = newEnd;
  }
  return rangeOfBins(h, start, end);
}

ValueRange searchPercentile(const Histogram& h, double percent) {
  if (h.empty()) return {};
  if (h.min() == h.max()) return {h.min(), h.max()};
  const std::vector<double> sums = cumulative(h);
  const double tail = sums.back() * (100.0 - percent) / 200.0;
  // Within a bin the mass is even, so the cut is a linear interpolation.
  const auto valueAt = [&](double wanted) {
    const auto it = std::lower_bound(sums.begin(), sums.end(), wanted);
    const auto b = std::min<int64_t>(it - sums.begin(), h.bins() - 1);
    const double before = b ? nth(sums, b - 1) : 0.0, mass = nth(h.mass(), b);
    const double share = mass > 0 ? std::clamp((wanted - before) / mass, 0.0, 1.0) : 0.0;
    return h.min() + h.binWidth() * (static_cast<double>(b) + share);
  };
  if (tail <= 0) return {h.min(), h.max()};
  const ValueRange cut{static_cast<float>(valueAt(tail)), static_cast<float>(valueAt(sums.back() - tail))};
  return {std::max(h.min(), cut.min), std::min(h.max(), cut.max)};
}

ValueRange searchEntropy(const Histogram& h, int64_t levels) {
  if (h.empty()) return {};
  if (h.min() == h.max()) return {h.min(), h.max()};
  const int64_t bins = h.bins();
  if (bins <= levels) return {h.min(), h.max()};
  // Both ends shrink in proportion around the bin that holds 0, so that a one-sided distribution keeps its fixed end.
  const double zero = std::clamp(-static_cast<double>(h.min()) / h.binWidth(), 0.0, static_cast<double>(bins));
  std::vector<double> mass(h.mass().begin(), h.mass().end());
  // Zeros are exact in every candidate, so the spike they make (behind a ReLU, half of all values) must not count: it would otherwise be
  // what decides.  Its bin takes the mean of its neighbours.
  const auto z = std::min<size_t>(static_cast<size_t>(zero), mass.size() - 1);
  mass[z] = 0.5 * (mass[z ? z - 1 : z + 1] + mass[z + 1 < mass.size() ? z + 1 : z - 1]);
  std::vector<double> sums(mass.size());
  std::partial_sum(mass.begin(), mass.end(), sums.begin());
  if (sums.back() <= 0) return {h.min(), h.max()};
  const auto massOf = [&](int64_t from, int64_t to) {  // [from, to)
    return to <= from ? 0.0 : nth(sums, to - 1) - (from ? nth(sums, from - 1) : 0.0);
  };
  double best = std::numeric_limits<double>::infinity();
  ValueRange result{h.min(), h.max()};
  constexpr int kSteps = 128;
  for (int k = kSteps; k >= 8; --k) {
    const double share = static_cast<double>(k) / kSteps;
    const auto start = static_cast<int64_t>(std::floor(zero - zero * share));
    const auto end = std::min<int64_t>(bins, static_cast<int64_t>(std::ceil(zero + (static_cast<double>(bins) - zero) * share)));
    const int64_t count = end - start;
    if (count < levels) break;
    double divergence = 0;
    const double total = sums.back();
    for (int64_t level = 0; level < levels; ++level) {
      const int64_t from = start + count * level / levels, to = start + count * (level + 1) / levels;
      int64_t occupied = 0;
      for (int64_t b = from; b < to; ++b) occupied += nth(mass, b) > 0;
      const double inside = massOf(from, to);
      if (!occupied && from != start && to != end) continue;
      for (int64_t b = from; b < to; ++b) {
        double p = nth(mass, b);
        if (b == start) p += massOf(0, start);  // what is clipped lands on the ends of the reference ...
        if (b == end - 1) p += massOf(end, bins);
        if (p <= 0) continue;
        const double q = occupied && nth(mass, b) > 0 ? inside / static_cast<double>(occupied) : 1e-9 * total;  // ... not of the candidate
        divergence += p / total * std::log(p / q);
      }
    }
    const double kept = massOf(start, end);
    if (kept <= 0) break;
    divergence += std::log(kept / total);
    if (divergence < best) {
      best = divergence;
      result = rangeOfBins(h, start, end - 1);
    }
  }
  return result;
}

ValueRange searchMse(const Histogram& h, int64_t levels) {
  if (h.empty()) return {};
  const double min = std::min(h.min(), 0.0f), max = std::max(h.max(), 0.0f);
  if (h.min() == h.max()) return {h.min(), h.max()};
  // Coarse to fine over the shares of either side that are kept; 0 stays inside.
  Bins occupied(h);
  double bestLow = 1, bestHigh = 1, best = expectedError(occupied, min, max, levels);
  for (double reach = 0.5; reach > 0.004; reach /= 2) {
    const double centreLow = bestLow, centreHigh = bestHigh;
    for (int a = -4; a <= 4; ++a) {
      for (int b = -4; b <= 4; ++b) {
        const double low = centreLow + reach * a / 4, high = centreHigh + reach * b / 4;
        if (low <= 0 || low > 1 || high <= 0 || high > 1 || (min == 0 && a) || (max == 0 && b)) continue;
        const double error = expectedError(occupied, min * low, max * high, levels);
        if (error < best) {
          best = error;
          bestLow = low;
          bestHigh = high;
        }
      }
    }
  }
  return {static_cast<float>(min * bestLow), static_cast<float>(max * bestHigh)};
}

}  // namespace qc
