#include "runtime/training/held_out.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace qc {
namespace {

constexpr int64_t kGroups = 64;

// What a normal number exceeds with this chance, below 1/2.
double normalQuantile(double chance) {
  double low = 0, high = 40;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (std::erfc(middle / std::sqrt(2.0)) / 2 > chance ? low : high) = middle;
  }
  return low;
}

// The same of Student's t by Cornish and Fisher's expansion.
double studentQuantile(double chance, double degrees) {
  const double z = normalQuantile(chance), z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z, n = degrees;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) + (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n);
}

}  // namespace

Gain gainOf(std::span<const double> before, std::span<const double> after, double chance) {
  const auto count = static_cast<double>(before.size());
  std::vector<double> gains;
  for (size_t i = 0; i < before.size(); ++i) gains.push_back(before[i] - after[i]);
  const double mean = std::accumulate(gains.begin(), gains.end(), 0.0) / count;
  double squares = 0;
  for (const double gain : gains) squares += (gain - mean) * (gain - mean);
  return {mean, studentQuantile(chance, count - 1) * std::sqrt(squares / (count - 1) / count)};
}

Gain gainInFactors(std::span<const double> before, std::span<const double> after, int64_t tries) {
  const double mean = std::accumulate(before.begin(), before.end(), 0.0) / static_cast<double>(before.size());
  const double least = std::max(1e-6 * mean, 1e-300);
  const auto logarithms = [&](std::span<const double> losses) {
    std::vector<double> logs;
    for (const double loss : losses) logs.push_back(std::log(std::max(loss, least)));
    return logs;
  };
  return gainOf(logarithms(before), logarithms(after), kOneOfTen / static_cast<double>(std::max<int64_t>(1, tries)));
}

int64_t HeldOut::groupOf(int64_t samples, int64_t batch) {
  int64_t group = 1;
  for (int64_t g = 1; g <= batch; ++g)
    if (batch % g == 0 && samples / g >= kGroups) group = g;
  return group;
}

Result<std::vector<double>> HeldOut::losses(Trainer& trainer) {
  std::vector<double> found;
  for (int64_t at = 0; at + group_ <= batches_->heldOut(); at += group_) {
    QC_ASSIGN(TensorMap batch, batches_->heldOutAt(at, group_));
    QC_TRY(targets_.target(batch));
    QC_ASSIGN(const Trainer::Evaluation evaluation, trainer.evaluate(batch));
    found.push_back(evaluation.loss);
  }
  return found;
}

}  // namespace qc
