// A histogram whose result does not depend on the order of the data or on how it was cut into parts: merging shards gives the very
// bytes of one run.  Cells are [j * 2^e, (j + 1) * 2^e) with whole counts.  The exponent follows from the smallest and largest value
// seen alone, and never falls as they spread, so coarsening is the sum of neighbouring cells, and sums of whole numbers have no order.
//
// The searches work on equal bins over [min, max]: histogram() pours the cells into them, two to four cells to a bin; zeros, of which
// activations have many, are counted apart and land in one bin.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "quantizer/observers/histogram.h"

namespace qc {

class GridHistogram {
 public:
  // Keeps at most 4 * bins cells, at least half of them in use when the data has more than that many different values.
  explicit GridHistogram(int64_t bins) : bins_(bins) {}

  bool empty() const { return !seen_; }
  float min() const { return min_; }
  float max() const { return max_; }
  int64_t bins() const { return bins_; }
  int64_t total() const;

  // Finite data; min and max are those of the data.
  void add(std::span<const float> data, float min, float max);
  void merge(const GridHistogram& other);
  void reset() { *this = GridHistogram(bins_); }

  // The same data in `bins` equal bins over [min, max].
  Histogram histogram() const;

  // Counts of the cells from the one that holds min to the one that holds max, and of exact zeros, which these leave out.
  std::span<const int64_t> cells() const { return cells_; }
  int64_t zeros() const { return zeros_; }
  // Rebuilds a saved state.  Errors: a bad range, another number of cells than the range has, negative or fractional counts.
  static Result<GridHistogram> restore(int64_t bins, float min, float max, std::span<const double> cells, double zeros);

 private:
  struct Grid {
    int exponent = 0;
    int64_t first = 0, count = 0;
  };
  Grid gridFor(float min, float max) const;
  void growTo(float min, float max);
  void count(std::span<const float> data);

  int64_t bins_;
  bool seen_ = false;
  float min_ = 0, max_ = 0;
  Grid grid_;
  std::vector<int64_t> cells_;
  int64_t zeros_ = 0;
};

}  // namespace qc
