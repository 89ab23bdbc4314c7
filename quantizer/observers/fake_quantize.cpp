#include "quantizer/observers/fake_quantize.h"

#include <algorithm>
#include <cmath>

#include "ir/qmath.h"

namespace qc {
namespace {

// Which scale an element has.
class ChannelOf {
 public:
  ChannelOf(const char* function, size_t elements, std::span<const int64_t> sizes, int axis, size_t scales, size_t zeroPoints) {
    QC_REQUIRE(function, axis < static_cast<int>(sizes.size()), "axis {} of {} dims", axis, sizes.size());
    int64_t all = 1;
    for (const int64_t size : sizes) {
      QC_REQUIRE(function, size >= 0, "a size of {}", size);
      all *= size;
    }
    QC_REQUIRE(function, all == static_cast<int64_t>(elements), "{} values for sizes of {} elements", elements, all);
    if (axis >= 0) {
      channels_ = nth(sizes, axis);
      for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner_ *= sizes[d];
    }
    const auto fits = [&](size_t given) { return given == 1 || static_cast<int64_t>(given) == channels_; };
    QC_REQUIRE(function, fits(scales) && fits(zeroPoints), "{} scales and {} zero points for {} channels", scales, zeroPoints, channels_);
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
  const ChannelOf channelOf("fakeQuantize", x.size(), sizes, q.axis, q.scales.size(), q.zeroPoints.size());
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
  const ChannelOf checked("learnableForward", x.size(), sizes, p.axis, p.scales.size(), p.zeroPoints.size());
  QuantParams q{DType::s32, p.qmin, p.qmax, p.axis, 0, p.scales, {}};
  for (const float z : p.zeroPoints) q.zeroPoints.push_back(static_cast<int32_t>(clampedZero(qmath::rne(z), p)));
  return fakeQuantize(x, sizes, q).y;
}

LearnableGradients learnableBackward(std::span<const float> x, std::span<const float> dy, std::span<const int64_t> sizes,
                                     const LearnableParams& p) {
  const ChannelOf channelOf("learnableBackward", x.size(), sizes, p.axis, p.scales.size(), p.zeroPoints.size());
  QC_REQUIRE("learnableBackward", dy.size() == x.size(), "{} gradients of {} values", dy.size(), x.size());
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
  if (static_cast<int64_t>(x.size()) != numElements({sizes.begin(), sizes.end()}) || (channels == 0 && !x.empty()))
    return fail(ErrorCode::kInvalidArgument, "{} values for sizes of {} elements", x.size(), numElements({sizes.begin(), sizes.end()}));
  if (channels == 0) return FakeQuantized{};
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
