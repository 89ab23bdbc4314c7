#include "runtime/training/held_out.h"

#include <cmath>
#include <numeric>

namespace qc {
namespace {

constexpr int64_t kGroups = 16;
constexpr double kOneOfTen = 1.2816;  // quantile of the normal distribution

// The quantile of Student's t by Cornish and Fisher's expansion.
double studentQuantile(double degrees) {
  const double z = kOneOfTen, z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z, n = degrees;
  return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n) + (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * n * n * n);
}

}  // namespace

Gain gainOf(std::span<const double> before, std::span<const double> after) {
  const auto count = static_cast<double>(before.size());
  std::vector<double> gains;
  for (size_t i = 0; i < before.size(); ++i) gains.push_back(before[i] - after[i]);
  const double mean = std::accumulate(gains.begin(), gains.end(), 0.0) / count;
  double squares = 0;
  for (const double gain : gains) squares += (gain - mean) * (gain - mean);
  return {mean, studentQuantile(count - 1) * std::sqrt(squares / (count - 1) / count)};
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
