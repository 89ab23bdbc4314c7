// What a convolution or linear layer reads beside what its result should be: sums over positions of x, x x^T, y and y x^T, where x holds
// the inputs that one output multiplies, in the order of the weight's elements, and y what the outputs should be there.  From these follow
// the weights and the bias that come nearest to y.  Memory is bounded by the layer's own size; positions are drawn, always the same ones.
//
//   if (auto sampler = LayerResponseSampler::of(layer, 64)) sampler->add(input, wanted, sampleIndex);
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quantizer/layer_statistics.h"

namespace qc {

struct LayerResponse {
  LayerStatistics inputs;    // with products
  std::vector<float> cross;  // [channels, depth]: sums of y_o x_i
  std::vector<double> sum;   // [channels]: sums of y_o
};

// By the name of the layer's result.
using ResponseByLayer = std::map<std::string, LayerResponse>;

class LayerResponseSampler {
 public:
  // Of a conv (channels first) or linear with constant weights that is not too large for such sums; nothing for other nodes.
  static std::optional<LayerResponseSampler> of(const Node& layer, int64_t positionsPerSample);

  // f32: operand 0 of the layer, and its result as it should be, in the layout of the graph.  Those of other shapes, or with a
  // number that is not finite, are passed over.
  void add(const TensorRef& input, const TensorRef& wanted, int64_t sample);
  LayerResponse take() &&;

 private:
  void gather(const float* x, const float* y, std::span<const int64_t> positions);

  LayerStatistics inputs_;
  int64_t outputs_ = 0, positionsPerSample_ = 0;
  bool isConv_ = false;
  std::vector<int64_t> weightShape_;
  AttrDict attrs_;
  std::vector<int64_t> taps_;  // of a conv: for each position of the result, then each tap: its place in a plane of the input, or -1
  int64_t planes_ = 1, outPlane_ = 1, inPlane_ = 1;
  ProductSums sums_;
};

}  // namespace qc
