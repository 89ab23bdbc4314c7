#include "quantizer/channel_statistics.h"

#include <algorithm>
#include <limits>

#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

constexpr size_t kShares = 8;

constexpr size_t kLanes = 8;  // channels: their sums do not wait for each other
using Floats [[gnu::vector_size(kLanes * sizeof(float))]] = float;
using Doubles [[gnu::vector_size(kLanes * sizeof(double))]] = double;
struct ChannelSums {
  Floats min, max;
  Doubles square;
};

// `count` channels of `inner` elements each; lanes beyond repeat the last.
QC_MULTIVERSION void addPlanes(const float* x, size_t count, size_t inner, double share, ChannelSums& sums) {
  ChannelSums s = sums;
  size_t first[kLanes];
  for (size_t c = 0; c < kLanes; ++c) first[c] = std::min(c, count - 1) * inner;
  for (size_t i = 0; i < inner; ++i) {
    const Floats v = {x[first[0] + i], x[first[1] + i], x[first[2] + i], x[first[3] + i],
                      x[first[4] + i], x[first[5] + i], x[first[6] + i], x[first[7] + i]};
    constexpr float kMaxFinite = std::numeric_limits<float>::max();
    const auto finite = (v <= kMaxFinite) & (v >= -kMaxFinite);
    s.min = (finite & (v < s.min)) ? v : s.min;
    s.max = (finite & (v > s.max)) ? v : s.max;
    const Doubles wide = __builtin_convertvector(finite ? v : Floats{}, Doubles);
    s.square += wide * wide * share;
  }
  sums = s;
}

}  // namespace

void ChannelObserver::add(const Tensor& value) {
  if (value.numElements() == 0) return;
  if (square_.empty()) square_.resize(channels_);
  const size_t turn = samples_++ % kShares;
  if (turn == shares_.size()) shares_.push_back({std::vector<float>(channels_), std::vector<float>(channels_)});
  ChannelStatistics::Share& share = shares_[turn];
  size_t inner = 1;
  for (int i = axis_ + 1; i < value.rank(); ++i) inner *= usize(nth(value.sizes(), i));
  const auto x = value.as<float>();
  const double positions = static_cast<double>(x.size()) / static_cast<double>(channels_);
  share.positions += positions;
  for (size_t c = 0; c < channels_; c += kLanes) {
    const size_t count = std::min(kLanes, channels_ - c);
    ChannelSums sums{};
    for (size_t k = 0; k < count; ++k) {
      sums.min[k] = share.min[c + k];
      sums.max[k] = share.max[c + k];
      sums.square[k] = square_[c + k];
    }
    for (size_t at = c * inner; at < x.size(); at += channels_ * inner)
      addPlanes(x.data() + at, count, inner, 1 / std::max(1.0, positions), sums);
    for (size_t k = 0; k < count; ++k) {
      share.min[c + k] = sums.min[k];
      share.max[c + k] = sums.max[k];
      square_[c + k] = sums.square[k];
    }
  }
}

ChannelStatistics ChannelObserver::take() && {
  ChannelStatistics s{std::vector<float>(channels_), std::vector<float>(channels_), std::move(square_), {}};
  s.square.resize(channels_);
  for (double& v : s.square) v /= static_cast<double>(std::max<size_t>(1, samples_));
  std::erase_if(shares_, [](const ChannelStatistics::Share& share) { return !(share.positions > 0); });
  for (const ChannelStatistics::Share& share : shares_)
    for (size_t c = 0; c < channels_; ++c) {
      s.min[c] = std::min(s.min[c], share.min[c]);
      s.max[c] = std::max(s.max[c], share.max[c]);
    }
  s.shares = std::move(shares_);
  return s;
}

}  // namespace qc
