// round-weights: on a graph with observers, picks the integers of each int8 weight so that the layer's result moves least on the
// calibration data, instead of each integer being the nearest (passes/quantize/integer_descent.h), under at most as many scales as the
// option `scales` says.
// What layers read comes from cx.provide(StatisticsByLayer); layers without are left alone.  The option `correlation` stands in for data.
// Tests: tests/golden/round_weights.
#include <algorithm>

#include "passes/passes.h"
#include "passes/quantize/integer_descent.h"

namespace qc {

Status roundWeights(Graph& graph, PassContext& cx) {
  const double correlation = cx.options.real("correlation");
  const int64_t maxScales = std::max<int64_t>(1, cx.options.integer("scales"));
  const auto* known = cx.get<StatisticsByLayer>();
  int layers = 0;
  for (Node* node : graph.nodes()) {
    if (!isRoundable(*node)) continue;
    LayerStatistics replacement;
    const LayerStatistics* statistics = nullptr;
    if (correlation > 0) {
      replacement = correlatedInputs(*node, correlation);
      statistics = &replacement;
    } else if (known) {
      if (const auto it = known->find(node->result()->name()); it != known->end()) statistics = &it->second;
    }
    if (!statistics) continue;
    int64_t moved = 0;
    QC_ASSIGN(const bool done, roundLayer(graph, node, *statistics, {}, maxScales, moved));
    if (!done) continue;
    ++layers;
    cx.countHits({{"moved", static_cast<int>(moved)}});
  }
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
