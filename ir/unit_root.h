// Cosine and sine of shares of the circle, in operations that every CPU does alike: those of a C library depend on what the CPU can.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace qc {

struct UnitRoot {
  double cos, sin;
};

// e^(2 pi i k / n), within 2^-52 of it.  Requires 0 < n <= 2^40 and |k| <= 2^40.
constexpr UnitRoot unitRoot(int64_t k, int64_t n) {
  const int64_t eighths = (k % n + n) % n * 8, octant = eighths / n, rest = eighths % n;
  const int64_t within = octant % 2 == 0 ? rest : n - rest;  // from the nearest axis, at most an eighth
  const double x = static_cast<double>(within) / static_cast<double>(n) * (std::numbers::pi / 4), square = x * x;
  double cos = 1, sin = 1;  // Taylor's series up to x^20
  for (int term = 20; term > 0; term -= 2) {
    cos = 1 - square / (term * (term - 1)) * cos;
    sin = 1 - square / (term * (term + 1)) * sin;
  }
  sin *= x;
  const bool swapped = octant % 4 == 1 || octant % 4 == 2;
  const double across = swapped ? sin : cos, up = swapped ? cos : sin;
  return {octant >= 2 && octant < 6 ? -across : across, octant >= 4 ? -up : up};
}

}  // namespace qc
