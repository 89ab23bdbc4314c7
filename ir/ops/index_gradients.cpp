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

// Reading and writing at the places that a scattering node addresses.
class Places {
 public:
  Places(GradientContext& c, const char* gather) : c_(c), gather_(gather) {
    if (const Attr* axis = c.node().attrs().find("axis")) axis_.set("axis", *axis);
  }
  Value* read(Value* x) const { return c_.op(gather_, {x, c_.operand(1)}, axis_); }
  Value* write(Value* x, Value* updates, const char* reduction) const {
    AttrDict attrs = axis_;
    attrs.set("reduction", std::string(reduction));
    return c_.op(c_.node().op(), {x, c_.operand(1), updates}, std::move(attrs));
  }

 private:
  GradientContext& c_;
  const char* gather_;
  AttrDict axis_;
};

// Factors meet in an element: of one of them, what arrives times the others.  Of the updates, zeros are counted apart.
Gradients productAt(GradientContext& c, const Places& places) {
  Gradients all = c.none();
  Value *x = c.operand(0), *updates = c.operand(2);
  if (c.wants(0)) {
    Value* factors = places.write(c.filled(1, c.type(0)), updates, "mul");
    all[0] = c.map(kArg0 * kArg1, {c.upstream(), factors});
  }
  if (!c.wants(2)) return all;
  const ScalarExpr isZero = expr::eq(kArg0, 0.f);
  Value* zeros = places.write(c.filled(0, c.type(0)), c.map(isZero, {updates}), "add");
  Value* others = places.write(x, c.map(expr::select(isZero, 1.f, kArg0), {updates}), "mul");
  Value* share = c.map(kArg0 * kArg1, {c.upstream(), others});
  const ScalarExpr atZero = expr::select(expr::eq(kArg2, 1.f), kArg1, 0.f),
                   elsewhere = expr::select(expr::eq(kArg2, 0.f), kArg1 / kArg0, 0.f);
  all[2] = c.map(expr::select(isZero, atZero, elsewhere), {updates, places.read(share), places.read(zeros)});
  return all;
}

// Equal extremes share what arrives.
Gradients extremeAt(GradientContext& c, const Places& places) {
  Gradients all = c.none();
  Value* own = c.map(expr::eq(kArg0, kArg1), {c.operand(0), c.result()});
  Value* written = c.map(expr::eq(kArg0, kArg1), {c.operand(2), places.read(c.result())});
  Value* share = c.map(kArg0 / expr::max(kArg1, 1.f), {c.upstream(), places.write(own, written, "add")});
  if (c.wants(0)) all[0] = c.map(kArg0 * kArg1, {own, share});
  if (c.wants(2)) all[2] = c.map(kArg0 * kArg1, {written, places.read(share)});
  return all;
}

Result<Gradients> scattered(GradientContext& c, const char* gather) {
  const std::string& reduction = c.node().string("reduction");
  const Places places(c, gather);
  if (reduction == "mul") return productAt(c, places);
  if (reduction == "max" || reduction == "min") return extremeAt(c, places);
  Gradients all = c.none();
  if (c.wants(2)) all[2] = places.read(c.upstream());
  if (c.wants(0)) all[0] = reduction == "add" ? c.upstream() : places.write(c.upstream(), c.filled(0, c.type(2)), "none");
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

Result<Gradients> scatterElementsGradient(GradientContext& c) { return scattered(c, "gather_elements"); }
Result<Gradients> scatterNdGradient(GradientContext& c) { return scattered(c, "gather_nd"); }

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
