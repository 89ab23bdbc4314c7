// Gradients of convolutions, as convolutions: of the data the transposed one, of the weights one in which batch and channels have changed
// places and strides and dilations as well.
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
  const int64_t group = c.node().integer("group");
  const Ints x = wide->type().sizes(), y = narrow->type().sizes();
  if (x.size() != y.size() || x.size() < 3) return wide;
  const int64_t batch = x[0], perGroup = x[1] / group;
  // Data [channels of a group, group * batch, ...], weights [narrow's channels, batch, ...].
  Ints grouped = {batch, group, perGroup}, joined = {perGroup, group * batch};
  grouped.insert(grouped.end(), x.begin() + 2, x.end());
  joined.insert(joined.end(), x.begin() + 2, x.end());
  Ints perm(grouped.size()), swap(y.size());
  std::iota(perm.begin(), perm.end(), 0);
  std::iota(swap.begin(), swap.end(), 0);
  std::swap(perm[0], perm[2]);
  std::swap(swap[0], swap[1]);
  Value* data = c.reshape(c.transpose(c.reshape(wide, toShape(grouped)), perm), toShape(joined));
  Ints ends;
  for (int d = 0; d < w.rank; ++d) {
    const int64_t reach = (nth(y, d + 2) - 1) * nth(w.stride, d) + w.extent(d) - nth(w.padBegin, d);
    ends.push_back(std::max<int64_t>(reach - nth(x, d + 2), 0));
  }
  Ints pads = listOf(w.padBegin, w.rank);
  pads.insert(pads.end(), ends.begin(), ends.end());
  Value* sums = c.op("conv", {data, c.transpose(narrow, swap)},
                     {{"strides", listOf(w.dilation, w.rank)}, {"dilations", listOf(w.stride, w.rank)}, {"pads", pads}, {"group", group}});
  Ints wanted = {perGroup, y[1]};
  wanted.insert(wanted.end(), w.kernel.begin(), w.kernel.begin() + w.rank);
  return c.transpose(cutTo(c, sums, wanted), swap);
}

Value* biasGradient(GradientContext& c, Value* dy) {
  Ints axes(dy->type().shape.size());
  std::iota(axes.begin(), axes.end(), 0);
  axes.erase(axes.begin() + 1);
  return c.sum(dy, axes, false);
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
  if (c.wants(kW)) all[kW] = weightGradient(c, withChannelsFirst(c, c.operand(kX)), dy);
  if (c.wants(kBias)) all[kBias] = biasGradient(c, dy);
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
  if (c.wants(kW)) all[kW] = weightGradient(c, dy, withChannelsFirst(c, c.operand(kX)));
  if (c.wants(kBias)) all[kBias] = biasGradient(c, dy);
  return all;
}

}  // namespace qc
