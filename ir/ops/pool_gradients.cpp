// Gradients of pools.  An average is spread by a transposed convolution with weights of one; a largest element has what arrives alone.
#include "ir/ops/gradients.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// How many elements count for the average at each position of one dim.
std::vector<double> countsOf(const Window& w, int d, int64_t in, int64_t out, bool includePad) {
  std::vector<double> counts;
  for (int64_t o = 0; o < out; ++o) {
    double count = 0;
    for (int64_t k = 0; k < nth(w.kernel, d); ++k) {
      const int64_t at = o * nth(w.stride, d) - nth(w.padBegin, d) + k * nth(w.dilation, d);
      if (includePad ? at < in + nth(w.padEnd, d) : at >= 0 && at < in) ++count;
    }
    counts.push_back(count);
  }
  return counts;
}

}  // namespace

Result<Gradients> averageGradient(GradientContext& c) {
  const AttrDict& attrs = c.node().attrs();
  const Window w = Window::of(attrs, attrs.integers("kernel_shape"));
  const bool last = isChannelsLast(attrs), includePad = attrs.integer("count_include_pad") != 0;
  const TensorType &x = c.type(0), &y = c.result()->type();
  const int rank = x.rank(), first = last ? 1 : 2;
  // 1 / count, of the sizes of the result's spatial dims: a product over the dims, but at least 1.
  std::vector<double> counts{1};
  Shape shape(usize(rank), Dim(1));
  for (int d = 0; d < w.rank; ++d) {
    const int64_t in = nth(x.shape, first + d).size(), out = nth(y.shape, first + d).size();
    std::vector<double> grown;
    for (const double outer : counts)
      for (const double inner : countsOf(w, d, in, out, includePad)) grown.push_back(outer * inner);
    counts = std::move(grown);
    nth(shape, first + d) = Dim(out);
  }
  Tensor shares(x.dtype, sizesOf(shape));
  for (size_t i = 0; i < counts.size(); ++i)
    storeElement(x.dtype, shares.mutableData(), static_cast<int64_t>(i), 1 / std::max(counts[i], 1.0));
  Value* dy = c.map(ScalarExpr::arg(0) * ScalarExpr::arg(1), {c.upstream(), c.constant(std::move(shares))});
  // Every channel by itself.
  const int64_t channels = nth(x.shape, channelAxisOf(attrs, rank)).size();
  Ints kernel = {channels, 1}, pads(usize(2 * w.rank)), more;
  for (int d = 0; d < w.rank; ++d) {
    const int64_t in = nth(x.shape, first + d).size(), out = nth(y.shape, first + d).size();
    kernel.push_back(nth(w.kernel, d));
    const int64_t reach = (out - 1) * nth(w.stride, d) + w.extent(d) - nth(w.padBegin, d) - in;
    nth(pads, d) = nth(w.padBegin, d);
    nth(pads, w.rank + d) = std::max<int64_t>(reach, 0);
    more.push_back(std::max<int64_t>(-reach, 0));
  }
  Tensor ones(x.dtype, kernel);
  for (int64_t i = 0; i < ones.numElements(); ++i) storeElement(x.dtype, ones.mutableData(), i, 1);
  AttrDict spread{{"strides", Ints(w.stride.begin(), w.stride.begin() + w.rank)},
                  {"dilations", Ints(w.dilation.begin(), w.dilation.begin() + w.rank)},
                  {"pads", pads},
                  {"output_padding", more},
                  {"group", channels},
                  {"layout", attrs.string("layout")}};
  return Gradients{c.op("conv_transpose", {dy, c.constant(std::move(ones))}, std::move(spread))};
}

Result<Gradients> maxPoolGradient(GradientContext& c) {
  return Gradients{c.op("max_pool_gradient", {c.operand(0), c.upstream()}, c.node().attrs())};
}

}  // namespace qc
