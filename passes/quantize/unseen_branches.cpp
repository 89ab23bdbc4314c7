// A branch that no sample passes through has no ranges, and stays float.
#include <algorithm>

#include "ir/branches.h"
#include "passes/pass.h"
#include "passes/quantize/convert_parts.h"

namespace qc {
namespace {

std::string words(const Conditions& guards) {
  return fmt::format("no sample takes the branch where '{}' is {}", guards.back().first->name(), guards.back().second);
}

// With the first node of each that was to be observed.
std::vector<std::pair<const Node*, Conditions>> unseenBranches(const Graph& graph, const std::map<const Node*, Conditions>& branches,
                                                               const GroupParams& params) {
  std::vector<std::pair<const Node*, Conditions>> unseen;
  for (const Node* node = graph.front(); node; node = node->next()) {
    const Conditions& guards = conditionsOf(branches, node);
    if (guards.empty() || !node->is("observe") || !node->annotation() ||
        !std::holds_alternative<ObservedSpec>(node->annotation()->output) || params.contains(node->integer("id")))
      continue;
    if (std::ranges::none_of(unseen, [&](const auto& known) { return known.second == guards; })) unseen.emplace_back(node, guards);
  }
  return unseen;
}

}  // namespace

std::map<const Node*, std::string> unseenNodes(const Graph& graph, const GroupParams& params) {
  const std::map<const Node*, Conditions> branches = conditionsOf(graph);
  const auto unseen = unseenBranches(graph, branches, params);
  std::map<const Node*, std::string> found;
  for (const auto& [node, guards] : branches)
    for (const auto& [first, branch] : unseen)
      if (isWithin(guards, branch)) found.emplace(node, words(branch));
  return found;
}

void keepUnseenFloat(Graph& graph, const GroupParams& params, PassContext& cx) {
  const std::map<const Node*, Conditions> branches = conditionsOf(graph);
  const auto unseen = unseenBranches(graph, branches, params);
  for (const auto& [node, branch] : unseen) cx.remark(node, words(branch) + ": its layers stay float");
  for (Node* node : graph.nodes()) {
    if (std::ranges::none_of(unseen, [&](const auto& branch) { return isWithin(conditionsOf(branches, node), branch.second); })) continue;
    node->annotation().reset();
    if (!node->is("observe")) continue;
    node->result()->replaceAllUsesWith(node->operand(0));
    graph.erase(node);
  }
}

}  // namespace qc
