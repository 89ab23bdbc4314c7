// Patterns are data: an anchored tree of ops, matched from the last op towards its producers.  Used alike by
// the quantizer and by passes; printable, so that reports can name them.
//
//   const Pattern p = op("relu", {op("add", {op("conv", {any("x"), constant("w"), maybe("b")}).as("conv").oneUse(), any("r")}).oneUse()});
//   if (auto m = match(p, *node)) use((*m)["conv"]);
//
// Commutative ops are tried in both orders.  oneUse(): the matched value has no other user and is not a graph output.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace qc {

class Pattern {
 public:
  enum class Kind { any, constant, op };
  Kind kind = Kind::any;
  std::vector<std::string> ops;   // Kind::op: one of these
  std::vector<Pattern> operands;  // fewer than the node's: the rest is unconstrained
  std::string capture;
  bool singleUse = false;
  bool absentOk = false;  // operand may be missing
  std::function<bool(const Node&)> condition;

  Pattern as(std::string name) &&;
  Pattern oneUse() &&;
  Pattern where(std::function<bool(const Node&)> condition) &&;
  std::string str() const;  // "relu(add(conv, _))"
};

Pattern op(std::string name, std::vector<Pattern> operands = {});
Pattern oneOf(std::vector<std::string> names, std::vector<Pattern> operands = {});
Pattern any(std::string capture = {});
Pattern constant(std::string capture = {});
Pattern maybe(std::string capture = {});  // an optional operand, present or not

class Match {
 public:
  Node* root() const { return nodes_.front(); }
  const std::vector<Node*>& nodes() const { return nodes_; }  // matched op nodes, root first
  Value* operator[](const std::string& capture) const;        // null if the capture was absent
  Node* node(const std::string& capture) const { return (*this)[capture] ? (*this)[capture]->producer() : nullptr; }  // null: none

 private:
  friend std::optional<Match> match(const Pattern&, Node&);
  friend class Matcher;
  std::vector<Node*> nodes_;
  std::map<std::string, Value*> captures_;
};

std::optional<Match> match(const Pattern& pattern, Node& root);

}  // namespace qc
