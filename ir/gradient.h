// Reverse-mode differentiation of graphs.  The gradient of an op is a function that builds the gradients of its operands, and part of its
// declaration (OpDef::gradient); of an op with a scalar meaning it follows from that.  backpropagate() walks from what is
// differentiated to what it depends on and adds them up.
//
//   gradient of mul:   return std::vector{c.map(arg(0) * arg(1), {c.upstream(), c.operand(1)}), ...};
//
// An op that is a composition of others says so instead of writing its adjoint: it builds that composition and hands it to through().
#pragma once

#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/graph.h"
#include "ir/op_def.h"

namespace qc {

// What a gradient function sees, and what it builds with.  Builders here never fail on the spot: the first error is kept, whatever is built
// after it is of no account, and backpropagate() returns it.
class GradientContext {
 public:
  GradientContext(Builder& builder, const Node& node, Gradients upstream, std::vector<bool> wanted)
      : builder_(builder), node_(node), upstream_(std::move(upstream)), wanted_(std::move(wanted)) {}

  const Node& node() const { return node_; }
  Value* operand(int i) const { return node_.operand(i); }  // null: absent
  const TensorType& type(int i) const { return node_.operand(i)->type(); }
  Value* result(int i = 0) const { return node_.result(i); }
  Value* upstream(int i = 0) const { return nth(upstream_, i); }  // null: zero; of one result never
  bool wants(int i) const { return i < static_cast<int>(wanted_.size()) && nth(wanted_, i); }
  Gradients none() const { return Gradients(wanted_.size(), nullptr); }

  Value* op(std::string_view name, std::vector<Value*> operands, AttrDict attrs = {});
  std::vector<Value*> ops(std::string_view name, std::vector<Value*> operands, AttrDict attrs, size_t results);  // all results
  // The expression of the operands that it speaks of; one of them as it is where it is no more than that.
  Value* map(const ScalarExpr& expression, std::vector<Value*> operands);
  Value* constant(Tensor tensor);
  Value* filled(double value, const TensorType& type);  // float, by expanding one number
  Value* reshape(Value* x, const Shape& shape);
  Value* transpose(Value* x, std::vector<int64_t> perm);
  Value* sum(Value* x, std::vector<int64_t> axes, bool keepDims = true);
  Value* mean(Value* x, std::vector<int64_t> axes);  // dims are kept
  Value* expand(Value* x, const Shape& shape);
  Value* sumTo(Value* x, const Shape& shape);  // over what `shape` was broadcast along
  Value* slice(Value* x, int axis, int64_t start, int64_t size);
  // Before a matrix for contract() is made, whose size is that of two dims multiplied.
  Status checkMatrix(int64_t rows, int64_t columns) const;
  // Along one axis: y[.., j, ..] = sum over i of x[.., i, ..] * matrix[i][j].
  Value* contract(Value* x, int axis, const std::vector<double>& matrix, int64_t columns);

  // The gradients of this node's operands where `results` (one for each result) are the same as its own, built from its operands.
  Result<Gradients> through(const std::vector<Value*>& results);

  const Status& status() const { return status_; }

 private:
  Value* keep(Result<Value*> built);
  Value* stand() const;  // in for what could not be built

  Builder& builder_;
  const Node& node_;
  Gradients upstream_;
  std::vector<bool> wanted_;
  Status status_;
};

// What an elementwise op's scalar meaning gives; with `slopes`, derivatives by each operand that is differentiable, these are taken.
Result<Gradients> elementwiseGradient(GradientContext& c);
Result<Gradients> scalarGradient(GradientContext& c, const std::vector<ScalarExpr>& slopes);

// A value and what its gradient starts from, of the same type.
struct GradientSeed {
  Value* value;
  Value* gradient;
};

// Nodes for the gradients of `of`, where the seeds are those of values that are computed from them; null where none arrives.  What is in
// front of `boundary` is not looked at.  Integers and booleans carry no gradient.
// Errors: an op without gradient between a seed and one of `of` (the message names the path), sizes that are not known.
Result<Gradients> backpropagate(Builder& builder, const std::vector<GradientSeed>& seeds, std::span<Value* const> of,
                                std::span<Value* const> boundary = {});

}  // namespace qc
