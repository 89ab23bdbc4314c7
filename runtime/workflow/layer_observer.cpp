#include "runtime/workflow/layer_observer.h"

#include <algorithm>

namespace qc {

std::vector<const Node*> int8Layers(const Graph& prepared) {
  std::vector<const Node*> layers;
  for (const Node* n = prepared.front(); n; n = n->next()) {
    const auto& a = n->annotation();
    if (a && a->inputs.size() > 1 && isSet(a->inputs[0]) && isSet(a->inputs[1]) && (n->is("conv") || n->is("linear")) &&
        n->operand("w")->constant())
      layers.push_back(n);
  }
  return layers;
}

std::vector<int64_t> spreadSamples(int64_t size, int64_t limit) {
  std::vector<int64_t> indices;
  const int64_t count = std::min(limit, size);
  for (int64_t i = 0; i < count; ++i) indices.push_back(i * size / count);
  return indices;
}

void LayerObserver::watch(const Graph& graph, const std::vector<const Node*>& layers, int64_t size) {
  watches_ = true;
  samples_ = spreadSamples(size, options_.samples);
  for (const Node* layer : layers) {
    const Tensor& weight = *layer->operand("w")->constant();
    const int64_t depth = weight.numElements() / std::max<int64_t>(1, weight.sizes()[0]);
    const int64_t positions = std::max(options_.positions, 4 * depth) / std::max<int64_t>(1, static_cast<int64_t>(samples_.size())) + 1;
    auto sampler = LayerSampler::of(*layer, {.positionsPerSample = positions, .gram = options_.gram});
    const Value* result = graph.findValue(layer->result()->name());
    if (!sampler || !result || !result->producer()) continue;
    // Layers that read the same value in the same way share what is found of it.
    const std::string& input = result->producer()->operand(0)->name();
    size_t k = 0;
    while (k < samplers_.size() && !(values_[k] == input && samplers_[k].looksLike(*sampler))) ++k;
    samplerOf_.emplace_back(layer->result()->name(), k);
    if (k < samplers_.size()) continue;
    values_.push_back(input);
    samplers_.push_back(std::move(*sampler));
  }
}

void LayerObserver::see(int64_t sample, std::span<const Tensor> values) {
  if (next_ == samples_.size() || samples_[next_] != sample) return;
  for (size_t k = 0; k < samplers_.size(); ++k) samplers_[k].add(values[k].ref(), static_cast<int64_t>(next_));
  ++next_;
}

StatisticsByLayer LayerObserver::take() && {
  std::vector<LayerStatistics> found;
  for (LayerSampler& sampler : samplers_) found.push_back(std::move(sampler).take());
  StatisticsByLayer statistics;
  for (const auto& [name, k] : samplerOf_) statistics.emplace(name, found[k]);
  return statistics;
}

}  // namespace qc
