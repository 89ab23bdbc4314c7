#include "quantizer/observers/fake_quantize.h"

#include <algorithm>
#include <cmath>

#include "ir/qmath.h"

namespace qc {
namespace {

// Which scale an element has.
class ChannelOf {
 public:
  ChannelOf(std::span<const int64_t> sizes, int axis) {
    if (axis < 0) return;
    channels_ = nth(sizes, axis);
    for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner_ *= sizes[d];
  }
  size_t operator()(size_t i) const { return usize(static_cast<int64_t>(i) / inner_ % channels_); }
  size_t count() const { return usize(channels_); }

 private:
  int64_t channels_ = 1, inner_ = 1;
};

// The integer before clamping, kept inside a range that int64 and float can both hold.
int64_t rounded(float v) {
  constexpr float kBound = 1e15f;
  return static_cast<int64_t>(qmath::rne(std::clamp(v, -kBound, kBound)));
}

float clampedZero(float z, const LearnableParams& p) { return std::clamp(z, static_cast<float>(p.qmin), static_cast<float>(p.qmax)); }

}  // namespace

FakeQuantized fakeQuantize(std::span<const float> x, std::span<const int64_t> sizes, const QuantParams& q) {
  const ChannelOf channelOf(sizes, q.axis);
  FakeQuantized out{std::vector<float>(x.size()), std::vector<uint8_t>(x.size())};
  for (size_t i = 0; i < x.size(); ++i) {
    const auto c = static_cast<int64_t>(channelOf(i));
    const float scale = q.scale(c);
    const int64_t zp = q.zeroPoint(c);
    const int64_t integer = std::isnan(x[i]) ? zp : zp + rounded(x[i] * (1.0f / scale));
    out.y[i] = static_cast<float>(std::clamp(integer, q.qmin, q.qmax) - zp) * scale;
    out.passes[i] = integer >= q.qmin && integer <= q.qmax;
  }
  return out;
}

std::vector<float> learnableForward(std::span<const float> x, std::span<const int64_t> sizes, const LearnableParams& p) {
  QuantParams q{DType::s32, p.qmin, p.qmax, p.axis, 0, p.scales, {}};
  for (const float z : p.zeroPoints) q.zeroPoints.push_back(static_cast<int32_t>(clampedZero(qmath::rne(z), p)));
  return fakeQuantize(x, sizes, q).y;
}

LearnableGradients learnableBackward(std::span<const float> x, std::span<const float> dy, std::span<const int64_t> sizes,
                                     const LearnableParams& p) {
  const ChannelOf channelOf(sizes, p.axis);
  LearnableGradients g{std::vector<float>(x.size()), {}, {}};
  std::vector<double> ds(channelOf.count(), 0.0), dz(channelOf.count(), 0.0);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = channelOf(i);
    const float scale = p.scales[c], z = p.zeroPoints[c];
    // One scale for all rounds the zero point half up, one per channel half to even.
    const float zero = clampedZero(p.axis < 0 ? std::trunc(clampedZero(z + 0.5f, p)) : qmath::rne(z), p);
    const int64_t integer = rounded(std::fma(x[i], 1.0f / scale, zero));
    const int64_t clamped = std::clamp(integer, p.qmin, p.qmax);
    const float reached = static_cast<float>(clamped) - zero;  // steps from zero
    if (clamped != integer) {
      ds[c] += dy[i] * reached;
      dz[c] -= dy[i] * scale;
    } else {
      g.dx[i] = dy[i];
      ds[c] += dy[i] * ((reached * scale - x[i]) / scale);
    }
  }
  for (size_t c = 0; c < ds.size(); ++c) {
    g.dscale.push_back(static_cast<float>(ds[c] * p.gradFactor));
    g.dzeroPoint.push_back(static_cast<float>(dz[c] * p.gradFactor));
  }
  return g;
}

Status MovingAverageFakeQuantize::refresh() {
  params_ = {DType::s32, config_.qmin, config_.qmax, config_.perChannel ? 0 : -1, 0, {}, {}};
  for (const ValueRange& r : averages_) {
    QC_ASSIGN(const ScaleZero sz,
              chooseQParams(r.min, r.max, config_.qmin, config_.qmax, ChooseVariant::fbgemm, config_.symmetric, false, config_.eps));
    params_.scales.push_back(sz.scale);
    params_.zeroPoints.push_back(sz.zeroPoint);
  }
  return {};
}

Result<FakeQuantized> MovingAverageFakeQuantize::step(std::span<const float> x, std::span<const int64_t> sizes) {
  if (config_.perChannel && sizes.empty()) return fail(ErrorCode::kInvalidArgument, "a scalar has no channels");
  const size_t channels = config_.perChannel ? usize(sizes[0]) : 1;
  if (!averages_.empty() && averages_.size() != channels)
    return fail(ErrorCode::kInvalidData, "a batch has {} channels, earlier ones had {}", channels, averages_.size());
  if (observe && !x.empty()) {
    const bool first = averages_.empty();
    averages_.resize(channels);
    const auto c = static_cast<float>(config_.averagingConstant);
    for (size_t k = 0; k < channels; ++k) {
      const MinMax now = minMaxOf(x.subspan(k * (x.size() / channels), x.size() / channels));
      if (now.nonFinite > 0) return fail(ErrorCode::kInvalidData, "a batch holds {} values that are not finite", now.nonFinite);
      ValueRange& r = averages_[k];
      r = first ? ValueRange{now.min, now.max} : ValueRange{r.min + c * (now.min - r.min), r.max + c * (now.max - r.max)};
    }
  }
  if (!quantize || averages_.empty()) return FakeQuantized{{x.begin(), x.end()}, std::vector<uint8_t>(x.size(), 1)};
  QC_TRY(refresh());
  return fakeQuantize(x, sizes, params_);
}

}  // namespace qc
