#include "quantizer/observers/seen_histogram.h"

#include <algorithm>

namespace qc {

double clippedShare(const Histogram& histogram, ValueRange chosen) {
  double all = 0, inside = 0;
  const double width = histogram.binWidth(), lo = chosen.min, hi = chosen.max;
  for (size_t i = 0; i < histogram.mass().size(); ++i) {
    const double from = histogram.min() + width * static_cast<double>(i), to = from + width, mass = histogram.mass()[i];
    all += mass;
    inside += width > 0                  ? mass * std::clamp((std::min(to, hi) - std::max(from, lo)) / width, 0.0, 1.0)
              : from >= lo && from <= hi ? mass
                                         : 0;
  }
  // Rounding of a range that holds everything is not clipping.
  const double share = all > 0 ? 1 - inside / all : 0;
  return share > 1e-9 ? share : 0;
}

double quantileOf(const Histogram& histogram, double share) {
  double all = 0, sum = 0;
  for (const double m : histogram.mass()) all += m;
  for (size_t i = 0; i < histogram.mass().size(); ++i)
    if ((sum += histogram.mass()[i]) >= share * all) return histogram.min() + histogram.binWidth() * (static_cast<double>(i) + 0.5);
  return histogram.max();
}

std::optional<ValueRange> hullOf(const std::vector<ValueRange>& ranges) {
  if (ranges.empty()) return {};
  ValueRange hull = ranges.front();
  for (const ValueRange& r : ranges) hull = {std::min(hull.min, r.min), std::max(hull.max, r.max)};
  return hull;
}

}  // namespace qc
