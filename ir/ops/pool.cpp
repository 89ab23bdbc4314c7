// Pools.
//   max_pool    m = lowest; m = x > m ? x : m over the taps inside the input, row-major (a NaN is passed over); lowest is -inf, or the
//               smallest number of an integer type, or qmin of a quantized one
//   max_pool_gradient(x, dy)    what arrives at the first largest element of each window, windows row-major; nothing where there is none
//   avg_pool    sum of the taps inside the input, row-major, from +0, divided by float(count)
//   q.avg_pool  q = requantize(sum(q - zx), f32(f32(sx / sy) / float(count)), zy)
// count is the number of taps inside the input, or with count_include_pad inside the input and its padding; 1 if none is.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/ops/batches.h"
#include "ir/ops/epilogue.h"
#include "ir/ops/gradients.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

Result<Shape> inferPoolShape(const InferContext& c) {
  const TensorType& x = c.type(0);
  QC_TRY(requireRank(c, 0, 3, 2 + kMaxSpatial));
  const auto& kernel = c.attrs.integers("kernel_shape");
  if (static_cast<int>(kernel.size()) != x.rank() - 2)
    return fail(ErrorCode::kInvalidModel, "'{}': kernel_shape={} does not fit x {}", c.op, toString(Attr(kernel)), x.str());
  QC_ASSIGN(const Window window, Window::of(c, kernel));
  const bool last = isChannelsLast(c.attrs);
  std::vector<Dim> spatial = spatialDims(x.shape, last);
  for (size_t i = 0; i < spatial.size(); ++i) {
    if (std::max(window.padBegin[i], window.padEnd[i]) >= window.extent(static_cast<int>(i)))
      return fail(ErrorCode::kInvalidModel, "'{}': pads={} are not smaller than the window of {} in spatial dim {}", c.op,
                  toString(Attr(c.attrs.integers("pads"))), window.extent(static_cast<int>(i)), i);
    QC_ASSIGN(spatial[i], slidingSize(c, window, static_cast<int>(i), spatial[i], c.attrs.integer("ceil_mode") != 0));
  }
  return spatialShape(last, x.shape[0], nth(x.shape, channelAxisOf(c.attrs, x.rank())), spatial);
}

Result<Types> inferMaxPool(const InferContext& c) {
  const TensorType& x = c.type(0);
  if (x.isQuantized() && x.quant->perChannel())
    return fail(ErrorCode::kUnsupported, "'{}' takes x quantized per tensor, got {}", c.op, x.str());
  if (x.dtype == DType::boolean) return fail(ErrorCode::kInvalidModel, "'{}' takes numbers, got {}", c.op, x.str());
  QC_ASSIGN(Shape shape, inferPoolShape(c));
  return checkedResults({x.withShape(std::move(shape))});
}

Result<Types> inferMaxPoolGradient(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireSameDType(c, 1, 0));
  QC_ASSIGN(const Shape shape, inferPoolShape(c));
  QC_TRY(requireShape(c, 1, shape));
  return checkedResults({c.type(0)});
}

Result<Types> inferAvgPool(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_ASSIGN(Shape shape, inferPoolShape(c));
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

Result<Types> inferQuantizedAvgPool(const InferContext& c) {
  QC_TRY(requirePerTensor8Bit(c, 0));
  QC_TRY(checkQuantParams(*c.type(0).quant, c.type(0).shape));
  QC_TRY(requirePerTensorTo(c.attrs.quant("to")));
  QC_ASSIGN(Shape shape, inferPoolShape(c));
  int64_t taps = 1;
  for (const int64_t k : c.attrs.integers("kernel_shape")) taps *= k;  // bounded by Window::of
  if (taps > INT32_MAX / 255)
    return fail(ErrorCode::kUnsupported, "'{}': the int32 sum of a window of {} elements could overflow", c.op, taps);
  return checkedResults({TensorType(c.attrs.quant("to"), std::move(shape))});
}

struct Pool {
  SpatialView x, y;
  Window window;
  bool includePad;

  explicit Pool(const EvalContext& c) : Pool(c, c.in(0).sizes, c.out().sizes, isChannelsLast(c.node.attrs())) {}
  Pool(const EvalContext& c, std::span<const int64_t> from, std::span<const int64_t> to, bool channelsLast)
      : x(from, channelsLast),
        y(to, channelsLast),
        window(alignedToView(Window::of(c.node.attrs(), c.node.integers("kernel_shape")))),
        includePad(c.node.attrs().find("count_include_pad") && c.node.integer("count_include_pad") != 0) {}

  // The taps of output position `at` in one dim that lie inside the input: [first, last), and how many count for an average.
  struct Range {
    int64_t origin, first, last, count;
  };
  Range range(size_t i, int64_t at) const {
    const int64_t origin = at * window.stride[i] - window.padBegin[i], d = window.dilation[i];
    const auto tapsBelow = [&](int64_t limit) { return std::clamp((limit - origin + d - 1) / d, int64_t{0}, window.kernel[i]); };
    const int64_t first = origin >= 0 ? 0 : std::min(window.kernel[i], (-origin + d - 1) / d);
    const int64_t last = origin >= x.size[i] ? 0 : tapsBelow(x.size[i]);
    const int64_t end = x.size[i] + window.padEnd[i];
    const int64_t inside = std::max<int64_t>(last - first, 0);
    return {origin, first, last, includePad ? (origin >= end ? 0 : tapsBelow(end)) : inside};
  }

  // Calls visit(outputOffset, count, taps) for every output element; taps(f) calls f(inputOffset) for the taps inside the input.
  template <class Visit>
  void forEach(const Visit& visit) const {
    for (int64_t oz = 0; oz < y.size[0]; ++oz)
      for (int64_t oy = 0; oy < y.size[1]; ++oy)
        for (int64_t ox = 0; ox < y.size[2]; ++ox) {
          const Range r[3] = {range(0, oz), range(1, oy), range(2, ox)};
          const int64_t count = std::max<int64_t>(r[0].count * r[1].count * r[2].count, 1);
          for (int64_t n = 0; n < x.batch; ++n) {
            const auto taps = [&](const auto& f) {
              for (int64_t kz = r[0].first; kz < r[0].last; ++kz)
                for (int64_t ky = r[1].first; ky < r[1].last; ++ky)
                  for (int64_t kx = r[2].first; kx < r[2].last; ++kx)
                    f(x.pixelOffset(n, r[0].origin + kz * window.dilation[0], r[1].origin + ky * window.dilation[1],
                                    r[2].origin + kx * window.dilation[2]));
            };
            visit(y.pixelOffset(n, oz, oy, ox), count, taps);
          }
        }
  }
};

// sums[c] = combine over the taps, for all channels of one window
template <class T, class Taps, class Combine>
void gather(const Pool& p, const T* x, T start, const Taps& taps, std::vector<T>& sums, const Combine& combine) {
  std::fill(sums.begin(), sums.end(), start);
  taps([&](int64_t offset) {
    for (int64_t c = 0; c < p.x.channels; ++c) {
      T& s = nth(sums, c);
      s = combine(s, x[offset + c * p.x.channelStride]);
    }
  });
}

template <class T>
T lowestOf(const TensorType& type) {
  if constexpr (std::is_floating_point_v<T>)
    return -std::numeric_limits<T>::infinity();
  else if (type.isQuantized())
    return static_cast<T>(type.quant->qmin);
  else
    return sizeOf(type.dtype) < 8 ? static_cast<T>(rangeOf(type.dtype).min) : std::numeric_limits<T>::min();
}

// y = finish(combined over the taps from `start` on, how many count for an average) for every window.
template <class T, class Combine, class Finish>
void evalWindows(const EvalContext& c, T start, const Combine& combine, const Finish& finish) {
  const Pool p(c);
  const Elements<T> x(c.in(0));
  const ResultElements<T> y(c.out());
  std::vector<T> sums(usize(p.x.channels));
  p.forEach([&](int64_t to, int64_t count, const auto& taps) {
    gather(p, x.data(), start, taps, sums, combine);
    for (int64_t ch = 0; ch < p.y.channels; ++ch) y[to + ch * p.y.channelStride] = finish(nth(sums, ch), count);
  });
  y.flush();
}

Status evalMaxPool(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  withComputeType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    const auto larger = [](T best, T v) { return v > best ? v : best; };
    evalWindows(c, lowestOf<T>(c.inType(0)), larger, [](T best, int64_t) { return best; });
  });
  return {};
}

Status evalMaxPoolGradient(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const auto pick = [&](auto tag) {
    using T = decltype(tag);
    const Pool p(c, c.in(0).sizes, c.in(1).sizes, isChannelsLast(c.node.attrs()));
    const Elements<T> x(c.in(0)), dy(c.in(1));
    const ResultElements<T> dx(c.out());
    std::fill_n(dx.data(), dx.size(), T{});
    p.forEach([&](int64_t from, int64_t, const auto& taps) {
      for (int64_t ch = 0; ch < p.x.channels; ++ch) {
        T best = -std::numeric_limits<T>::infinity();
        int64_t at = -1;
        taps([&](int64_t offset) {
          if (const T v = x[offset + ch * p.x.channelStride]; v > best) best = v, at = offset + ch * p.x.channelStride;
        });
        if (at >= 0) dx[at] += dy[from + ch * p.y.channelStride];
      }
    });
    dx.flush();
  };
  if (c.in(0).dtype == DType::f64)
    pick(double{});
  else
    pick(float{});
  return {};
}

Status evalAvgPool(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  withComputeType(c.in(0).dtype, [&](auto tag) {
    using T = decltype(tag);
    evalWindows(c, T{0}, [](T sum, T v) { return sum + v; }, [](T sum, int64_t count) { return sum / static_cast<T>(count); });
  });
  return {};
}

Status evalQuantizedAvgPool(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const Pool p(c);
  const QuantParams &xq = *c.inType(0).quant, &to = *c.outType().quant;
  const std::vector<uint32_t> x = centred(c.in(0), xq);
  std::vector<uint32_t> sums(usize(p.x.channels));
  std::vector<int32_t> q(usize(c.out().numElements()));
  const float ratio = xq.scale() / to.scale();
  p.forEach([&](int64_t at, int64_t count, const auto& taps) {
    gather(p, x.data(), 0u, taps, sums, [](uint32_t sum, uint32_t v) { return sum + v; });
    const float multiplier = ratio / static_cast<float>(count);
    for (int64_t ch = 0; ch < p.y.channels; ++ch)
      nth(q, at + ch * p.y.channelStride) = qmath::requantize(static_cast<int32_t>(nth(sums, ch)), multiplier, to.zeroPoint(),
                                                              static_cast<int32_t>(to.qmin), static_cast<int32_t>(to.qmax));
  });
  storeIntegers(c.out(), q.data());
  return {};
}

}  // namespace

void registerPoolOps(OpRegistry& registry) {
  const auto pool = [&](std::string name, std::string summary, uint32_t traits, std::vector<AttrSpec> more, InferFn infer,
                        EvalFn eval) -> OpDef {
    std::vector<AttrSpec> attrs = {meaning(AttrMeaning::perSpatialDim, integersAttr("kernel_shape")),
                                   perSpatialDimAttr("strides", 1),
                                   meaning(AttrMeaning::perSpatialDimPair, integersOrEmptyAttr("pads")),
                                   perSpatialDimAttr("dilations", 1),
                                   integerAttr("ceil_mode", 0),
                                   layoutAttr()};
    attrs.front().neutral = 1;
    attrs.insert(attrs.end(), more.begin(), more.end());
    return {.name = std::move(name),
            .summary = std::move(summary),
            .operands = {{"x"}},
            .attrs = std::move(attrs),
            .traits = traits,
            .infer = std::move(infer),
            .eval = std::move(eval),
            .scalar = {},
            .batch = leadingBatch};
  };
  OpDef largest = pool("max_pool", "largest element of each window; quantized: parameters pass through", kPure | kSharesQuant, {},
                       inferMaxPool, evalMaxPool);
  largest.gradient = maxPoolGradient;
  registry.add(std::move(largest));
  OpDef average = pool("avg_pool", "mean of each window", kPure, {integerAttr("count_include_pad", 0)}, inferAvgPool, evalAvgPool);
  average.gradient = averageGradient;
  registry.add(std::move(average));
  registry.add(pool("q.avg_pool", "mean of each window of integers, requantized", kPure,
                    {integerAttr("count_include_pad", 0), resultQuantAttr(true)}, inferQuantizedAvgPool, evalQuantizedAvgPool));
  OpDef gradient = pool("max_pool_gradient", "the gradient of max_pool's operand", kPure, {}, inferMaxPoolGradient, evalMaxPoolGradient);
  gradient.operands = {{"x"}, {"dy"}};
  gradient.noGradient = "gradients are differentiated no further";
  gradient.batch = {};
  registry.add(std::move(gradient));
}

}  // namespace qc
