// What the inputs of a convolution or linear layer look like, as far as rounding its weights and correcting its bias need to know: sums
// over positions of x and of x x^T, where x holds the inputs that one output multiplies, in the order of the weight's elements.
// Memory is bounded by the layer's own size, whatever the number of samples: positions are drawn from each, always the same ones.
//
//   if (auto sampler = LayerSampler::of(node, {.positionsPerSample = 64})) sampler->add(input, sampleIndex);
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "quantizer/observers/product_sums.h"

namespace qc {

struct LayerStatistics {
  int64_t groups = 1;
  int64_t depth = 0;        // inputs of one output: channels of a group times taps of the kernel
  int64_t positions = 0;    // summed over
  int64_t samples = 0;      // that these are from
  std::vector<float> gram;  // [groups, depth, depth]: sums of x_i x_j; empty when it was not asked for
  std::vector<double> sum;  // [groups, depth]: sums of x_i

  // How far they hold for other samples: positions of one sample go together, so that the samples count.  What is found is drawn towards
  // nothing by the weight of one sample.
  double trust() const { return static_cast<double>(samples) / static_cast<double>(samples + 1); }
  // As trust(), of how inputs go together, of which few positions say little: drawn towards nothing by the weight of half a position per
  // input.
  double trustOfProducts() const {
    const auto seen = static_cast<double>(positions);
    return trust() * seen / (seen + 0.5 * static_cast<double>(depth));
  }
  bool isFinite() const;  // else inputs were so large that their sums say nothing
  double mean(int64_t i) const { return positions ? nth(sum, i) / static_cast<double>(positions) : 0.0; }
};

// W E[x] - W' E[x'] for every output channel: what the mean of a layer with the weights W' on the inputs `seen` lacks of that with the
// weights W on the inputs x, drawn towards nothing by trust().  Weights [channels, ...], f32.
std::vector<float> missingMean(const Tensor& w, const LayerStatistics& x, const Tensor& rounded, const LayerStatistics& seen);

bool allFinite(std::span<const float> values);
inline bool allFinite(const TensorRef& f32) { return allFinite({f32.as<float>(), usize(f32.numElements())}); }

// Spreads choices over a sample without a pattern that could follow the rows of an image.
uint64_t scramble(uint64_t x);

// By the name of the layer's result.
using StatisticsByLayer = std::map<std::string, LayerStatistics>;

struct SamplerOptions {
  int64_t positionsPerSample = 64;
  bool gram = true;
  int64_t largestGram = int64_t{1} << 22;  // elements; a layer that needs more has means alone
  bool operator==(const SamplerOptions&) const = default;
};

class LayerSampler {
 public:
  // Of a conv (channels first) or linear with constant weights; nothing for other nodes.
  static std::optional<LayerSampler> of(const Node& layer, const SamplerOptions& options);

  // Of the same inputs both find the same.
  bool looksLike(const LayerSampler& other) const;
  // Operand 0 of the layer, f32, as the graph has it.  A convolution passes over images of other sizes than the graph's, and all layers
  // over what is not finite: one such number would be all that sums say.
  void add(const TensorRef& input, int64_t sample);
  LayerStatistics take() &&;

 private:
  struct Axis {
    int64_t kernel, stride, dilation, pad, padBehind, in = 0, out = 0;
    bool operator==(const Axis&) const = default;
  };
  void gather(const float* x, std::span<const int64_t> positions);  // the inputs of every group there
  void findTaps(int64_t position);
  bool fits(const TensorRef& input) const;
  void resize(std::span<const int64_t> sizes);  // the axes to those of an input

  SamplerOptions options_;
  LayerStatistics statistics_;
  std::vector<Axis> axes_;     // none: linear
  bool free_ = false;          // their sizes are those of each input
  int64_t channels_ = 1;       // of a group
  std::vector<int64_t> taps_;  // of every position: where they are in the first plane of a group, -1 in the padding
  ProductSums sums_;
};

}  // namespace qc
