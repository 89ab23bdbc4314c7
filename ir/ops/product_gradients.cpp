// Gradients of matrix products, and what they share with those of convolutions.
#include <algorithm>
#include <numeric>

#include "ir/ops/epilogue.h"
#include "ir/ops/gradients.h"
#include "ir/scalar_derivative.h"

namespace qc {

using Ints = std::vector<int64_t>;

ArrivingAtSums arrivingAtSums(GradientContext& c) {
  const ScalarExpr* post = c.node().expr("post");
  const bool hasResidual = c.operand(kResidual);
  if (!post) return {c.upstream(), hasResidual ? c.upstream() : nullptr};
  AttrDict attrs = c.node().attrs();
  attrs.set("post", ExprAttr());
  std::vector<Value*> operands = c.node().operands();
  operands.resize(std::min<size_t>(operands.size(), kResidual));
  std::vector<Value*> values = {c.op(c.node().op(), operands, attrs), hasResidual ? c.operand(kResidual) : c.upstream(), c.upstream()};
  const ScalarExpr arrives = ScalarExpr::arg(2);
  return {c.map(arrives * derivative(*post, 0), values), hasResidual ? c.map(arrives * derivative(*post, 1), values) : nullptr};
}

Value* withChannelsFirst(GradientContext& c, Value* x) {
  if (!isChannelsLast(c.node().attrs())) return x;
  Ints perm(x->type().shape.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin() + 1, perm.end() - 1, perm.end());
  return c.transpose(x, perm);
}

Value* withChannelsLast(GradientContext& c, Value* x) {
  if (isChannelsLast(c.node().attrs())) return x;
  Ints perm(x->type().shape.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin() + 1, perm.begin() + 2, perm.end());
  return c.transpose(x, perm);
}

Value* withChannelsAsNode(GradientContext& c, Value* x) {
  if (!isChannelsLast(c.node().attrs())) return x;
  Ints perm(x->type().shape.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin() + 1, perm.begin() + 2, perm.end());
  return c.transpose(x, perm);
}

Result<Gradients> linearGradient(GradientContext& c) {
  Gradients all = c.none();
  const ArrivingAtSums arrives = arrivingAtSums(c);
  if (c.wants(kResidual)) all[kResidual] = arrives.residual;
  const int64_t inputs = c.type(kW).shape[1].size(), outputs = c.type(kW).shape[0].size();
  const int64_t rows = c.type(kX).numElements() / std::max<int64_t>(inputs, 1);
  Value* dy = c.reshape(arrives.sums, {Dim(rows), Dim(outputs)});
  if (c.wants(kX)) all[kX] = c.reshape(c.op("matmul", {dy, c.operand(kW)}), c.type(kX).shape);
  if (c.wants(kW)) all[kW] = c.op("matmul", {c.transpose(dy, {1, 0}), c.reshape(c.operand(kX), {Dim(rows), Dim(inputs)})});
  if (c.wants(kBias)) all[kBias] = c.sum(dy, {0}, false);
  return all;
}

Result<Gradients> matmulGradient(GradientContext& c) {
  Gradients all = c.none();
  // Vectors as matrices of one row or column.
  Shape a = c.type(0).shape, b = c.type(1).shape, y = c.result()->type().shape;
  if (c.type(0).rank() == 1) a.insert(a.begin(), Dim(1)), y.insert(y.end() - (c.type(1).rank() == 1 ? 0 : 1), Dim(1));
  if (c.type(1).rank() == 1) b.push_back(Dim(1)), y.push_back(Dim(1));
  Value* dy = c.reshape(c.upstream(), y);
  const auto turned = [&](int operand, const Shape& shape) {
    Ints perm(shape.size());
    std::iota(perm.begin(), perm.end(), 0);
    std::swap(perm[perm.size() - 1], perm[perm.size() - 2]);
    return c.transpose(c.reshape(c.operand(operand), shape), perm);
  };
  if (c.wants(0)) all[0] = c.reshape(c.sumTo(c.op("matmul", {dy, turned(1, b)}), a), c.type(0).shape);
  if (c.wants(1)) all[1] = c.reshape(c.sumTo(c.op("matmul", {turned(0, a), dy}), b), c.type(1).shape);
  return all;
}

}  // namespace qc
