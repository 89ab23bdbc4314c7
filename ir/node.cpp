// Uses, values and nodes of a graph; the graph itself is in graph.cpp.
#include "ir/graph.h"

#include <algorithm>

#include "ir/op_def.h"
#include "ir/verify.h"

namespace qc {

// ---- Use, Value -------------------------------------------------------------------------------

void Use::set(Value* value) {
  if (value_) {
    *previous_ = next_;
    if (next_) next_->previous_ = previous_;
  }
  value_ = value;
  next_ = nullptr;
  previous_ = nullptr;
  if (!value) return;
  next_ = value->uses_;
  previous_ = &value->uses_;
  if (next_) next_->previous_ = &next_;
  value->uses_ = this;
}

std::vector<Use*> Value::uses() const {
  std::vector<Use*> all;
  for (Use* u = uses_; u; u = u->next()) all.push_back(u);
  return all;
}

std::vector<Node*> Value::users() const {
  std::vector<Node*> all;
  for (Use* u = uses_; u; u = u->next()) all.push_back(u->user());
  std::sort(all.begin(), all.end(), [](const Node* a, const Node* b) { return a != b && a->isBefore(b); });
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

void Value::replaceAllUsesWith(Value* other, bool allowTypeChange) {
  QC_REQUIRE("Value::replaceAllUsesWith", other && other != this && other->graph_ == graph_, "for %{} not another value of its graph",
             name_);
  QC_REQUIRE("Value::replaceAllUsesWith", allowTypeChange || type_ == other->type_ || agrees(type_, other->type_), "{} -> {}", type_.str(),
             other->type_.str());
  while (uses_) uses_->set(other);
  // What was free still was, though who made the other value may not have known.
  if (other->type_.shape.size() == type_.shape.size())
    for (size_t d = 0; d < type_.shape.size(); ++d)
      if (type_.shape[d].wasFree() && type_.shape[d] == other->type_.shape[d]) other->type_.shape[d] = type_.shape[d];
  const auto returned = graph_->outputPlaces_.extract(this);
  if (returned.empty()) return;
  isOutput_ = false;
  other->isOutput_ = true;
  std::vector<size_t>& places = graph_->outputPlaces_[other];
  for (const size_t i : returned.mapped()) {
    graph_->outputs_[i] = other;
    places.push_back(i);
  }
}

const Tensor* Value::constant() const { return producer_ && producer_->is("const") ? &producer_->constant() : nullptr; }

// ---- Node -------------------------------------------------------------------------------------

std::string_view Node::op() const { return def_->name; }

std::vector<Value*> Node::operands() const {
  std::vector<Value*> values;
  for (const Use& u : operands_) values.push_back(u.get());
  return values;
}

Value* Node::operand(std::string_view name) const { return operand(def_->operandIndex(name)); }

void Node::setOperand(std::string_view name, Value* value) {
  const int i = def_->operandIndex(name);
  QC_REQUIRE("Node::setOperand", i >= 0, "'{}' has no operand '{}'", op(), name);
  setOperand(i, value);
}

void Node::setOperand(int i, Value* value) {
  QC_REQUIRE("Node::setOperand", i >= 0, "operand {} of '{}'", i, op());
  QC_REQUIRE("Node::setOperand", !value || value->graph_ == graph_, "operand {} of '{}' is a value of another graph", i, op());
  while (numOperands() <= i) addOperand(nullptr);
  nth(operands_, i).set(value);
}

void Node::addOperand(Value* value) {
  QC_REQUIRE("Node::addOperand", !value || value->graph_ == graph_, "'{}' is given a value of another graph", op());
  // Uses are linked by address: take them out before the vector may move them.
  std::vector<Value*> values = operands();
  values.push_back(value);
  for (Use& u : operands_) u.set(nullptr);
  operands_.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    operands_[i].user_ = this;
    operands_[i].index_ = static_cast<int>(i);
    operands_[i].set(values[i]);
  }
}

const Tensor& Node::constant() const {
  QC_REQUIRE("Node::constant", is("const"), "of '{}'", op());
  QC_CHECK(constant_, "a constant that is not in the pool");
  return constant_->second;
}

const std::string& Node::constantName() const {
  static const std::string none;
  return constant_ ? constant_->first : none;
}

}  // namespace qc
