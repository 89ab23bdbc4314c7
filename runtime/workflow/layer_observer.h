// Collects the statistics of the inputs of int8 layers (quantizer/layer_statistics.h) while samples run through a graph, so that a run
// that happens anyway, as calibration's does, serves rounding weights and correcting biases as well.
//
//   LayerObserver observer({.gram = true});
//   observer.watch(graph, layers, samples.size());
//   // run the samples; give observer.see() the values named by observer.values() of each
//   StatisticsByLayer statistics = std::move(observer).take();
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "quantizer/layer_statistics.h"

namespace qc {

struct LayerObserverOptions {
  int64_t samples = 128;     // at most so many of the set, evenly spread
  int64_t positions = 8192;  // of every layer, at least, over all samples
  bool gram = true;
};

// The convolutions and linear layers with constant weights that the annotations of a graph make int8.
std::vector<const Node*> int8Layers(const Graph& prepared);

// So many of a set of samples, at most, evenly spread.
std::vector<int64_t> spreadSamples(int64_t size, int64_t limit);

class LayerObserver {
 public:
  explicit LayerObserver(const LayerObserverOptions& options) : options_(options) {}

  // Layers of a graph, or of one where their results had the same names; `size` is that of the whole set of samples.
  void watch(const Graph& graph, const std::vector<const Node*>& layers, int64_t size);
  const std::vector<std::string>& values() const { return values_; }      // to be seen, by name
  const std::vector<int64_t>& samples() const { return samples_; }        // that matter, rising
  bool complete() const { return watches_ && next_ == samples_.size(); }  // it saw all of them

  // The values of one sample; samples come in rising order, and those that do not matter are passed over.
  void see(int64_t sample, std::span<const Tensor> values);
  StatisticsByLayer take() &&;

 private:
  LayerObserverOptions options_;
  bool watches_ = false;
  std::vector<int64_t> samples_;
  size_t next_ = 0;
  std::vector<std::string> values_;
  std::vector<LayerSampler> samplers_;                     // one per value
  std::vector<std::pair<std::string, size_t>> samplerOf_;  // by name of the layer's result
};

}  // namespace qc
