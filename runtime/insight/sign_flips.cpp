#include "runtime/insight/sign_flips.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace qc {

double signFlips(std::span<const double> gains) {
  constexpr double kMost = 1e6;  // of one gain: sums stay numbers
  std::vector<double> sizes;
  double sum = 0, all = 0, squares = 0;
  for (const double g : gains) {
    if (g == 0 || std::isnan(g)) continue;  // tells nothing
    const double bounded = std::clamp(g, -kMost, kMost);
    sizes.push_back(std::fabs(bounded));
    sum += bounded;
    all += std::fabs(bounded);
    squares += bounded * bounded;
  }
  if (sizes.empty()) return 1;
  if (sizes.size() > static_cast<size_t>(kExactFlips)) return std::erfc(sum / std::sqrt(2 * squares)) / 2;
  // Each way from the one before by one sign: Gray's order.
  const double least = sum - 1e-9 * all;
  const uint64_t ways = uint64_t{1} << sizes.size();
  uint64_t asLarge = 0, minus = 0;
  double now = all;
  for (uint64_t i = 1;; ++i) {
    asLarge += now >= least;
    if (i == ways) break;
    const int flipped = std::countr_zero(i);
    minus ^= uint64_t{1} << flipped;
    now += ((minus >> flipped & 1) != 0 ? -2 : 2) * sizes[static_cast<size_t>(flipped)];
  }
  return static_cast<double>(asLarge) / static_cast<double>(ways);
}

}  // namespace qc
