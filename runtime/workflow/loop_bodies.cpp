#include "runtime/workflow/loop_bodies.h"

#include <algorithm>

#include "ir/loops.h"
#include "quantizer/modes.h"
#include "runtime/workflow/quantize.h"

namespace qc {
namespace {

// For the body of a loop about which this configuration decides.
QConfigMapping rulesFor(const QConfig& config) {
  if (modeOf(config) == QuantMode::full || config == dynamicQConfig(Backend::x86)) return dynamicQConfigMapping(Backend::x86);
  return QConfigMapping().global(config);
}

}  // namespace

Status quantizeBodies(Graph& graph, const PreparedModel& model, CoverageReport& coverage, PassContext& cx) {
  if (!model.rules || std::ranges::none_of(graph.nodes(), [](const Node* n) { return bodyOf(*n) != nullptr; })) return {};
  QC_ASSIGN(const ResolvedRules resolved, model.rules->resolve(*model.simplified));
  std::map<std::string, const QConfig*> decided;
  for (const Node* n = model.simplified->front(); n; n = n->next())
    if (bodyOf(*n)) decided[displayName(*n)] = resolved.of(*n).config();
  for (Node* loop : graph.nodes()) {
    const auto config = decided.find(displayName(*loop));
    if (!bodyOf(*loop) || config == decided.end() || !config->second || modeOf(*config->second) == QuantMode::none) continue;
    auto quantized = quantize(Model(bodyOf(*loop)->clone(), model.name), rulesFor(*config->second));
    if (!quantized) return tl::make_unexpected(std::move(quantized.error()).at(loop->location()));
    loop->attrs().set("body", GraphAttr(quantized->model.graph().clone()));
    std::erase_if(coverage.rows, [&](const CoverageRow& row) { return row.op == "loop" && row.node == displayName(*loop); });
    coverage.rows.insert(coverage.rows.end(), quantized->coverage.rows.begin(), quantized->coverage.rows.end());
    cx.remarks.insert(cx.remarks.end(), quantized->remarks.begin(), quantized->remarks.end());
  }
  return {};
}

}  // namespace qc
