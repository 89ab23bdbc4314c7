#include "quantizer/signal_error.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/status.h"

namespace qc {
namespace {

struct Sums {
  double reference = 0, actual = 0, difference = 0, product = 0;  // of squares, and of products
};

Sums sumsOf(std::span<const float> reference, std::span<const float> actual) {
  QC_REQUIRE("signal error", reference.size() == actual.size(), "{} and {} elements", reference.size(), actual.size());
  Sums s;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double r = reference[i], a = actual[i];
    s.reference += r * r;
    s.actual += a * a;
    s.difference += (r - a) * (r - a);
    s.product += r * a;
  }
  return s;
}

}  // namespace

double sqnr(std::span<const float> reference, std::span<const float> actual) {
  const Sums s = sumsOf(reference, actual);
  if (s.reference == 0 && s.difference == 0) return std::numeric_limits<double>::quiet_NaN();
  return 10 * std::log10(s.reference / s.difference);
}

double normalizedL2(std::span<const float> reference, std::span<const float> actual) {
  const Sums s = sumsOf(reference, actual);
  return std::sqrt(s.difference / s.reference);
}

double cosineSimilarity(std::span<const float> reference, std::span<const float> actual) {
  const Sums s = sumsOf(reference, actual);
  const double norms = std::sqrt(s.reference) * std::sqrt(s.actual);
  return norms == 0 ? 0 : s.product / norms;
}

double decibels(double signal, double noise) {
  constexpr double kMax = 120;
  if (std::isnan(noise)) return 0;
  if (noise <= 0) return kMax;
  return signal > 0 ? std::clamp(10 * std::log10(signal / noise), -kMax, kMax) : 0.0;
}

double noiseAt(double decibels) { return std::pow(10.0, -decibels / 10); }

double meanSquaredError(std::span<const float> reference, std::span<const float> actual) {
  if (reference.empty()) return 0;
  return sumsOf(reference, actual).difference / static_cast<double>(reference.size());
}

}  // namespace qc
