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
      std::optional<Conditions> guards = neededBy(*node);
      behind_.insert(node);
      if (!guards) continue;
      // A condition that is computed behind the node cannot keep it from running.
      const auto late = [&](const auto& guard) { return guard.first->producer() && behind_.contains(guard.first->producer()); };
      guards->erase(std::find_if(guards->begin(), guards->end(), late), guards->end());
      for (const std::string& symbol : symbolsOf(*node)) join(bySymbol_[symbol], *guards);
      needed_.emplace(node, *std::move(guards));
    }
    for (const Node* node = graph_.front(); node; node = node->next()) {
      const auto known = needed_.find(node);
      const Conditions guards = known == needed_.end() ? givenBy(*node) : known->second;
      for (const std::string& symbol : decidedSymbols(*node)) ofDeciding_[symbol] = guards;
      if (!guards.empty()) found_.emplace(node, guards);
    }
    return std::move(found_);
  }

 private:
  // Nothing: nobody needs it.
  std::optional<Conditions> neededBy(const Node& node) const {
    std::optional<Conditions> all;
    for (int i = 0; i < node.numResults(); ++i) {
      const Value* v = node.result(i);
      if (v->isOutput() && !looked_.contains(v)) return Conditions();
      for (const Use* use : v->uses()) {
        const auto known = needed_.find(use->user());
        if (known == needed_.end()) continue;
        Conditions guards = known->second;
        if (const Value* condition = conditionOf(*use->user()); condition && use->index() > 0)
          guards.emplace_back(condition, use->index() == operandTaken(true));
        join(all, guards);
      }
    }
    for (const std::string& symbol : decidedSymbols(node))
      if (const auto it = bySymbol_.find(symbol); it != bySymbol_.end() && it->second) join(all, *it->second);
    return all;
  }

  // Of what is only looked at: it is there where its operands are.
  Conditions givenBy(const Node& node) const {
    Conditions most;
    const auto take = [&](const Conditions& guards) {
      if (guards.size() > most.size()) most = guards;
    };
    for (const Value* v : node.operands())
      if (const auto it = v ? found_.find(v->producer()) : found_.end(); it != found_.end()) take(it->second);
    for (const std::string& symbol : symbolsOf(node))
      if (const auto it = ofDeciding_.find(symbol); it != ofDeciding_.end()) take(it->second);
    return most;
  }

  const Graph& graph_;
  const std::set<const Value*>& looked_;
  std::map<const Node*, Conditions> needed_, found_;
  std::map<std::string, std::optional<Conditions>> bySymbol_;  // of the nodes that a size stands in
  std::map<std::string, Conditions> ofDeciding_;               // of the one that decides it
  std::set<const Node*> behind_;
};

}  // namespace

const Value* conditionOf(const Node& node) { return node.is("choose") ? node.operand(0) : nullptr; }

int operandTaken(bool holds) { return holds ? 1 : 2; }

Result<bool> holds(const std::string& condition, const Tensor& tensor) {
  if (tensor.numElements() == 1) return tensor.at(0) != 0;
  return fail(ErrorCode::kInvalidData, "a condition is {}", tensor.type().str()).on(condition).help("it has to be one bool");
}

Tensor conditionTensor(bool holds) {
  Tensor t(DType::boolean, {});
  storeElement(DType::boolean, t.mutableData(), 0, holds ? 1 : 0);
  return t;
}

bool isWithin(const Conditions& guards, const Conditions& outer) {
  return guards.size() >= outer.size() && std::equal(outer.begin(), outer.end(), guards.begin());
}

std::map<const Node*, Conditions> conditionsOf(const Graph& graph, const std::set<const Value*>& looked) {
  for (const Node* node = graph.front(); node; node = node->next())
    if (conditionOf(*node)) return Finder(graph, looked).run();
  return {};
}

const Conditions& conditionsOf(const std::map<const Node*, Conditions>& guards, const Node* node) {
  static const Conditions kNone;
  const auto it = guards.find(node);
  return it == guards.end() ? kNone : it->second;
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
    for (const auto& [condition, side] : conditionsOf(guards, node)) level = std::max(level, behind(condition->producer()));
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
