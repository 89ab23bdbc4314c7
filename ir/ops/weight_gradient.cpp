// conv_weight_gradient(x [N, spatial..., C], dy [N, spatial..., O]) -> [kernel..., C / group, O]: at tap k the sum over images n and
// positions p of x[n, p * stride - pad + k * dilation, i] * dy[n, p, o], group by group.  Positions outside of x have no part in it.
//
// Order of a sum: within an image one fused multiply-add for each position, row-major, from +0; then image after image is added.
#include "ir/ops/weight_gradient.h"

#include <algorithm>
#include <cmath>

#include "ir/ops/products.h"
#include "ir/ops/widen.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

enum WeightGradientOperand { kWide, kNarrow };

Result<Types> inferWeightGradient(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, kWide));
  QC_TRY(requireSameDType(c, kNarrow, kWide));
  const TensorType &x = c.type(kWide), &dy = c.type(kNarrow);
  QC_TRY(requireRank(c, kWide, 3, 2 + kMaxSpatial));
  QC_TRY(requireRank(c, kNarrow, x.rank(), x.rank()));
  if (!x.isStatic() || !dy.isStatic()) return fail(ErrorCode::kUnsupported, "'{}' needs sizes, got {} and {}", c.op, x.str(), dy.str());
  const std::vector<int64_t>& kernel = c.attrs.integers("kernel_shape");
  if (std::ssize(kernel) != x.rank() - 2)
    return fail(ErrorCode::kInvalidModel, "'{}': kernel_shape={} for {} spatial dims", c.op, toString(Attr(kernel)), x.rank() - 2);
  QC_TRY(Window::of(c, kernel));
  if (x.shape[0] != dy.shape[0])
    return fail(ErrorCode::kInvalidModel, "'{}': {} and {} are not of one batch", c.op, describe(c, kWide), describe(c, kNarrow));
  const int64_t group = c.attrs.integer("group"), channels = x.shape.back().size(), outputs = dy.shape.back().size();
  if (group < 1 || channels % group != 0 || outputs % group != 0)
    return fail(ErrorCode::kInvalidModel, "'{}': group={} does not divide {} and {} channels", c.op, group, channels, outputs);
  Shape shape = toShape(kernel);
  shape.insert(shape.end(), {Dim(channels / group), Dim(outputs)});
  return checkedResults({x.withShape(std::move(shape))});
}

template <class T>
struct WeightGradient {
  SpatialView x, y;
  Window w;
  int64_t group;

  explicit WeightGradient(const EvalContext& c)
      : x(c.in(kWide).sizes, true),
        y(c.in(kNarrow).sizes, true),
        w(alignedToView(Window::of(c.node.attrs(), c.node.integers("kernel_shape")))),
        group(c.node.integer("group")) {}

  int64_t inputs() const { return x.channels / group; }
  int64_t elements() const { return inputs() * y.channels; }  // of one tap

  TapRange range(size_t d, int64_t tap) const { return tapRange(x.size[d], y.size[d], tap, w.stride[d], w.dilation[d], w.padBegin[d]); }

  // Of one image at one tap.
  void sum(const T* wide, const T* narrow, std::span<const int64_t, 3> tap, std::vector<T>& sums) const {
    std::fill(sums.begin(), sums.end(), T{});
    const TapRange z = range(0, tap[0]), v = range(1, tap[1]), u = range(2, tap[2]);
    const auto place = [&](size_t d, int64_t p) { return p * w.stride[d] - w.padBegin[d] + tap[d] * w.dilation[d]; };
    const int64_t outputs = y.channels / group;
    for (int64_t pz = z.first; pz < z.last; ++pz)
      for (int64_t py = v.first; py < v.last; ++py)
        for (int64_t px = u.first; px < u.last; ++px) {
          const T* from = wide + x.pixelOffset(0, place(0, pz), place(1, py), place(2, px));
          const T* with = narrow + y.pixelOffset(0, pz, py, px);
          for (int64_t i = 0; i < inputs(); ++i)
            for (int64_t o = 0; o < y.channels; ++o) {
              T& total = nth(sums, i * y.channels + o);
              total = std::fma(from[o / outputs * inputs() + i], with[o], total);
            }
        }
  }
};

template <class T>
void evaluateAs(const EvalContext& c) {
  const WeightGradient<T> g(c);
  const Elements<T> x(c.in(kWide)), dy(c.in(kNarrow));
  const ResultElements<T> result(c.out());
  std::fill_n(result.data(), result.size(), T{});
  std::vector<T> sums(usize(g.elements()));
  for (int64_t n = 0; n < g.x.batch; ++n) {
    T* to = result.data();
    for (int64_t kz = 0; kz < g.w.kernel[0]; ++kz)
      for (int64_t ky = 0; ky < g.w.kernel[1]; ++ky)
        for (int64_t kx = 0; kx < g.w.kernel[2]; ++kx) {
          g.sum(x.data() + n * g.x.batchStride, dy.data() + n * g.y.batchStride, std::array{kz, ky, kx}, sums);
          for (const T sum : sums) {
            *to = n == 0 ? sum : *to + sum;
            ++to;
          }
        }
  }
  result.flush();
}

Status evalWeightGradient(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  withComputeType(c.in(kWide).dtype, [&](auto tag) {
    if constexpr (std::is_floating_point_v<decltype(tag)>) evaluateAs<decltype(tag)>(c);
  });
  return {};
}

}  // namespace

TapRange tapRange(int64_t in, int64_t out, int64_t tap, int64_t stride, int64_t dilation, int64_t pad) {
  const int64_t offset = tap * dilation - pad;
  const int64_t first = (std::max<int64_t>(-offset, 0) + stride - 1) / stride;
  return {first, std::min(out, std::max<int64_t>(in - 1 - offset + stride, 0) / stride)};
}

void registerWeightGradientOps(OpRegistry& registry) {
  registry.add({.name = "conv_weight_gradient",
                .summary = "the gradient of a convolution's weights, for channels-last data",
                .operands = {{"x"}, {"dy"}},
                .attrs = {integersAttr("kernel_shape"), integersOrEmptyAttr("strides"), integersOrEmptyAttr("pads"),
                          integersOrEmptyAttr("dilations"), integerAttr("group", 1)},
                .infer = inferWeightGradient,
                .eval = evalWeightGradient,
                .scalar = {},
                .noGradient = "gradients are differentiated no further",
                .products = productsOfWeightGradient});
}

}  // namespace qc
