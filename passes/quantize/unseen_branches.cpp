// A branch that no sample passes through has no ranges, and stays float.
#include <algorithm>

#include "ir/branches.h"
#include "passes/pass.h"
#include "passes/quantize/convert_parts.h"

namespace qc {

void keepUnseenFloat(Graph& graph, const GroupParams& params, PassContext& cx) {
  const std::map<const Node*, Conditions> branches = conditionsOf(graph);
  std::vector<Conditions> unseen;
  for (const Node* node = graph.front(); node; node = node->next()) {
    const Conditions& guards = conditionsOf(branches, node);
    if (guards.empty() || !node->is("observe") || !node->annotation() ||
        !std::holds_alternative<ObservedSpec>(node->annotation()->output) || params.contains(node->integer("id")))
      continue;
    if (std::ranges::find(unseen, guards) != unseen.end()) continue;
    unseen.push_back(guards);
    cx.remark(node, fmt::format("no sample takes the branch where '{}' is {}: its layers stay float", guards.back().first->name(),
                                guards.back().second));
  }
  for (Node* node : graph.nodes()) {
    if (std::ranges::none_of(unseen, [&](const Conditions& guards) { return isWithin(conditionsOf(branches, node), guards); })) continue;
    node->annotation().reset();
    if (!node->is("observe")) continue;
    node->result()->replaceAllUsesWith(node->operand(0));
    graph.erase(node);
  }
}

}  // namespace qc
