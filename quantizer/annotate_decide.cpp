// Decision: which nodes are int8 (annotate.cpp).
#include <algorithm>

#include "quantizer/annotator.h"

namespace qc {

bool Annotator::reads(const Node* user, int operand) const {
  const Plan& p = plan(user);
  if (p.claimed) {
    const auto& inputs = user->annotation()->inputs;
    return operand < static_cast<int>(inputs.size()) && isSet(nth(inputs, operand));
  }
  return p.mode == QuantMode::full && isDataOperand(*user, *p.policy, operand);
}

bool Annotator::comesInt8(const Value* v) const {
  const Node* producer = v->producer();
  if (!producer) return false;
  const Plan& p = plan(producer);
  return p.claimed ? v->resultIndex() == 0 && isSet(producer->annotation()->output) : p.mode == QuantMode::full && p.hasIntegers;
}

void Annotator::findIntegers() {
  for (const Node* n = graph_.front(); n; n = n->next()) {
    Plan& p = plan(n);
    p.hasIntegers = p.mode == QuantMode::full && p.policy->role != Role::sharing;
    for (int i = 0; i < n->numOperands() && p.mode == QuantMode::full && !p.hasIntegers; ++i)
      p.hasIntegers = isDataOperand(*n, *p.policy, i) && (comesInt8(n->operand(i)) || quantizedAnyway(n->operand(i), n));
  }
}

bool Annotator::wanted(const Node& node) const {
  for (int i = 0; i < node.numResults(); ++i)
    for (const Use* use : node.result(i)->uses())
      if (reads(use->user(), use->index())) return true;
  return std::any_of(options_.quantizedOutputs.begin(), options_.quantizedOutputs.end(), [&](int64_t i) {
    return i >= 0 && i < static_cast<int64_t>(graph_.outputs().size()) && nth(graph_.outputs(), i) == node.result();
  });
}

// The op in front of it is int8 only together with what follows: this is what follows, as a pattern of the backend has it.
bool Annotator::completes(const Node& node) const {
  std::vector<std::string_view> ops = {node.op()};
  const Node* at = backend_ ? &node : nullptr;
  while (at) {
    const Node* before = nullptr;
    for (const Value* v : at->operands())
      if (v && isInt8(v->producer()) && plan(v->producer()).onlyFused && v->hasOneUse()) before = v->producer();
    if (before) ops.insert(ops.begin(), before->op());
    at = before && plan(before).policy->role != Role::weighted ? before : nullptr;
  }
  return ops.size() > 1 && backend_->begins(ops);
}

// Some node with enough work to pay for it quantizes this value, whatever `asker` does.
bool Annotator::quantizedAnyway(const Value* v, const Node* asker) const {
  const auto uses = worthwhileUses_.find(v);
  return uses != worthwhileUses_.end() && std::any_of(uses->second.begin(), uses->second.end(),
                                                      [&](const auto& use) { return use.first != asker && reads(use.first, use.second); });
}

// Why this node should not be int8 as things stand; empty when it should.
std::string Annotator::objection(const Node& node) const {
  const Plan& p = plan(&node);
  if (p.forced) return {};
  const bool heavy = p.policy->role == Role::weighted || p.policy->role == Role::product;
  // Movement may start from floats, unless it drops most of them.
  const bool movable =
      p.policy->role == Role::sharing && !node.is("slice") && !node.is("gather") && !node.is("max_pool") && !node.is("resize");
  for (int i = 0; i < node.numOperands() && !movable; ++i) {
    if (!isDataOperand(node, *p.policy, i)) continue;
    const Value* v = node.operand(i);
    if (v->constant() || comesInt8(v) || quantizedAnyway(v, &node)) continue;
    if (!heavy) return "one of its inputs is float";
    const double work = workPerElement(node, i);
    if (work > 0 && work < options_.minWorkPerElement)
      return fmt::format("too little work to pay for rounding '{}' ({:.1f} multiply-adds per element)", v->name(), work);
  }
  // A max pool is worth it by itself: the result is smaller than what would otherwise be dequantized.
  if (!heavy && !node.is("max_pool") && !wanted(node) && !completes(node)) return "nothing in int8 reads its result";
  return {};
}

// Of a value that thousands read, few are looked at when each of them asks.
void Annotator::findWorthwhileUses() {
  for (const auto& [node, p] : plans_) {
    if (!p.claimed && p.policy->role != Role::weighted && p.policy->role != Role::product) continue;
    for (int i = 0; i < node->numOperands(); ++i)
      if (const Value* v = node->operand(i)) worthwhileUses_[v].emplace_back(node, i);
  }
}

void Annotator::settle() {
  std::vector<Node*> nodes = graph_.nodes();
  for (bool changed = true; changed;) {
    changed = false;
    findIntegers();
    // Alternately from either end, so that both wants and lacks travel far in one sweep.
    std::reverse(nodes.begin(), nodes.end());
    for (const Node* n : nodes) {
      Plan& p = plan(n);
      if (p.mode != QuantMode::full) continue;
      std::string why = objection(*n);
      if (why.empty()) continue;
      p.mode = QuantMode::none;
      p.reason = std::move(why);
      if (p.policy->role == Role::weighted || p.policy->role == Role::product) p.remedy = "default";
      p.costs = true;
      changed = true;
    }
  }
}

}  // namespace qc
