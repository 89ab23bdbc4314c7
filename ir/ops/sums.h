// Sums over a reduced axis in the order that every engine keeps.
#pragma once

#include "ir/qmath.h"

namespace qc {

// at(0) + ... + at(n - 1): float32 in the order of qmath::StripedSum, float64 from left to right, integers modulo 2^64.
template <class T, class At>
T orderedSum(int64_t n, const At& at) {
  if constexpr (std::is_same_v<T, float>) {
    qmath::StripedSum sum;
    for (int64_t i = 0; i < n; ++i) sum.add(i, at(i));
    return sum.total();
  } else if constexpr (std::is_floating_point_v<T>) {
    T sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += at(i);
    return sum;
  } else {
    uint64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<uint64_t>(at(i));
    return static_cast<T>(sum);
  }
}

}  // namespace qc
