#include "passes/bias_guard.h"

#include <cmath>

namespace qc {
namespace {

// |b / (sx * sw)| stays below this, which leaves int32 room for the products.
constexpr double kLargestBias = 1 << 30;

}  // namespace

BiasSafe biasSafeParams(const QuantPtr& weights, std::span<const float> bias, float sx) {
  if (weights->scales.size() != 1 && weights->scales.size() != bias.size()) return {weights, {}};  // refused later
  auto safe = std::make_shared<QuantParams>(*weights);
  std::vector<float> widened;
  for (size_t c = 0; c < bias.size(); ++c) {
    float& scale = safe->scales[safe->scales.size() == 1 ? 0 : c];
    const double needed = std::fabs(static_cast<double>(bias[c])) / kLargestBias / sx;
    if (needed <= scale || std::isnan(needed)) continue;
    scale = static_cast<float>(needed * (1 + 1e-6));
    widened.push_back(scale);
  }
  return {widened.empty() ? weights : QuantPtr(safe), std::move(widened)};
}

}  // namespace qc
