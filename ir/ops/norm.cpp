// Normalisations and softmax.  Every operation rounds to float32 (float64 for f64 tensors); sum() is orderedSum (ir/ops/sums.h) over
// the elements of the reduced set, counted row-major, channels before spatial dims in both layouts.  epsilon is rounded first.
//   batch_norm    k = scale * (1 / sqrt(var + epsilon));  y = x * k + (bias - mean * k)
//   layer_norm, instance_norm, group_norm over n elements:
//                 mean = sum(x) / n;  d = x - mean;  var = sum(d * d) / n;  r = 1 / sqrt(var + epsilon);  y = ((d * r) * scale) + bias
//   lrn           s = sum of squares over the channels of the window, ascending, from +0;  y = x / pow(bias + (alpha / size) * s, beta)
//   softmax       m = -inf; m = x > m ? x : m;  e = exp(x - m);  y = e / sum(e)
//   log_softmax   y = (x - m) - log(sum(e))
// exp, log and pow are the float32 expansions of ScalarExpr.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/ops/batches.h"
#include "ir/ops/gradients.h"
#include "ir/ops/sums.h"
#include "ir/ops/widen.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

// ---- inference --------------------------------------------------------------------------------

Result<Types> sameAsX(const InferContext& c) { return checkedResults({c.type(0)}); }

// Operands 1.. are vectors with one element per channel: they say how many there are where that dim is free.
Result<Types> inferPerChannel(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireRank(c, 0, 2));
  bool last = false;
  if (c.attrs.find("layout")) {
    QC_TRY(requireLayout(c));
    last = isChannelsLast(c.attrs);
  }
  Shape x = c.type(0).shape;
  Dim& channels = last ? x.back() : x[1];
  for (int i = 1; i < static_cast<int>(c.operands.size()); ++i) {
    if (!c.has(i)) continue;
    QC_TRY(requireSameDType(c, i, 0));
    QC_TRY(requireVector(c, i, channels));
    if (!channels.isStatic()) channels = c.type(i).shape[0];
  }
  return checkedResults({c.type(0).withShape(std::move(x))});
}

Result<Types> inferGroupNorm(const InferContext& c) {
  QC_ASSIGN(Types types, inferPerChannel(c));
  const Shape& x = c.type(0).shape;
  const Dim channels = isChannelsLast(c.attrs) ? x.back() : x[1];
  const int64_t groups = c.attrs.integer("num_groups");
  if (groups < 1 || (channels.isStatic() && channels.size() % groups != 0))
    return fail(ErrorCode::kInvalidModel, "'{}': num_groups={} does not divide the {} channels of {}", c.op, groups, channels.str(),
                describe(c, 0));
  return types;
}

Result<Types> inferLayerNorm(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireAxis(c, "axis", c.type(0).rank()));
  Shape x = c.type(0).shape;
  const Shape normalized(x.begin() + c.attrs.integer("axis"), x.end());
  for (int i = 1; i <= 2; ++i) {
    if (!c.has(i)) continue;
    QC_TRY(requireSameDType(c, i, 0));
    // Missing leading dims and dims of 1 broadcast.
    const Shape& own = c.type(i).shape;
    bool fits = own.size() <= normalized.size();
    for (size_t d = 0; fits && d < own.size(); ++d)
      fits = own[own.size() - 1 - d] == Dim(1) || compatible(own[own.size() - 1 - d], normalized[normalized.size() - 1 - d]);
    if (!fits)
      return fail(ErrorCode::kInvalidModel, "'{}': {} does not broadcast to the normalized dims [{}]", c.op, describe(c, i),
                  toString(normalized));
    for (size_t d = 0; d < own.size(); ++d) {
      Dim& dim = x[x.size() - own.size() + d];
      if (!dim.isStatic() && own[d] != Dim(1)) dim = own[d];  // a free dim has the size of the parameters
    }
  }
  return checkedResults({c.type(0).withShape(std::move(x))});
}

Result<Types> inferLrn(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireRank(c, 0, 3, 2 + kMaxSpatial));
  QC_TRY(requireLayout(c));
  if (const int64_t size = c.attrs.integer("size"); size < 1 || size > INT32_MAX)
    return fail(ErrorCode::kInvalidModel, "'{}': size={} is not a number of channels", c.op, size);
  return sameAsX(c);
}

Result<Types> inferSoftmax(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireAxis(c, "axis", c.type(0).rank()));
  return sameAsX(c);
}

// ---- evaluation -------------------------------------------------------------------------------

// Channel of each element: i / inner % channels.
struct ChannelView {
  int64_t batch, channels, inner;  // inner: elements between two channels' starts
  bool last;
  int64_t pixels;

  ChannelView(std::span<const int64_t> sizes, const AttrDict& attrs)
      : batch(sizes[0]), last(attrs.find("layout") && isChannelsLast(attrs)) {
    const AxisView v(sizes, last ? static_cast<int64_t>(sizes.size()) - 1 : 1);
    channels = v.length;
    inner = v.inner;
    pixels = last ? v.outer / std::max<int64_t>(batch, 1) : v.inner;
  }
  int64_t offset(int64_t n, int64_t channel, int64_t pixel) const {
    return n * channels * pixels + (last ? pixel * channels + channel : channel * pixels + pixel);
  }
};

template <class F>
Status withFloats(const EvalContext& c, F&& f) {
  if (c.out().numElements() == 0) return {};
  if (c.in(0).dtype == DType::f64)
    f(double{});
  else
    f(float{});
  return {};
}

Status evalBatchNorm(const EvalContext& c) {
  return withFloats(c, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0)), scale(c.in(1)), bias(c.in(2)), mean(c.in(3)), var(c.in(4));
    const ResultElements<T> y(c.out());
    const ChannelView v(c.in(0).sizes, c.node.attrs());
    const auto epsilon = static_cast<T>(static_cast<float>(c.node.real("epsilon")));
    std::vector<T> factor(usize(v.channels)), shift(factor.size());
    for (int64_t ch = 0; ch < v.channels; ++ch) {
      const auto i = usize(ch);
      factor[i] = scale[ch] * (T{1} / std::sqrt(var[ch] + epsilon));
      shift[i] = bias[ch] - mean[ch] * factor[i];
    }
    for (int64_t i = 0; i < x.size(); ++i) {
      const auto ch = usize(i / v.inner % v.channels);
      y[i] = x[i] * factor[ch] + shift[ch];
    }
    y.flush();
  });
}

template <class T>
struct Moments {
  T mean, r;
};

// at(i): element i of the set
template <class T, class At>
Moments<T> moments(int64_t n, T epsilon, const At& at) {
  const T mean = orderedSum<T>(n, at) / static_cast<T>(n);
  const T var = orderedSum<T>(n,
                              [&](int64_t i) {
                                const T d = at(i) - mean;
                                return d * d;
                              }) /
                static_cast<T>(n);
  return {mean, T{1} / std::sqrt(var + epsilon)};
}

// instance_norm is group_norm with one channel per group.
Status evalGroupNorm(const EvalContext& c, bool instance) {
  return withFloats(c, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0)), scale(c.in(1)), bias(c.in(2));
    const ResultElements<T> y(c.out());
    const ChannelView v(c.in(0).sizes, c.node.attrs());
    const int64_t groups = instance ? v.channels : c.node.integer("num_groups"), perGroup = v.channels / groups, n = perGroup * v.pixels;
    const auto epsilon = static_cast<T>(static_cast<float>(c.node.real("epsilon")));
    for (int64_t b = 0; b < v.batch; ++b)
      for (int64_t g = 0; g < groups; ++g) {
        const auto offset = [&](int64_t i) { return v.offset(b, g * perGroup + i / v.pixels, i % v.pixels); };
        const Moments<T> m = moments<T>(n, epsilon, [&](int64_t i) { return x[offset(i)]; });
        for (int64_t i = 0; i < n; ++i) {
          const int64_t at = offset(i), ch = g * perGroup + i / v.pixels;
          y[at] = (((x[at] - m.mean) * m.r) * scale[ch]) + bias[ch];
        }
      }
    y.flush();
  });
}

// The operand broadcast to the normalized dims; empty when absent.
template <class T>
std::vector<T> broadcastParameter(const EvalContext& c, int operand, std::span<const int64_t> to) {
  if (!c.has(operand)) return {};
  const Elements<T> e(c.in(operand));
  const auto& sizes = c.in(operand).sizes;
  const int64_t count = numElements({to.begin(), to.end()});
  std::vector<T> out(usize(count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, from = 0, stride = 1;
    for (size_t d = 0; d < to.size(); ++d) {
      const int64_t index = rest % to[to.size() - 1 - d];
      rest /= to[to.size() - 1 - d];
      if (d >= sizes.size()) continue;
      const int64_t size = sizes[sizes.size() - 1 - d];
      from += (size == 1 ? 0 : index) * stride;
      stride *= size;
    }
    nth(out, i) = e[from];
  }
  return out;
}

Status evalLayerNorm(const EvalContext& c) {
  return withFloats(c, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0));
    const ResultElements<T> y(c.out());
    const auto normalized = c.in(0).sizes.subspan(usize(c.node.integer("axis")));
    const int64_t n = numElements({normalized.begin(), normalized.end()}), rows = x.size() / n;
    const std::vector<T> scale = broadcastParameter<T>(c, 1, normalized), bias = broadcastParameter<T>(c, 2, normalized);
    const auto epsilon = static_cast<T>(static_cast<float>(c.node.real("epsilon")));
    for (int64_t r = 0; r < rows; ++r) {
      const T* from = x.data() + r * n;
      T* to = y.data() + r * n;
      const Moments<T> m = moments<T>(n, epsilon, [&](int64_t i) { return from[i]; });
      for (int64_t i = 0; i < n; ++i) {
        T v = (from[i] - m.mean) * m.r;
        if (!scale.empty()) v = v * nth(scale, i);
        if (!bias.empty()) v = v + nth(bias, i);
        to[i] = v;
      }
    }
    y.flush();
  });
}

Status evalLrn(const EvalContext& c) {
  return withFloats(c, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0));
    const ResultElements<T> y(c.out());
    const ChannelView v(c.in(0).sizes, c.node.attrs());
    const int64_t size = c.node.integer("size"), before = (size - 1) / 2, after = size - 1 - before;
    const auto real = [&](const char* name) { return static_cast<float>(c.node.real(name)); };
    const ScalarExpr a0 = ScalarExpr::arg(0), s = ScalarExpr::arg(1);
    const float factor = real("alpha") / static_cast<float>(size);
    const ExprProgram program((a0 / expr::pow(ScalarExpr(real("bias")) + ScalarExpr(factor) * s, real("beta"))).expand());
    std::vector<T> squares(usize(x.size()));
    for (int64_t b = 0; b < v.batch; ++b)
      for (int64_t ch = 0; ch < v.channels; ++ch)
        for (int64_t p = 0; p < v.pixels; ++p) {
          T sum = 0;
          for (int64_t k = std::max<int64_t>(ch - before, 0); k <= std::min(ch + after, v.channels - 1); ++k) {
            const T e = x[v.offset(b, k, p)];
            sum = sum + e * e;
          }
          nth(squares, v.offset(b, ch, p)) = sum;
        }
    const T* const args[] = {x.data(), squares.data()};
    const int strides[] = {1, 1};
    program.run<T>(args, strides, y.data(), x.size());
    y.flush();
  });
}

Status evalSoftmax(const EvalContext& c, bool logarithm) {
  static const ExprProgram kExp(expr::exp(ScalarExpr::arg(0)).expand()), kLog(expr::log(ScalarExpr::arg(0)).expand());
  return withFloats(c, [&](auto tag) {
    using T = decltype(tag);
    const Elements<T> x(c.in(0));
    const ResultElements<T> y(c.out());
    const AxisView v(c.in(0).sizes, c.node.integer("axis"));
    const auto apply = [](const ExprProgram& program, const T* in, T* out, int64_t n) {
      const T* const args[] = {in};
      const int strides[] = {1};
      program.run<T>(args, strides, out, n);
    };
    std::vector<T> shifted(usize(v.length)), e(shifted.size());
    for (int64_t o = 0; o < v.outer; ++o)
      for (int64_t i = 0; i < v.inner; ++i) {
        const int64_t base = o * v.length * v.inner + i;
        T m = -std::numeric_limits<T>::infinity();
        for (int64_t a = 0; a < v.length; ++a) m = x[base + a * v.inner] > m ? x[base + a * v.inner] : m;
        for (int64_t a = 0; a < v.length; ++a) nth(shifted, a) = x[base + a * v.inner] - m;
        apply(kExp, shifted.data(), e.data(), v.length);
        T sum = orderedSum<T>(v.length, [&](int64_t a) { return nth(e, a); });
        if (logarithm) {
          T log = 0;
          apply(kLog, &sum, &log, 1);
          for (int64_t a = 0; a < v.length; ++a) y[base + a * v.inner] = nth(shifted, a) - log;
        } else {
          for (int64_t a = 0; a < v.length; ++a) y[base + a * v.inner] = nth(e, a) / sum;
        }
      }
    y.flush();
  });
}

}  // namespace

void registerNormOps(OpRegistry& registry) {
  const AttrSpec epsilon = realAttr("epsilon", 1e-5);
  const auto learned = [](const char* name, bool optional) {
    return OperandSpec{.name = name, .optional = optional, .role = OperandRole::parameter, .learned = true};
  };
  const std::vector<OperandSpec> perChannel = {{"x"}, learned("scale", false), learned("bias", false)};
  std::vector<OperandSpec> withStatistics = perChannel;  // which follow data
  for (const char* name : {"mean", "var"}) withStatistics.push_back({.name = name, .role = OperandRole::parameter});
  const auto add = [&](std::string name, std::string summary, std::vector<OperandSpec> operands, std::vector<AttrSpec> attrs, InferFn infer,
                       EvalFn eval, GradientFn gradient, BatchFn batch) {
    registry.add({.name = std::move(name),
                  .summary = std::move(summary),
                  .operands = std::move(operands),
                  .attrs = std::move(attrs),
                  .infer = std::move(infer),
                  .eval = std::move(eval),
                  .scalar = {},
                  .gradient = std::move(gradient),
                  .batch = std::move(batch)});
  };
  add("batch_norm", "per-channel normalisation by given statistics", withStatistics, {epsilon, layoutAttr()}, inferPerChannel,
      evalBatchNorm, batchNormGradient, leadingBatch);
  add(
      "instance_norm", "normalisation of each channel of each sample", perChannel, {epsilon, layoutAttr()}, inferPerChannel,
      [](const EvalContext& c) { return evalGroupNorm(c, true); }, groupNormGradient, leadingBatch);
  add(
      "group_norm", "normalisation of each group of channels of each sample", perChannel,
      {epsilon, integerAttr("num_groups"), layoutAttr()}, inferGroupNorm, [](const EvalContext& c) { return evalGroupNorm(c, false); },
      groupNormGradient, leadingBatch);
  add("layer_norm", "normalisation over the dims from axis on", {{"x"}, learned("scale", true), learned("bias", true)},
      {integerAttr("axis"), epsilon}, inferLayerNorm, evalLayerNorm, layerNormGradient, batchOfLayerNorm);
  add("lrn", "local response normalisation across channels", {{"x"}},
      {integerAttr("size"), realAttr("alpha", 1e-4), realAttr("beta", 0.75), realAttr("bias", 1.0), layoutAttr()}, inferLrn, evalLrn,
      lrnGradient, leadingBatch);
  const auto addSoftmax = [&](std::string name, std::string summary, bool logarithm, GradientFn gradient) {
    registry.add({.name = std::move(name),
                  .summary = std::move(summary),
                  .operands = {{"x"}},
                  .attrs = {axisAttr()},
                  .traits = kPure | kPermutable,
                  .infer = inferSoftmax,
                  .eval = [=](const EvalContext& c) { return evalSoftmax(c, logarithm); },
                  .scalar = {},
                  .gradient = std::move(gradient)});
  };
  addSoftmax("softmax", "exp(x) over its sum along an axis", false, softmaxGradient);
  addSoftmax("log_softmax", "logarithm of softmax", true, logSoftmaxGradient);
}

}  // namespace qc
