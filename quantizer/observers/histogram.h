// A histogram of everything seen, on a range that grows with the data, and the searches that cut the range back where clipping a few
// outliers costs less than the finer steps gain.  Memory is bounded by the number of bins; two histograms can be merged.
//
// Bins are computed in float32, as trunc((x - lo) * bins / (hi - lo)); masses and errors are double.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ir/quant_spec.h"
#include "ir/status.h"
#include "quantizer/observers/qparams.h"

namespace qc {

// Counts of `data` in `bins` equal bins over [lo, hi]; what lies outside or is NaN is ignored, x == hi falls in the last bin.
// lo == hi: over [lo - 1, lo + 1].
std::vector<double> histc(std::span<const float> data, int64_t bins, float lo, float hi);

class Histogram {
 public:
  explicit Histogram(int64_t bins = 2048) : bins_(bins) {}

  bool empty() const { return !seen_; }
  float min() const { return min_; }
  float max() const { return max_; }
  int64_t bins() const { return bins_; }
  double binWidth() const { return (static_cast<double>(max_) - min_) / static_cast<double>(bins()); }
  std::span<const double> mass() const { return mass_; }  // nothing before the first data

  // How the old masses move when the range grows.  `split`: every bin in 16 parts, each part to the bin of its midpoint.
  // `upsample` (PyTorch up to 2.4): every bin 128 times onto a grid that contains the old one; the range may grow beyond the data.
  enum class Growth { split, upsample };

  // Data must be finite; min and max are those of the data.
  void add(std::span<const float> data, float min, float max, Growth growth = Growth::split);
  void merge(const Histogram& other);
  void reset();

  // Rebuilds a saved state.  Errors: no bins, a bad range, a mass that is negative or not finite.
  static Result<Histogram> restore(float min, float max, std::vector<double> mass);

 private:
  void growTo(float min, float max);
  void addUpsampled(std::span<const float> data, float min, float max);
  static void spread(const Histogram& from, float min, float max, std::vector<double>& into);

  int64_t bins_;
  bool seen_ = false;
  float min_ = 0, max_ = 0;
  std::vector<double> mass_;
};

// Expected squared error when bins [start, end] are quantized to `levels` steps and the rest saturates.
double quantizationError(const Histogram& histogram, int64_t start, int64_t end, double levels);

// The greedy L2 search: trims the side with the longer tail while the error falls.  The reference accepts the first trim whatever it
// costs; `scoreFullRange` compares it with no trim at all.
ValueRange searchL2(const Histogram& histogram, double levels, bool scoreFullRange);

// Keeps `percent` of the mass, cutting the same share off both tails; [min, max] bounds it.
ValueRange searchPercentile(const Histogram& histogram, double percent);

// The range whose quantized distribution has the least Kullback-Leibler divergence from the observed one.
ValueRange searchEntropy(const Histogram& histogram, int64_t levels);

// The least expected squared error over a grid of ranges around the quantized 0; slower and more thorough than searchL2.
ValueRange searchMse(const Histogram& histogram, int64_t levels);

}  // namespace qc
