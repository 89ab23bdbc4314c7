#include "ir/rewriter.h"

#include <unordered_map>

#include "ir/op_def.h"

namespace qc {
namespace {

// Made by Graph because nobody gave a name.
bool isNumbered(const Value& value) { return value.name().find_first_not_of("0123456789") == std::string::npos; }

bool isDead(const Node& node) {
  for (int i = 0; i < node.numResults(); ++i)
    if (node.result(i)->hasUses() || node.result(i)->isOutput()) return false;
  return true;
}

}  // namespace

Builder Rewriter::before(Node* node) {
  Builder builder(graph_);
  builder.before(node);
  return builder;
}

void Rewriter::replace(Node* node, const std::vector<Value*>& values, bool allowTypeChange) {
  QC_REQUIRE("Rewriter::replace", static_cast<int>(values.size()) == node->numResults(), "{} values for the {} results of '{}'",
             values.size(), node->numResults(), node->op());
  changed_ = true;
  std::vector<std::pair<Value*, std::string>> renames;
  for (int i = 0; i < node->numResults(); ++i) {
    Value* old = node->result(i);
    Value* value = nth(values, i);
    if (!value) {
      QC_REQUIRE("Rewriter::replace", !old->hasUses() && !old->isOutput(), "%{} is used and has no replacement", old->name());
      continue;
    }
    if (Node* producer = value->producer()) {
      erased_.erase(producer);  // a new node may sit where an erased one was
      // Fresh: numbered by the graph and used by nobody yet.  An older value keeps the name it has.
      if (isNumbered(*value) && !value->hasUses() && !value->isOutput()) renames.emplace_back(value, old->name());
    }
    old->replaceAllUsesWith(value, allowTypeChange);
  }
  QC_CHECK(isDead(*node), "{} still has uses after its replacement", node->op());
  // Nodes, not values: an operand may go together with the one before it.
  std::vector<Node*> producers;
  for (const Value* operand : node->operands())
    if (operand && operand->producer()) producers.push_back(operand->producer());
  erased_.insert(node);
  graph_.erase(node);
  for (const auto& [value, name] : renames) graph_.rename(value, name);
  for (Node* producer : producers) eraseIfDead(producer);
}

void Rewriter::eraseIfDead(Node* node) {
  std::vector<Node*> pending{node};
  while (!pending.empty()) {
    Node* next = pending.back();
    pending.pop_back();
    if (wasErased(next) || !next->def().has(kPure) || !isDead(*next)) continue;
    for (Value* operand : next->operands())
      if (operand && operand->producer()) pending.push_back(operand->producer());
    erased_.insert(next);
    graph_.erase(next);
    changed_ = true;
  }
}

Result<std::map<std::string, int>> rewritePatterns(Graph& graph, const std::vector<RewriteRule>& rules, int maxRewrites) {
  std::map<std::string, int> hits;
  std::unordered_map<const OpDef*, std::vector<const RewriteRule*>> byRoot;
  for (const RewriteRule& rule : rules) {
    if (rule.pattern.kind != Pattern::Kind::op) return fail(ErrorCode::kInvalidArgument, "rule '{}' has no op at its root", rule.name);
    if (!rule.apply) return fail(ErrorCode::kInvalidArgument, "rule '{}' has no function", rule.name);
    for (const std::string& op : rule.pattern.ops)
      if (const OpDef* def = OpRegistry::get().find(op)) byRoot[def].push_back(&rule);
  }
  // Beyond any graph of this size that is rewritten towards an end.
  constexpr int64_t kMaxPerNode = 100;
  const int64_t most = maxRewrites + kMaxPerNode * graph.numNodes();
  int64_t rewrites = 0;
  // Sweeps in schedule order until one changes nothing.  A node that a rule creates in front of the current one is
  // seen in the next sweep; matching is cheap enough (dispatch by root op) that no finer bookkeeping pays.
  for (bool again = true; again;) {
    again = false;
    Rewriter rewriter(graph);
    for (Node* node : graph.nodes()) {
      if (rewriter.wasErased(node)) continue;
      const auto it = byRoot.find(&node->def());
      if (it == byRoot.end()) continue;
      for (const RewriteRule* rule : it->second) {
        const auto found = match(rule->pattern, *node);
        if (!found) continue;
        const std::string location = node->location();  // the node may be gone afterwards
        QC_ASSIGN(const bool fired, rule->apply(*found, rewriter));
        if (!fired) continue;
        again = true;
        ++hits[rule->name];
        if (++rewrites > most)
          return fail(ErrorCode::kInternal, "rewriting does not end: rule '{}' ({}) fired {} times", rule->name, rule->pattern.str(),
                      hits[rule->name])
              .at(location);
        break;
      }
    }
  }
  return hits;
}

}  // namespace qc
