// Gradients of reductions.  Equal extremes share what arrives; a product with one 0 has a gradient at that element alone.
#include "ir/ops/gradients.h"

namespace qc {
namespace {

// The type of x with the reduced dims as 1, in which a result or its gradient broadcasts to x.
Shape keptShape(const GradientContext& c) {
  Shape shape = c.type(0).shape;
  for (const int64_t axis : c.node().integers("axes")) nth(shape, axis) = Dim(1);
  return shape;
}

}  // namespace

Result<Gradients> sumGradient(GradientContext& c) { return Gradients{c.expand(c.reshape(c.upstream(), keptShape(c)), c.type(0).shape)}; }

Result<Gradients> meanGradient(GradientContext& c) {
  const auto count =
      static_cast<float>(c.type(0).numElements()) / static_cast<float>(std::max<int64_t>(c.result()->type().numElements(), 1));
  Value* share = c.map(kArg0 / count, {c.reshape(c.upstream(), keptShape(c))});
  return Gradients{c.expand(share, c.type(0).shape)};
}

Result<Gradients> extremeGradient(GradientContext& c) {
  const Shape kept = keptShape(c);
  Value* isExtreme = c.map(expr::eq(kArg0, kArg1), {c.operand(0), c.reshape(c.result(), kept)});
  Value* count = c.sum(isExtreme, c.node().integers("axes"));
  return Gradients{c.map(kArg0 * kArg1 / kArg2, {isExtreme, c.reshape(c.upstream(), kept), count})};
}

Result<Gradients> productGradient(GradientContext& c) {
  const Shape kept = keptShape(c);
  const std::vector<int64_t>& axes = c.node().integers("axes");
  Value* x = c.operand(0);
  Value* zeros = c.sum(c.map(expr::eq(kArg0, 0.f), {x}), axes);
  Value* others =
      c.op("reduce_prod", {c.map(expr::select(expr::eq(kArg0, 0.f), 1.f, kArg0), {x})}, {{"axes", axes}, {"keepdims", int64_t{1}}});
  Value* share = c.map(kArg0 * kArg1, {c.reshape(c.upstream(), kept), others});
  const ScalarExpr atZero = expr::select(expr::eq(kArg2, 1.f), kArg1, 0.f),
                   elsewhere = expr::select(expr::eq(kArg2, 0.f), kArg1 / kArg0, 0.f);
  return Gradients{c.map(expr::select(expr::eq(kArg0, 0.f), atZero, elsewhere), {x, share, zeros})};
}

// Of the values; the indices are integers.
Result<Gradients> topkGradient(GradientContext& c) {
  if (!c.upstream(0)) return c.none();
  return Gradients{c.op("scatter_elements", {c.filled(0, c.type(0)), c.result(1), c.upstream(0)},
                        {{"axis", c.node().integer("axis")}, {"reduction", std::string("add")}})};
}

Result<Gradients> cumsumGradient(GradientContext& c) {
  AttrDict attrs = c.node().attrs();
  attrs.set("reverse", int64_t{c.node().integer("reverse") == 0});
  return Gradients{c.op("cumsum", {c.upstream()}, std::move(attrs))};
}

}  // namespace qc
