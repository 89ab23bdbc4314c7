// Gradients of normalisations and softmax.  Those over computed statistics go through what they are composed of: the statistics are
// built again, from reductions, and differentiated like anything else.
#include <numeric>

#include "ir/ops/gradients.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

ScalarExpr argOf(int i) { return ScalarExpr::arg(i); }
ScalarExpr inverseRoot(const ScalarExpr& x) { return 1.f / expr::unary(ScalarExpr::Op::sqrt, x); }
float epsilonOf(const GradientContext& c) { return static_cast<float>(c.node().real("epsilon")); }

int channelAxis(const GradientContext& c) {
  return c.node().attrs().find("layout") ? channelAxisOf(c.node().attrs(), c.type(0).rank()) : 1;
}

// A vector over the channels, in dims that broadcast with x.
Value* perChannel(GradientContext& c, int operand) {
  Shape shape(c.type(0).shape.size(), Dim(1));
  nth(shape, channelAxis(c)) = nth(c.type(0).shape, channelAxis(c));
  return c.reshape(c.operand(operand), shape);
}

// (x - mean) / sqrt(var + epsilon) over the axes
Value* normalized(GradientContext& c, Value* x, const Ints& axes) {
  Value* d = c.map(argOf(0) - argOf(1), {x, c.mean(x, axes)});
  Value* var = c.mean(c.map(argOf(0) * argOf(0), {d}), axes);
  return c.map(argOf(0) * inverseRoot(argOf(1) + epsilonOf(c)), {d, var});
}

}  // namespace

// y = (x - mean) * scale * r + bias with r = 1 / sqrt(var + epsilon), the statistics being operands.
Result<Gradients> batchNormGradient(GradientContext& c) {
  Gradients all = c.none();
  Value *x = c.operand(0), *dy = c.upstream();
  Value *scale = perChannel(c, 1), *mean = perChannel(c, 3), *var = perChannel(c, 4);
  Ints axes(c.type(0).shape.size());
  std::iota(axes.begin(), axes.end(), 0);
  axes.erase(axes.begin() + channelAxis(c));
  const ScalarExpr r = inverseRoot(argOf(1) + epsilonOf(c));
  Value* sum = c.wants(2) || c.wants(3) ? c.sum(dy, axes) : nullptr;
  Value* moment = c.wants(1) || c.wants(4) ? c.sum(c.map(argOf(0) * (argOf(1) - argOf(2)), {dy, x, mean}), axes) : nullptr;
  const Shape& channels = c.type(1).shape;
  if (c.wants(0)) all[0] = c.map(argOf(0) * (argOf(2) * r), {dy, var, scale});
  if (c.wants(1)) all[1] = c.reshape(c.map(argOf(0) * r, {moment, var}), channels);
  if (c.wants(2)) all[2] = c.reshape(sum, channels);
  if (c.wants(3)) all[3] = c.reshape(c.map(-(argOf(0) * argOf(2) * r), {sum, var, scale}), channels);
  if (c.wants(4)) all[4] = c.reshape(c.map(-0.5f * argOf(0) * argOf(2) * (r * r * r), {moment, var, scale}), channels);
  return all;
}

Result<Gradients> layerNormGradient(GradientContext& c) {
  Ints axes;
  for (int64_t d = c.node().integer("axis"); d < c.type(0).rank(); ++d) axes.push_back(d);
  Value* y = normalized(c, c.operand(0), axes);
  if (Value* scale = c.operand(1)) y = c.op("mul", {y, scale});
  if (Value* bias = c.operand(2)) y = c.op("add", {y, bias});
  return c.through({y});
}

// Groups of channels in dims of their own: [N, groups, channels of one, spatial...].
Result<Gradients> groupNormGradient(GradientContext& c) {
  Value* x = withChannelsFirst(c, c.operand(0));
  const Shape first = x->type().shape;
  const int64_t channels = first[1].size();
  const int64_t groups = c.node().attrs().find("num_groups") ? c.node().integer("num_groups") : channels;
  Shape grouped = {first[0], Dim(groups), Dim(channels / groups)};
  grouped.insert(grouped.end(), first.begin() + 2, first.end());
  Ints axes(grouped.size() - 2);
  std::iota(axes.begin(), axes.end(), 2);
  Value* y = withChannelsAsNode(c, c.reshape(normalized(c, c.reshape(x, grouped), axes), first));
  return c.through({c.op("add", {c.op("mul", {y, perChannel(c, 1)}), perChannel(c, 2)})});
}

// The sums of squares over windows of channels are a product with a matrix of zeros and ones.
Result<Gradients> lrnGradient(GradientContext& c) {
  const int axis = channelAxis(c);
  const int64_t size = c.node().integer("size"), channels = nth(c.type(0).shape, axis).size();
  QC_TRY(c.checkMatrix(channels, channels));
  std::vector<double> inWindow(usize(channels * channels));
  for (int64_t to = 0; to < channels; ++to)
    for (int64_t from = std::max<int64_t>(to - (size - 1) / 2, 0); from <= std::min(to + size - 1 - (size - 1) / 2, channels - 1); ++from)
      nth(inWindow, from * channels + to) = 1;
  const auto real = [&](const char* name) { return static_cast<float>(c.node().real(name)); };
  Value* squares = c.contract(c.map(argOf(0) * argOf(0), {c.operand(0)}), axis, inWindow, channels);
  const float factor = real("alpha") / static_cast<float>(size);
  return c.through({c.map(argOf(0) / expr::pow(real("bias") + factor * argOf(1), real("beta")), {c.operand(0), squares})});
}

Result<Gradients> softmaxGradient(GradientContext& c) {
  Value* products = c.map(argOf(0) * argOf(1), {c.upstream(), c.result()});
  return Gradients{c.map(argOf(1) * (argOf(0) - argOf(2)), {c.upstream(), c.result(), c.sum(products, {c.node().integer("axis")})})};
}

Result<Gradients> logSoftmaxGradient(GradientContext& c) {
  Value* sum = c.sum(c.upstream(), {c.node().integer("axis")});
  return Gradients{c.map(argOf(0) - expr::exp(argOf(1)) * argOf(2), {c.upstream(), c.result(), sum})};
}

}  // namespace qc
