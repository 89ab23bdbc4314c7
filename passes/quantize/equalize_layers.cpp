// equalize-layers: between two layers with only a relu or a pool in the middle, channels that are much larger than the rest take the range
// of all.  The first layer's channels are divided by a factor each, the second's inputs multiplied by it: the same function, with a value
// between them that fits 8 bits better (cross-layer equalization; here with the factors that promise the least noise, see channel_noise.h).
// Statistics come from cx.provide(ChannelsByValue); the option `spread` stands in for them.  Tests: tests/golden/equalize_layers.
#include "passes/passes.h"
#include "passes/quantize/channel_noise.h"
#include "passes/quantize/layer_pairs.h"

namespace qc {

int equalizableAxis(const Value& value) {
  const std::optional<FactorPair> pair = value.producer() ? pairAt(*value.producer()) : std::nullopt;
  return pair ? pair->axis : -1;
}

Status equalizeLayers(Graph& graph, PassContext& cx) {
  const double spread = cx.options.real("spread");
  const auto* known = cx.get<ChannelsByValue>();
  int layers = 0;
  Moves moves("equalize_layers");
  for (Node* node : graph.nodes()) {
    const std::optional<FactorPair> pair = pairAt(*node);
    if (!pair) continue;
    ChannelStatistics x;
    if (spread > 0) {
      x = spreadChannels(pair->channels, spread);
    } else if (known) {
      if (const auto it = known->find(pair->value->name()); it != known->end()) x = it->second;
    }
    if (static_cast<int64_t>(x.max.size()) != pair->channels) continue;
    const std::vector<double> s = bestFactors(pair->readers, x, kWorthwhile, weightSteps(cx));
    if (s.empty()) continue;
    moveFactors(graph, *pair, s, moves);
    ++layers;
  }
  moves.addTo(graph);
  cx.countHits({{"pairs", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
