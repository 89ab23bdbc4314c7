// Collects what the channels of a value look like while samples run through a graph (passes/quantize/channel_noise.h).
#pragma once

#include <cstddef>

#include "ir/tensor.h"
#include "passes/quantize/channel_noise.h"

namespace qc {

class ChannelObserver {
 public:
  ChannelObserver(int64_t channels, int axis) : channels_(static_cast<size_t>(channels)), axis_(axis) {}

  void add(const Tensor& value);  // f32, of one sample
  ChannelStatistics take() &&;

 private:
  size_t channels_;
  int axis_;
  size_t samples_ = 0;
  std::vector<ChannelStatistics::Share> shares_;  // samples take turns
  std::vector<double> square_;
};

}  // namespace qc
