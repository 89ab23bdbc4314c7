// Factors per channel that make a value fit 8 bits better: what smooth-quant and equalize-layers have in common.  A value divided by s
// per channel, and the weights that read it multiplied by s, is the same function; rounding disturbs it less or more.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "passes/pass.h"
#include "quantizer/channel_statistics.h"

namespace qc {

// Channel c of n ranges over +-spread^(c / (n - 1)): stands in for data in tests.
ChannelStatistics spreadChannels(int64_t channels, double spread);

// A linear, or a conv with channels first, of constant float weights; the channels are those of its operand 0.
bool readsChannels(const Node& node);

// Which channel of its input an element of a layer's weight reads.  Requires: readsChannels().
struct InputChannels {
  explicit InputChannels(const Node& layer);
  size_t of(size_t element) const {
    return usize(static_cast<int64_t>(element) / perOutput / outputsPerGroup * channels + static_cast<int64_t>(element) % perOutput / taps);
  }
  // visit(element, channel) for every element, in order.
  template <class Visit>
  void each(Visit visit) const {
    size_t element = 0;
    for (int64_t o = 0; o < outputs; ++o) {
      const size_t first = usize(o / outputsPerGroup * channels);
      for (size_t c = first; c < first + usize(channels); ++c)
        for (int64_t tap = 0; tap < taps; ++tap) visit(element++, c);
    }
  }
  int64_t outputs, perOutput, taps, channels, outputsPerGroup;  // channels: of a group
};

// What passes know of the integers that weights are going to become; of layers that differ, those of most.
struct WeightSteps {
  int64_t count = 255;
};
double weightSteps(PassContext& cx);  // where nothing is provided, those of 8 bits

inline constexpr double kWorthwhile = 0.8;  // of the noise without

// The factors with which rounding the value and the weights of its readers is expected to disturb their results least: max|x|^a /
// max|w|^(1-a) for the best a.  Nothing when the noise does not fall below `worthwhile` times what it is.  Channels of equal range are all
// cut off where a new sample goes further, unlike quiet ones beside a loud one; that counts as noise, too, measured from share to share.
// weightSteps: between the least and the greatest integer of the weights.
std::vector<double> bestFactors(const std::vector<Node*>& readers, const ChannelStatistics& x, double worthwhile, double weightSteps);

// For every channel the largest weight that reads it.
std::vector<double> largestWeights(const std::vector<Node*>& readers, size_t channels);

std::vector<float> reciprocals(const std::vector<double>& s);

// Multiplies what reads channel j by s[j]; the weight becomes a constant of this node's own.
void scaleInputs(Graph& graph, Node* reader, const std::vector<double>& s);

// [.., n] constant: element i times s[i % n], or divided by it.
Tensor scaledLast(const Tensor& t, const std::vector<double>& s, bool divide);

}  // namespace qc
