// Convolutions over 1 to 3 spatial dims, float and integer, both layouts.
//
// Order of a sum: taps row-major over the kernel, within a tap the input channels of the group; one fused multiply-add each, from
// +0.  Padding takes part as zeros.  conv_transpose runs over the taps that its stride leads to, last to first on every dim, which is the
// order of the convolutions that it falls apart into (pass split-conv-transpose).  Then see epilogue.h.
#include <algorithm>
#include <cstring>

#include "ir/ops/batches.h"
#include "ir/ops/conv_types.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/epilogue.h"
#include "ir/ops/gemm.h"
#include "ir/ops/gradients.h"
#include "ir/ops/products.h"
#include "ir/ops/weight_gradient.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

struct Conv {
  SpatialView x, y;
  Window window;
  int64_t group, in, out;  // in, out: channels of one group

  explicit Conv(const EvalContext& c)
      : x(c.in(kX).sizes, isChannelsLast(c.node.attrs())),
        y(c.out().sizes, isChannelsLast(c.node.attrs())),
        window(alignedToView(Window::of(c.node.attrs(), {c.in(kW).sizes.begin() + 2, c.in(kW).sizes.end()}))),
        group(c.node.integer("group")),
        in(x.channels / group),
        out(y.channels / group) {}
  bool depthwise() const { return in == 1 && out == 1; }
  bool pointwise() const {
    const auto all = [](const auto& values, int64_t v) {
      return std::all_of(values.begin(), values.end(), [&](int64_t e) { return e == v; });
    };
    return window.taps() == 1 && all(window.stride, 1) && all(window.padBegin, 0) && all(window.padEnd, 0);
  }

  // Calls step(tap, pixel) for every tap of output pixel (z, y, x) in order; pixel -1: in the padding.
  template <class Step>
  void walk(const std::array<int64_t, 3>& at, const Step& step) const {
    const auto position = [&](size_t i, int64_t k) { return at[i] * window.stride[i] - window.padBegin[i] + k * window.dilation[i]; };
    int64_t tap = 0;
    for (int64_t kz = 0; kz < window.kernel[0]; ++kz)
      for (int64_t ky = 0; ky < window.kernel[1]; ++ky)
        for (int64_t kx = 0; kx < window.kernel[2]; ++kx, ++tap) {
          const int64_t iz = position(0, kz), iy = position(1, ky), ix = position(2, kx);
          const bool inside = iz >= 0 && iz < x.size[0] && iy >= 0 && iy < x.size[1] && ix >= 0 && ix < x.size[2];
          step(tap, inside ? (iz * x.size[1] + iy) * x.size[2] + ix : -1);
        }
  }

  // The same for a transposed convolution: input position i meets output position i * stride - pad + k * dilation.
  template <class Step>
  void walkTransposed(const std::array<int64_t, 3>& at, const Step& step) const {
    constexpr int64_t kOutside = -1, kNone = -2;
    const auto position = [&](size_t i, int64_t k) {
      const int64_t scaled = at[i] + window.padBegin[i] - k * window.dilation[i], in = scaled / window.stride[i];
      if (scaled % window.stride[i] != 0) return kNone;
      return in >= 0 && in < x.size[i] ? in : kOutside;
    };
    for (int64_t kz = window.kernel[0]; kz-- > 0;)
      for (int64_t ky = window.kernel[1]; ky-- > 0;)
        for (int64_t kx = window.kernel[2]; kx-- > 0;) {
          const int64_t iz = position(0, kz), iy = position(1, ky), ix = position(2, kx);
          if (iz == kNone || iy == kNone || ix == kNone) continue;
          const bool inside = iz != kOutside && iy != kOutside && ix != kOutside;
          step((kz * window.kernel[1] + ky) * window.kernel[2] + kx, inside ? (iz * x.size[1] + iy) * x.size[2] + ix : -1);
        }
  }

  std::array<int64_t, 3> outputAt(int64_t pixel) const {
    return {pixel / (y.size[1] * y.size[2]), pixel / y.size[2] % y.size[1], pixel % y.size[2]};
  }
};

// Weights as [group][tap][in][out], so that the output channels are the lanes of the inner loop; depthwise as [tap][channel].
template <class T>
std::vector<T> packed(const Conv& s, const T* w, bool transposed) {
  std::vector<T> p(usize(s.group * s.in * s.out * s.window.taps()));
  const int64_t taps = s.window.taps();
  for (int64_t g = 0; g < s.group; ++g)
    for (int64_t i = 0; i < s.in; ++i)
      for (int64_t o = 0; o < s.out; ++o) {
        const T* from = w + (transposed ? (g * s.in + i) * s.out + o : (g * s.out + o) * s.in + i) * taps;
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t to = s.depthwise() && !transposed ? t * s.group + g : ((g * taps + t) * s.in + i) * s.out + o;
          nth(p, to) = from[t];
        }
      }
  return p;
}

// acc[pixel][channel] += the sums of one batch item; x is [pixel][channel].
template <class T>
void convolve(const Conv& s, const T* x, const T* w, T* acc) {
  if (s.in == 0) return;
  const int64_t pixels = s.y.pixels(), outputs = s.y.channels, inputs = s.x.channels, taps = s.window.taps(), depth = taps * s.in;
  if (s.pointwise()) {
    for (int64_t g = 0; g < s.group; ++g)
      ref::multiplyAdd<T>({x + g * s.in, inputs}, {w + g * depth * s.out, s.out}, {acc + g * s.out, outputs}, {pixels, s.out, depth});
    return;
  }
  if (s.depthwise()) {
    const std::vector<T> zeros(usize(inputs));
    for (int64_t p = 0; p < pixels; ++p)
      s.walk(s.outputAt(p), [&](int64_t tap, int64_t pixel) {
        ref::multiplyAddElements(pixel < 0 ? zeros.data() : x + pixel * inputs, w + tap * outputs, acc + p * outputs, outputs);
      });
    return;
  }
  constexpr int64_t kRows = 16;
  std::vector<T> rows(usize(kRows * depth));
  for (int64_t first = 0; first < pixels; first += kRows) {
    const int64_t count = std::min(kRows, pixels - first);
    for (int64_t g = 0; g < s.group; ++g) {
      for (int64_t r = 0; r < count; ++r)
        s.walk(s.outputAt(first + r), [&](int64_t tap, int64_t pixel) {
          T* to = rows.data() + r * depth + tap * s.in;
          if (pixel < 0)
            std::fill_n(to, s.in, T{});
          else
            std::copy_n(x + pixel * inputs + g * s.in, s.in, to);
        });
      ref::multiplyAdd<T>({rows.data(), depth}, {w + g * depth * s.out, s.out}, {acc + first * outputs + g * s.out, outputs},
                          {count, s.out, depth});
    }
  }
}

template <class T>
void convolveTransposed(const Conv& s, const T* x, const T* w, T* acc) {
  if (s.in == 0) return;
  const int64_t taps = s.window.taps();
  const std::vector<T> zeros(usize(s.x.channels));
  for (int64_t p = 0; p < s.y.pixels(); ++p)
    s.walkTransposed(s.outputAt(p), [&](int64_t tap, int64_t pixel) {
      const T* from = pixel < 0 ? zeros.data() : x + pixel * s.x.channels;
      for (int64_t g = 0; g < s.group; ++g)
        ref::multiplyAdd<T>({from + g * s.in, 0}, {w + (g * taps + tap) * s.in * s.out, s.out}, {acc + p * s.y.channels + g * s.out, 0},
                            {1, s.out, s.in});
    });
}

template <class T>
void evalFloat(const EvalContext& c, bool transposed) {
  const Conv s(c);
  const Elements<T> x(c.in(kX)), w(c.in(kW));
  const std::vector<T> weights = packed(s, w.data(), transposed);
  std::vector<T> bias;
  if (c.has(kBias)) {
    const Elements<T> b(c.in(kBias));
    bias.assign(b.data(), b.data() + b.size());
  }
  const bool hasResidual = c.has(kResidual);
  const ResultElements<T> y(c.out());
  std::vector<T> pixels(usize(s.x.batchStride)), acc(usize(s.y.batchStride)), residual;
  const auto same = [](T v, int64_t) { return v; };
  for (int64_t n = 0; n < s.x.batch; ++n) {
    readPixels(s.x, x.data(), n, pixels.data(), same);
    std::fill(acc.begin(), acc.end(), T{});
    transposed ? convolveTransposed(s, pixels.data(), weights.data(), acc.data()) : convolve(s, pixels.data(), weights.data(), acc.data());
    if (hasResidual) {
      const Elements<T> r(c.in(kResidual));
      residual.resize(acc.size());
      readPixels(s.y, r.data(), n, residual.data(), same);
    }
    floatEpilogue<T>(EpilogueForm::of(c.node), bias.empty() ? nullptr : bias.data(), hasResidual ? residual.data() : nullptr, acc.data(),
                     s.y.pixels(), s.y.channels);
    writePixels(s.y, acc.data(), n, y.data());
  }
  y.flush();
}

Status evalFloatConv(const EvalContext& c, bool transposed) {
  if (c.out().numElements() == 0) return {};
  withProductType(c.in(kX).dtype, [&](auto tag) { evalFloat<decltype(tag)>(c, transposed); });
  return {};
}

Status evalQuantizedConv(const EvalContext& c, bool transposed) {
  if (c.out().numElements() == 0) return {};
  const Conv s(c);
  const QuantParams &xq = *c.inType(kX).quant, &wq = *c.inType(kW).quant;
  const int64_t taps = s.window.taps(), slices = c.in(kW).sizes[transposed ? 1 : 0];
  const std::vector<uint32_t> x = centred(c.in(kX), xq);
  const std::vector<uint32_t> w = centred(c.in(kW), wq, [&](int64_t i) { return transposed ? i / taps % slices : i / (taps * s.in); });
  const std::vector<uint32_t> weights = packed(s, w.data(), transposed);
  const QuantizedEpilogue epilogue(c, s.y.channels, [&](int64_t o) { return transposed ? o % slices : o; });
  const std::vector<float> residual = c.has(kResidual) ? dequantized(c.in(kResidual), *c.inType(kResidual).quant) : std::vector<float>();
  std::vector<uint32_t> pixels(usize(s.x.batchStride)), acc(usize(s.y.batchStride));
  std::vector<float> residualPixels(residual.empty() ? 0 : acc.size()), reals(epilogue.quantizes() ? 0 : acc.size());
  std::vector<int32_t> integers(epilogue.quantizes() ? acc.size() : 0), all(epilogue.quantizes() ? acc.size() * usize(s.y.batch) : 0);
  const auto same = [](auto v, int64_t) { return v; };
  for (int64_t n = 0; n < s.x.batch; ++n) {
    readPixels(s.x, x.data(), n, pixels.data(), same);
    std::fill(acc.begin(), acc.end(), 0u);
    transposed ? convolveTransposed(s, pixels.data(), weights.data(), acc.data()) : convolve(s, pixels.data(), weights.data(), acc.data());
    if (!residual.empty()) readPixels(s.y, residual.data(), n, residualPixels.data(), same);
    epilogue.run(acc.data(), residual.empty() ? nullptr : residualPixels.data(), s.y.pixels(), integers.data(), reals.data());
    if (epilogue.quantizes())
      writePixels(s.y, integers.data(), n, all.data());
    else
      writePixels(s.y, reals.data(), n, c.out().as<float>());
  }
  if (epilogue.quantizes()) storeIntegers(c.out(), all.data());
  return {};
}

// y = float(acc) * f32(s * sw[c]) + bias; the padding takes part as the zero point.
Status evalDynamicConv(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const Conv s(c);
  const QuantParams& wq = *c.inType(kW).quant;
  const float scale = *c.in(kScale).as<float>();
  const int64_t taps = s.window.taps();
  const QuantParams xq{c.in(kX).dtype, 0, 0, -1, 0, {1.0f}, {*c.in(kZeroPoint).as<int32_t>()}};
  const std::vector<uint32_t> x = centred(c.in(kX), xq);
  const std::vector<uint32_t> w = centred(c.in(kW), wq, [&](int64_t i) { return i / (taps * s.in); });
  const std::vector<uint32_t> weights = packed(s, w.data(), false);
  std::vector<uint32_t> pixels(usize(s.x.batchStride)), acc(usize(s.y.batchStride));
  std::vector<float> y(acc.size());
  const auto same = [](auto v, int64_t) { return v; };
  for (int64_t n = 0; n < s.x.batch; ++n) {
    readPixels(s.x, x.data(), n, pixels.data(), same);
    std::fill(acc.begin(), acc.end(), 0u);
    convolve(s, pixels.data(), weights.data(), acc.data());
    for (int64_t p = 0, i = 0; p < s.y.pixels(); ++p)
      for (int64_t o = 0; o < s.y.channels; ++o, ++i) {
        nth(y, i) = static_cast<float>(static_cast<int32_t>(nth(acc, i))) * (scale * wq.scale(o));
        if (c.has(kBias)) nth(y, i) += c.in(kBias).as<float>()[o];
      }
    writePixels(s.y, y.data(), n, c.out().as<float>());
  }
  return {};
}

}  // namespace

void registerConvOps(OpRegistry& registry) {
  const std::vector<AttrSpec> spatial = {perSpatialDimAttr("strides", 1),
                                         meaning(AttrMeaning::perSpatialDimPair, integersOrEmptyAttr("pads")),
                                         perSpatialDimAttr("dilations", 1), integerAttr("group", 1), layoutAttr()};
  const auto with = [&](std::vector<AttrSpec> more) {
    more.insert(more.begin(), spatial.begin(), spatial.end());
    return more;
  };
  const auto add = [&](std::string name, std::string summary, bool transposed, bool quantized, std::vector<AttrSpec> attrs, InferFn infer,
                       GradientFn gradient = {}) {
    std::vector<OperandSpec> operands = {{"x"},
                                         {.name = "w", .role = OperandRole::weight, .weight = WeightAxes{transposed ? 1 : 0, -1}},
                                         {.name = "bias", .optional = true, .role = OperandRole::bias}};
    if (!transposed) operands.push_back({"residual", true});
    EvalFn eval = [=](const EvalContext& c) { return quantized ? evalQuantizedConv(c, transposed) : evalFloatConv(c, transposed); };
    registry.add({.name = std::move(name),
                  .summary = std::move(summary),
                  .operands = std::move(operands),
                  .attrs = with(std::move(attrs)),
                  .infer = std::move(infer),
                  .eval = std::move(eval),
                  .scalar = {},
                  .gradient = std::move(gradient),
                  .batch = leadingBatch,
                  .products = transposed ? productsOfTransposed : productsOfConv});
  };
  const AttrSpec post = postAttr(), to = resultQuantAttr(false);
  add("conv", "convolution over 1 to 3 spatial dims", false, false, {post}, inferConv, convGradient);
  add("conv_transpose", "transposed convolution", true, false, {perSpatialDimAttr("output_padding", 0)}, inferConvTranspose,
      convTransposeGradient);
  add("q.conv", "integer convolution with exact int32 sums", false, true, {post, to, clampMinAttr(), clampMaxAttr()}, inferQuantizedConv);
  add("q.conv_transpose", "integer transposed convolution", true, true,
      {perSpatialDimAttr("output_padding", 0), to, clampMinAttr(), clampMaxAttr()}, inferQuantizedConvTranspose);
  registry.add({.name = "q.dynamic_conv",
                .summary = "integer convolution whose input's scale and zero point are operands; float result",
                .operands = {{"x"},
                             {.name = "w", .role = OperandRole::weight, .weight = WeightAxes{0, -1}},
                             {.name = "bias", .optional = true, .role = OperandRole::bias},
                             {.name = "scale", .role = OperandRole::parameter},
                             {.name = "zero_point", .role = OperandRole::parameter}},
                .attrs = with({}),
                .infer = inferDynamicConv,
                .eval = evalDynamicConv,
                .scalar = {},
                .batch = leadingBatch,
                .products = productsOfConv});
  registerWeightGradientOps(registry);
}

}  // namespace qc
