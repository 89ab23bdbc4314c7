#include "ir/pattern.h"

#include <algorithm>

#include "ir/op_def.h"

namespace qc {

Pattern Pattern::as(std::string name) && {
  capture = std::move(name);
  return std::move(*this);
}

Pattern Pattern::oneUse() && {
  singleUse = true;
  return std::move(*this);
}

Pattern Pattern::where(std::function<bool(const Node&)> test) && {
  condition = std::move(test);
  return std::move(*this);
}

std::string Pattern::str() const {
  std::string text;
  if (kind == Kind::any) text = "_";
  if (kind == Kind::constant) text = "const";
  for (const std::string& name : ops) text += (text.empty() ? "" : "|") + name;
  for (size_t i = 0; i < operands.size(); ++i) text += (i ? ", " : "(") + operands[i].str();
  if (!operands.empty()) text += ")";
  return absentOk ? text + "?" : text;
}

Pattern oneOf(std::vector<std::string> names, std::vector<Pattern> operands) {
  Pattern p;
  p.kind = Pattern::Kind::op;
  p.ops = std::move(names);
  p.operands = std::move(operands);
  return p;
}

Pattern op(std::string name, std::vector<Pattern> operands) { return oneOf({std::move(name)}, std::move(operands)); }

Pattern any(std::string capture) {
  Pattern p;
  p.capture = std::move(capture);
  return p;
}

Pattern constant(std::string capture) {
  Pattern p = any(std::move(capture));
  p.kind = Pattern::Kind::constant;
  return p;
}

Pattern maybe(std::string capture) {
  Pattern p = any(std::move(capture));
  p.absentOk = true;
  return p;
}

Value* Match::operator[](const std::string& capture) const {
  const auto it = captures_.find(capture);
  return it == captures_.end() ? nullptr : it->second;
}

// Depth-first with a list of goals instead of nested calls: when a later operand fails, the other order of an
// earlier commutative op is still open.  Depth of recursion = number of ops in the pattern.
class Matcher {
 public:
  static std::optional<Match> run(const Pattern& pattern, Node& root) {
    if (root.numResults() == 0) return std::nullopt;
    Matcher matcher;
    Match start;
    if (!matcher.solve({{&pattern, root.result()}}, start)) return std::nullopt;
    return std::move(matcher.found_);
  }

 private:
  struct Goal {
    const Pattern* pattern;
    Value* value;  // null: absent operand
  };

  bool solve(std::vector<Goal> goals, Match match) {
    while (!goals.empty()) {
      const auto [pattern, value] = goals.back();
      goals.pop_back();
      if (!value) {
        if (!pattern->absentOk) return false;
        continue;
      }
      if (!accepts(*pattern, *value, match)) return false;
      if (pattern->kind != Pattern::Kind::op) continue;
      Node& node = *value->producer();
      match.nodes_.push_back(&node);
      if (pattern->operands.empty()) continue;
      if (node.def().has(kCommutative)) {
        std::vector<Goal> swapped = goals;
        push(swapped, *pattern, node, true);
        std::vector<Goal> straight = goals;
        push(straight, *pattern, node, false);
        return solve(std::move(straight), match) || solve(std::move(swapped), std::move(match));
      }
      push(goals, *pattern, node, false);
    }
    found_ = std::move(match);
    return true;
  }

  // Last operand first: goals are taken from the back, so nodes come out root first, operands left to right.
  static void push(std::vector<Goal>& goals, const Pattern& pattern, const Node& node, bool swap) {
    for (int i = static_cast<int>(pattern.operands.size()) - 1; i >= 0; --i)
      goals.push_back({&nth(pattern.operands, i), node.operand(swap && i < 2 ? 1 - i : i)});
  }

  static bool accepts(const Pattern& pattern, Value& value, Match& match) {
    const Node* producer = value.producer();
    if (pattern.singleUse && (value.isOutput() || (value.hasUses() && !value.hasOneUse()))) return false;
    if (pattern.kind == Pattern::Kind::constant && !value.constant()) return false;
    if (pattern.kind == Pattern::Kind::op &&
        (!producer || std::find(pattern.ops.begin(), pattern.ops.end(), producer->op()) == pattern.ops.end()))
      return false;
    if (pattern.condition && (!producer || !pattern.condition(*producer))) return false;
    if (pattern.capture.empty()) return true;
    // A name used twice stands for one value: mul(x, sigmoid(x)).
    return match.captures_.emplace(pattern.capture, &value).first->second == &value;
  }

  Match found_;
};

std::optional<Match> match(const Pattern& pattern, Node& root) { return Matcher::run(pattern, root); }

}  // namespace qc
