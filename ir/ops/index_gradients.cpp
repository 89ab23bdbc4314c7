// Gradients of ops that pick elements by index: they are added up where they were taken from.
#include <numeric>

#include "ir/ops/gradients.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// Adds slices to zeros: what the tuples in the last dim of `indices` address.
Value* addedUp(GradientContext& c, Value* indices, Value* updates, const TensorType& type) {
  return c.op("scatter_nd", {c.filled(0, type), indices, updates}, {{"reduction", std::string("add")}});
}

// The dims of x with `axis` first, and back.
Ints axisFirst(size_t rank, int64_t axis) {
  Ints perm(rank);
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin(), perm.begin() + axis, perm.begin() + axis + 1);
  return perm;
}

Result<Gradients> withoutReduction(GradientContext& c, const char* gather) {
  const std::string& reduction = c.node().string("reduction");
  if (reduction != "none" && reduction != "add")
    return fail(ErrorCode::kUnsupported, "'{}' has no gradient with reduction=\"{}\"", c.node().op(), reduction);
  Gradients all = c.none();
  AttrDict attrs;
  if (const Attr* axis = c.node().attrs().find("axis")) attrs.set("axis", *axis);
  if (c.wants(2)) all[2] = c.op(gather, {c.upstream(), c.operand(1)}, attrs);
  if (!c.wants(0)) return all;
  all[0] = reduction == "add" ? c.upstream() : c.op(c.node().op(), {c.upstream(), c.operand(1), c.filled(0, c.type(2))}, c.node().attrs());
  return all;
}

}  // namespace

Result<Gradients> gatherGradient(GradientContext& c) {
  if (!c.wants(0)) return c.none();
  const int64_t axis = c.node().integer("axis");
  const TensorType &x = c.type(0), &indices = c.type(1);
  // [outer, indices, inner] -> [indices, outer, inner]
  Ints perm(c.result()->type().shape.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::rotate(perm.begin(), perm.begin() + axis, perm.begin() + axis + indices.rank());
  Shape tuples = indices.shape, turned;
  tuples.emplace_back(1);
  const Ints first = axisFirst(x.shape.size(), axis);
  for (const int64_t d : first) turned.push_back(nth(x.shape, d));
  Value* sums = addedUp(c, c.reshape(c.operand(1), tuples), c.transpose(c.upstream(), perm), x.withShape(turned));
  Ints back(first.size());
  for (size_t i = 0; i < first.size(); ++i) nth(back, first[i]) = static_cast<int64_t>(i);
  Gradients all = c.none();
  all[0] = c.transpose(sums, back);
  return all;
}

Result<Gradients> gatherElementsGradient(GradientContext& c) {
  Gradients all = c.none();
  if (c.wants(0))
    all[0] = c.op("scatter_elements", {c.filled(0, c.type(0)), c.operand(1), c.upstream()},
                  {{"axis", c.node().integer("axis")}, {"reduction", std::string("add")}});
  return all;
}

// Batch dims become the first of each tuple.
Result<Gradients> gatherNdGradient(GradientContext& c) {
  Gradients all = c.none();
  if (!c.wants(0)) return all;
  const auto batch = usize(c.node().integer("batch_dims"));
  const Ints sizes = c.type(1).sizes();
  Value* indices = c.operand(1);
  if (batch > 0) {
    Ints own = sizes;
    own.back() = static_cast<int64_t>(batch);
    Tensor places(c.type(1).dtype, own);
    for (int64_t i = 0; i < places.numElements(); ++i) {
      int64_t inner = own.back();
      const auto wanted = usize(i % own.back());
      for (size_t d = wanted + 1; d + 1 < own.size(); ++d) inner *= own[d];
      storeElement(places.dtype(), places.mutableData(), i, static_cast<double>(i / inner % own[wanted]));
    }
    indices = c.op("concat", {c.constant(std::move(places)), indices}, {{"axis", std::ssize(sizes) - 1}});
  }
  all[0] = addedUp(c, indices, c.upstream(), c.type(0));
  return all;
}

Result<Gradients> scatterElementsGradient(GradientContext& c) { return withoutReduction(c, "gather_elements"); }
Result<Gradients> scatterNdGradient(GradientContext& c) { return withoutReduction(c, "gather_nd"); }

Result<Gradients> triluGradient(GradientContext& c) { return Gradients{c.op("trilu", {c.upstream()}, c.node().attrs())}; }

Result<Gradients> reverseSequenceGradient(GradientContext& c) {
  return Gradients{c.op("reverse_sequence", {c.upstream(), c.operand(1)}, c.node().attrs()), nullptr};
}

// Of the two values: what arrives where the index is, and elsewhere.
Result<Gradients> oneHotGradient(GradientContext& c) {
  Gradients all = c.none();
  const TensorType& type = c.result()->type();
  Tensor ends(type.dtype, {2});
  storeElement(type.dtype, ends.mutableData(), 1, 1);
  Value* on = c.op("one_hot", {c.operand(0), c.constant(std::move(ends))}, c.node().attrs());
  Ints axes(type.shape.size());
  std::iota(axes.begin(), axes.end(), 0);
  const ScalarExpr dy = ScalarExpr::arg(0), hot = ScalarExpr::arg(1);
  Value* off = c.reshape(c.sum(c.map(dy * (1.f - hot), {c.upstream(), on}), axes), {Dim(1)});
  Value* at = c.reshape(c.sum(c.map(dy * hot, {c.upstream(), on}), axes), {Dim(1)});
  all[1] = c.op("concat", {off, at}, {{"axis", int64_t{0}}});
  return all;
}

}  // namespace qc
