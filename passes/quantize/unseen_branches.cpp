// A branch that no sample passes through stays float: its values have no ranges, and those that it reads from around have the ranges of
// other samples.
#include <algorithm>
#include <optional>

#include "ir/branches.h"
#include "passes/pass.h"
#include "passes/quantize/convert_parts.h"
#include "quantizer/rules/spec_json.h"

namespace qc {
namespace {

using Branches = std::vector<std::pair<const Node*, Conditions>>;

// Samples that came to a side of a condition.  Nothing: that is not known.
std::optional<int64_t> samplesOf(const Conditions::value_type& guard, const BranchCounts& branches) {
  const auto counts = branches.find(asText(guard.first->name()));
  return counts == branches.end() ? std::nullopt : std::optional(counts->second[guard.second ? 1 : 0]);
}

std::string words(const Conditions& guards, const BranchCounts& branches) {
  const auto& [condition, holds] = guards.back();
  const bool isTaken = samplesOf(guards.back(), branches).value_or(0) > 0;
  return fmt::format("no sample {} the branch where '{}' is {}", isTaken ? "has elements in" : "takes", condition->name(), holds);
}

// Whether a node computes with parameters of samples: not where they are found at run time, nor where its constants alone are integers.
bool isCalibrated(const Node& node) {
  if (!node.annotation()) return false;
  const QuantAnnotation& annotation = *node.annotation();
  if (node.is("observe") || isSet(annotation.output)) return true;
  for (int i = 0; i < static_cast<int>(annotation.inputs.size()); ++i) {
    const Value* operand = node.operand(i);
    if (isSet(nth(annotation.inputs, i)) && operand && !operand->constant() && !annotation.dynamicInput(i)) return true;
  }
  return false;
}

// The outermost of the branches that a node is in which no sample takes; none: empty.
Conditions untaken(const Conditions& guards, const BranchCounts& branches) {
  for (auto guard = guards.begin(); guard != guards.end(); ++guard)
    if (samplesOf(*guard, branches) == 0) return {guards.begin(), guard + 1};
  return {};
}

// With the first node of each that was to be calibrated.
Branches unseenBranches(const Graph& graph, const std::map<const Node*, Conditions>& branches, const GroupParams& params) {
  Branches unseen;
  for (const Node* node = graph.front(); node; node = node->next()) {
    const Conditions& guards = conditionsOf(branches, node);
    if (guards.empty() || !isCalibrated(*node)) continue;
    Conditions branch = untaken(guards, params.branches);
    const bool hasNoRange =
        node->is("observe") && std::holds_alternative<ObservedSpec>(node->annotation()->output) && !params.contains(node->integer("id"));
    if (branch.empty() && hasNoRange) branch = guards;
    if (branch.empty() || std::ranges::any_of(unseen, [&](const auto& known) { return known.second == branch; })) continue;
    unseen.emplace_back(node, std::move(branch));
  }
  return unseen;
}

const Conditions* branchAround(const Node* node, const std::map<const Node*, Conditions>& branches, const Branches& unseen) {
  const auto found =
      std::ranges::find_if(unseen, [&](const auto& branch) { return isWithin(conditionsOf(branches, node), branch.second); });
  return found == unseen.end() ? nullptr : &found->second;
}

}  // namespace

std::set<std::string> calibratedConditions(const Graph& observed) {
  std::set<std::string> names;
  for (const auto& [node, guards] : conditionsOf(observed))
    for (const auto& [condition, holds] : guards)
      if (isCalibrated(*node)) names.insert(condition->name());
  return names;
}

std::map<const Node*, std::string> unseenNodes(const Graph& graph, const GroupParams& params) {
  const std::map<const Node*, Conditions> branches = conditionsOf(graph);
  const Branches unseen = unseenBranches(graph, branches, params);
  std::map<const Node*, std::string> found;
  for (const auto& [node, guards] : branches)
    if (const Conditions* branch = branchAround(node, branches, unseen); branch && isCalibrated(*node))
      found.emplace(node, words(*branch, params.branches));
  return found;
}

void keepUnseenFloat(Graph& graph, const GroupParams& params, PassContext& cx) {
  const std::map<const Node*, Conditions> branches = conditionsOf(graph);
  const Branches unseen = unseenBranches(graph, branches, params);
  for (const auto& [node, branch] : unseen)
    cx.remark(node, words(branch, params.branches) + ": its layers stay float; give samples that do");
  for (Node* node : graph.nodes()) {
    if (!isCalibrated(*node) || !branchAround(node, branches, unseen)) continue;
    node->annotation().reset();
    if (!node->is("observe")) continue;
    node->result()->replaceAllUsesWith(node->operand(0));
    graph.erase(node);
  }
}

}  // namespace qc
