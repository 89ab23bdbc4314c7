#include "ir/branches.h"

#include <algorithm>
#include <optional>
#include <string>

#include "ir/decided_sizes.h"

namespace qc {
namespace {

// What several need: the conditions that all of them have.
void join(std::optional<Conditions>& all, const Conditions& one) {
  if (!all) {
    all = one;
    return;
  }
  all->erase(std::mismatch(all->begin(), all->end(), one.begin(), one.end()).first, all->end());
}

class Finder {
 public:
  Finder(const Graph& graph, const std::set<const Value*>& looked) : graph_(graph), looked_(looked) {}

  std::map<const Node*, Conditions> run() {
    for (const Node* node = graph_.back(); node; node = node->previous()) {
      Conditions guards = neededBy(*node);
      // A condition that is computed behind the node cannot keep it from running.
      const auto late = [&](const auto& guard) { return guard.first->producer() && behind_.contains(guard.first->producer()); };
      guards.erase(std::find_if(guards.begin(), guards.end(), late), guards.end());
      for (const std::string& symbol : symbolsOf(*node)) join(bySymbol_[symbol], guards);
      behind_.insert(node);
      if (!guards.empty()) found_.emplace(node, std::move(guards));
    }
    return std::move(found_);
  }

 private:
  Conditions neededBy(const Node& node) {
    std::optional<Conditions> all;
    for (int i = 0; i < node.numResults(); ++i) {
      const Value* v = node.result(i);
      if (v->isOutput() && !looked_.contains(v)) return {};
      for (const Use* use : v->uses()) {
        const auto known = found_.find(use->user());
        Conditions guards = known == found_.end() ? Conditions() : known->second;
        if (const Value* condition = conditionOf(*use->user()); condition && use->index() > 0)
          guards.emplace_back(condition, use->index() == operandTaken(true));
        join(all, guards);
      }
    }
    for (const std::string& symbol : decidedSymbols(node))
      if (const auto& guards = bySymbol_[symbol]) join(all, *guards);
    return all.value_or(Conditions());
  }

  const Graph& graph_;
  const std::set<const Value*>& looked_;
  std::map<const Node*, Conditions> found_;
  std::map<std::string, std::optional<Conditions>> bySymbol_;  // of the nodes that a size stands in
  std::set<const Node*> behind_;
};

}  // namespace

const Value* conditionOf(const Node& node) { return node.is("choose") ? node.operand(0) : nullptr; }

int operandTaken(bool holds) { return holds ? 1 : 2; }

Result<bool> holds(const std::string& condition, const Tensor& tensor) {
  if (tensor.numElements() == 1) return tensor.at(0) != 0;
  return fail(ErrorCode::kInvalidData, "a condition is {}", tensor.type().str()).on(condition).help("it has to be one bool");
}

bool isWithin(const Conditions& guards, const Conditions& outer) {
  return guards.size() >= outer.size() && std::equal(outer.begin(), outer.end(), guards.begin());
}

std::map<const Node*, Conditions> conditionsOf(const Graph& graph, const std::set<const Value*>& looked) {
  for (const Node* node = graph.front(); node; node = node->next())
    if (conditionOf(*node)) return Finder(graph, looked).run();
  return {};
}

Result<std::map<const Node*, size_t>> levelsOf(const Graph& graph, const std::map<const Node*, Conditions>& guards,
                                               const std::function<bool(const Node&)>& isWaitedFor) {
  std::map<const Node*, size_t> levels;
  std::map<std::string, size_t> ofSymbols;
  for (const Value* input : graph.inputs())
    for (const Dim& dim : input->type().shape)
      for (const std::string& symbol : dim.expr().symbols()) ofSymbols[symbol] = 0;
  const auto behind = [&](const Node* node) { return node ? levels.at(node) + (isWaitedFor(*node) ? 1 : 0) : 0; };
  for (const Node* node = graph.front(); node; node = node->next()) {
    size_t level = 0;
    for (const Value* v : node->operands())
      if (v) level = std::max(level, behind(v->producer()));
    if (const auto own = guards.find(node); own != guards.end())
      for (const auto& [condition, side] : own->second) level = std::max(level, behind(condition->producer()));
    const std::set<std::string> own = decidedSymbols(*node);
    for (const std::string& symbol : symbolsOf(*node)) {
      if (own.contains(symbol)) continue;
      const auto known = ofSymbols.find(symbol);
      if (known == ofSymbols.end())
        return fail(ErrorCode::kInvalidModel, "the size '{}' is decided by nothing in front of this node", symbol).at(node->location());
      level = std::max(level, known->second);
    }
    levels[node] = level;
    for (const std::string& symbol : own) ofSymbols[symbol] = behind(node);
  }
  return levels;
}

}  // namespace qc
