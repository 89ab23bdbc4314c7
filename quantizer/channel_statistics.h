// What the channels of a value look like over samples: what smoothing and equalizing go by (passes/quantize/channel_noise.h).
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "ir/tensor.h"

namespace qc {

// Per channel the range, 0 included, and mean square.
struct ChannelStatistics {
  std::vector<float> min, max;
  std::vector<double> square;
  // The same range over shares of the samples: how far what one share holds leaves the range of the others is how far new samples will
  // leave that of all.  Empty: not known, and not reckoned with.
  struct Share {
    std::vector<float> min, max;
    double positions = 0;  // values of each channel
  };
  std::vector<Share> shares = {};
};
using ChannelsByValue = std::map<std::string, ChannelStatistics>;

class ChannelObserver {
 public:
  ChannelObserver(int64_t channels, int axis) : channels_(usize(channels)), axis_(axis) {}

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
