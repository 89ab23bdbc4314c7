// The median of numbers.
#pragma once

#include <algorithm>
#include <vector>

namespace qc {

// Of an even count the larger of the two in the middle; 0 of none.
inline double medianOf(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace qc
