// Gradients of convolutions: of the data the transposed one, of the weights conv_weight_gradient.
#include <numeric>

#include "ir/ops/epilogue.h"
#include "ir/ops/gradients.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Ints listOf(const std::array<int64_t, kMaxSpatial>& values, int rank) { return {values.begin(), values.begin() + rank}; }
Ints pairsOf(const std::array<int64_t, kMaxSpatial>& begins, const std::array<int64_t, kMaxSpatial>& ends, int rank) {
  Ints list = listOf(begins, rank);
  list.insert(list.end(), ends.begin(), ends.begin() + rank);
  return list;
}

Window windowOf(const GradientContext& c) {
  Ints kernel = c.type(kW).sizes();
  kernel.erase(kernel.begin(), kernel.begin() + 2);
  return Window::of(c.node().attrs(), kernel);
}

// Sizes that have grown behind what is wanted are cut.
Value* cutTo(GradientContext& c, Value* x, const Ints& sizes) {
  for (size_t d = 0; d < sizes.size(); ++d) x = c.slice(x, static_cast<int>(d), 0, sizes[d]);
  return x;
}

// w[o, i, k] = sum over n and p of wide[n, i, p * stride - pad + k * dilation] * narrow[n, o, p], group by group: narrow is the
// convolution's result, or what a transposed one reads.
Value* weightGradient(GradientContext& c, Value* wide, Value* narrow) {
  const Window w = windowOf(c);
  Value* sums = c.op("conv_weight_gradient", {withChannelsLast(c, wide), withChannelsLast(c, narrow)},
                     {{"kernel_shape", listOf(w.kernel, w.rank)},
                      {"strides", listOf(w.stride, w.rank)},
                      {"dilations", listOf(w.dilation, w.rank)},
                      {"pads", pairsOf(w.padBegin, w.padEnd, w.rank)},
                      {"group", c.node().integer("group")}});
  Ints perm{w.rank + 1, w.rank};  // from [k, i, o]
  for (int64_t d = 0; d < w.rank; ++d) perm.push_back(d);
  return c.transpose(sums, perm);
}

// dy in the node's layout; summed with its channels last, where what is added up lies together.
Value* biasGradient(GradientContext& c, Value* dy) {
  Ints axes(dy->type().shape.size() - 1);
  std::iota(axes.begin(), axes.end(), 0);
  return c.sum(withChannelsLast(c, dy), axes, false);
}

}  // namespace

Result<Gradients> convGradient(GradientContext& c) {
  Gradients all = c.none();
  const Window w = windowOf(c);
  const ArrivingAtSums arrives = arrivingAtSums(c);
  if (c.wants(kResidual)) all[kResidual] = arrives.residual;
  Value* dy = withChannelsFirst(c, arrives.sums);
  if (c.wants(kX)) {
    const Ints x = withChannelsFirst(c, c.operand(kX))->type().sizes(), y = dy->type().sizes();
    Ints more;
    for (int d = 0; d < w.rank; ++d)
      more.push_back(nth(x, d + 2) - ((nth(y, d + 2) - 1) * nth(w.stride, d) + w.extent(d) - nth(w.padBegin, d) - nth(w.padEnd, d)));
    Value* dx = c.op("conv_transpose", {dy, c.operand(kW)},
                     {{"strides", listOf(w.stride, w.rank)},
                      {"dilations", listOf(w.dilation, w.rank)},
                      {"pads", pairsOf(w.padBegin, w.padEnd, w.rank)},
                      {"output_padding", more},
                      {"group", c.node().integer("group")}});
    all[kX] = withChannelsAsNode(c, dx);
  }
  if (c.wants(kW)) all[kW] = weightGradient(c, c.operand(kX), arrives.sums);
  if (c.wants(kBias)) all[kBias] = biasGradient(c, arrives.sums);
  return all;
}

Result<Gradients> convTransposeGradient(GradientContext& c) {
  Gradients all = c.none();
  const Window w = windowOf(c);
  Value* dy = withChannelsFirst(c, c.upstream());
  if (c.wants(kX)) {
    Value* dx = c.op("conv", {dy, c.operand(kW)},
                     {{"strides", listOf(w.stride, w.rank)},
                      {"dilations", listOf(w.dilation, w.rank)},
                      {"pads", pairsOf(w.padBegin, w.padEnd, w.rank)},
                      {"group", c.node().integer("group")}});
    const Ints x = withChannelsFirst(c, c.operand(kX))->type().sizes();
    all[kX] = withChannelsAsNode(c, cutTo(c, dx, x));
  }
  if (c.wants(kW)) all[kW] = weightGradient(c, c.upstream(), c.operand(kX));
  if (c.wants(kBias)) all[kBias] = biasGradient(c, c.upstream());
  return all;
}

}  // namespace qc
