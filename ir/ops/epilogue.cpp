#include "ir/ops/epilogue.h"

#include <algorithm>
#include <cstdlib>

namespace qc {
namespace {

constexpr int64_t kMaxSum = INT32_MAX;

// The largest |q - z| that the storage type can hold.
int64_t reach(const QuantParams& q) {
  const IntRange range = rangeOf(q.storage);
  int64_t most = 0;
  for (const int64_t z : q.zeroPoints) most = std::max({most, z - range.min, range.max - z});
  return most;
}

Status requireResidual(const InferContext& c, const Shape& shape) {
  if (!c.has(kResidual)) return {};
  return requireShape(c, kResidual, shape);
}

Status requireQuantizedWeight(const InferContext& c, int axis) {
  const TensorType& w = c.type(kW);
  if (!w.isQuantized() || sizeOf(w.dtype) != 1 || w.quant->blockSize > 0 || (w.quant->perChannel() && w.quant->axis != axis))
    return fail(ErrorCode::kInvalidModel, "'{}' takes weights quantized to at most 8 bits, per tensor or per channel on axis {}; got {}",
                c.op, axis, w.str());
  return checkQuantParams(*w.quant, w.shape);
}

// y = post(y, residual)
template <class T>
void applyPost(const std::optional<ScalarExpr>& post, const T* residual, T* y, int64_t n) {
  if (!post || n == 0) return;
  const ExprProgram program(post->expand());
  std::vector<T> out(usize(n));
  const T* const args[] = {y, residual};
  const int strides[] = {1, 1};
  const size_t count = residual ? 2 : 1;
  program.run<T>(std::span(args, count), std::span(strides, count), out.data(), n);
  std::copy(out.begin(), out.end(), y);
}

}  // namespace

Status requireArithmetic(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (!t.isQuantized() && (isFloat(t.dtype) || (isInteger(t.dtype) && sizeOf(t.dtype) >= 4))) return {};
  return fail(ErrorCode::kInvalidModel, "'{}' computes on floats or 32- and 64-bit integers, got {}", c.op, describe(c, operand));
}

Result<Types> floatProductResult(const InferContext& c, Shape shape, Dim channels) {
  QC_TRY(requireArithmetic(c, kX));
  QC_TRY(requireSameDType(c, kW, kX));
  if (c.has(kBias)) {
    QC_TRY(requireSameDType(c, kBias, kX));
    QC_TRY(requireVector(c, kBias, channels));
  }
  if (c.has(kResidual)) QC_TRY(requireSameDType(c, kResidual, kX));
  QC_TRY(requireResidual(c, shape));
  QC_TRY(requirePost(c, c.has(kResidual)));
  if (!isFloat(c.type(kX).dtype) && (c.has(kResidual) || c.attrs.expr("post")))
    return fail(ErrorCode::kInvalidModel, "'{}' on integers has neither post nor residual", c.op);
  return checkedResults({TensorType(c.type(kX).dtype, std::move(shape))});
}

Result<Types> quantizedProductResult(const InferContext& c, Shape shape, Dim channels, int weightAxis) {
  QC_TRY(requirePerTensor8Or16Bit(c, kX));
  QC_TRY(checkQuantParams(*c.type(kX).quant, c.type(kX).shape));
  QC_TRY(requireQuantizedWeight(c, weightAxis));
  if (c.has(kBias)) {
    if (c.type(kBias).dtype != DType::s32)
      return fail(ErrorCode::kInvalidModel, "'{}' takes an s32 bias of scale sx * sw, got {}", c.op, describe(c, kBias));
    QC_TRY(requireVector(c, kBias, channels));
  }
  if (c.has(kResidual)) {
    const TensorType& r = c.type(kResidual);
    if (!r.isQuantized() || r.quant->perChannel() || sizeOf(r.dtype) > 2)
      return fail(ErrorCode::kInvalidModel, "'{}' takes a residual quantized per tensor, got {}", c.op, r.str());
    QC_TRY(checkQuantParams(*r.quant, r.shape));
    QC_TRY(requireResidual(c, shape));
  }
  QC_TRY(requirePost(c, c.has(kResidual)));
  const QuantPtr& to = c.attrs.quant("to");
  const int64_t low = c.attrs.integer("clamp_min"), high = c.attrs.integer("clamp_max");
  if (!to) {
    if (low != INT32_MIN || high != INT32_MAX) return fail(ErrorCode::kInvalidModel, "'{}': clamps need a quantized result (`to`)", c.op);
    return checkedResults({TensorType(DType::f32, std::move(shape))});
  }
  QC_TRY(requirePerTensorTo(to));
  if (const ResultBounds bounds = resultBounds(*to, c.attrs); bounds.low > bounds.high)
    return fail(ErrorCode::kInvalidModel, "'{}': clamp_min={} and clamp_max={} leave nothing of {}..{}", c.op, low, high, to->qmin,
                to->qmax);
  return checkedResults({TensorType(to, std::move(shape))});
}

Status requireInt32Sums(const InferContext& c, int64_t depth, int64_t channels, const std::function<int64_t(int64_t)>& channelOf) {
  const QuantParams &x = *c.type(kX).quant, &w = *c.type(kW).quant;
  const int64_t reachX = reach(x), reachW = reach(w);
  const Tensor* weights = c.constant(kW);
  const Tensor* bias = c.constant(kBias);
  int64_t largestBias = 0;
  if (bias)
    for (const int32_t b : bias->as<int32_t>()) largestBias = std::max(largestBias, std::abs(int64_t{b}));
  int64_t bound = 0;
  if (!__builtin_mul_overflow(depth, reachX * reachW, &bound) && bound <= kMaxSum - largestBias) return {};
  if (channelOf && weights && weights->numElements() > 0) {
    // An input that is never negative can reach one end with positive weights alone, and the other with negative ones.
    const IntRange range = rangeOf(x.storage);
    const int64_t low = range.min - x.zeroPoint(), high = range.max - x.zeroPoint();
    struct Sum {
      int64_t least = 0, most = 0;
    };
    std::vector<Sum> sums(usize(channels));
    for (int64_t i = 0; i < weights->numElements(); ++i) {
      const int64_t channel = channelOf(i);
      const int64_t slice = w.zeroPoints.size() == 1 ? 0 : channel % static_cast<int64_t>(w.zeroPoints.size());
      const int64_t weight = static_cast<int64_t>(weights->at(i)) - w.zeroPoint(slice);
      nth(sums, channel).least += std::min(weight * low, weight * high);
      nth(sums, channel).most += std::max(weight * low, weight * high);
    }
    bool fits = true;
    for (int64_t o = 0; o < channels; ++o) {
      const int64_t b = bias ? int64_t{nth(bias->as<int32_t>(), o)} : 0;
      // A padded tap counts as zero, so that either end may be met alone.
      fits = fits && std::min<int64_t>(nth(sums, o).least, 0) + std::min<int64_t>(b, 0) >= -kMaxSum &&
             std::max<int64_t>(nth(sums, o).most, 0) + std::max<int64_t>(b, 0) <= kMaxSum;
    }
    if (fits) return {};
  }
  return fail(ErrorCode::kUnsupported, "'{}': int32 sums could overflow: {} terms of up to {} * {} with a bias of up to {} reach beyond {}",
              c.op, depth, reachX, reachW, largestBias, kMaxSum)
      .help("keep this layer in float");
}

template <class T>
void floatEpilogue(const EpilogueForm& form, const T* bias, const T* residual, T* y, int64_t rows, int64_t channels) {
  if (bias)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t o = 0; o < channels; ++o) y[r * channels + o] += bias[o];
  if constexpr (std::is_floating_point_v<T>) applyPost<T>(form.post, residual, y, rows * channels);
}
template void floatEpilogue<float>(const EpilogueForm&, const float*, const float*, float*, int64_t, int64_t);
template void floatEpilogue<double>(const EpilogueForm&, const double*, const double*, double*, int64_t, int64_t);
template void floatEpilogue<uint32_t>(const EpilogueForm&, const uint32_t*, const uint32_t*, uint32_t*, int64_t, int64_t);
template void floatEpilogue<uint64_t>(const EpilogueForm&, const uint64_t*, const uint64_t*, uint64_t*, int64_t, int64_t);

QuantizedEpilogue::QuantizedEpilogue(const EvalContext& c, int64_t channels, const std::function<int64_t(int64_t)>& channelScale)
    : channels_(channels), form_(EpilogueForm::of(c.node)), bias_(usize(channels)) {
  const QuantParams &x = *c.inType(kX).quant, &w = *c.inType(kW).quant;
  for (int64_t o = 0; o < channels; ++o) {
    factor_.push_back(form_.factor(x.scale(), w.scale(channelScale(o))));
    if (c.node.operand(kBias)) nth(bias_, o) = c.in(kBias).as<uint32_t>()[o];
  }
}

void QuantizedEpilogue::run(const uint32_t* acc, const float* residual, int64_t rows, int32_t* integers, float* reals) const {
  const int64_t n = rows * channels_;
  const auto sum = [&](int64_t i, int64_t o) { return static_cast<int32_t>(acc[i] + nth(bias_, o)); };
  if (form_.integerForm()) {
    for (int64_t i = 0, r = 0; r < rows; ++r)
      for (int64_t o = 0; o < channels_; ++o, ++i) integers[i] = form_.ofSum(sum(i, o), nth(factor_, o));
    return;
  }
  std::vector<float> scratch(form_.to ? usize(n) : 0);
  float* y = form_.to ? scratch.data() : reals;
  for (int64_t i = 0, r = 0; r < rows; ++r)
    for (int64_t o = 0; o < channels_; ++o, ++i) y[i] = static_cast<float>(sum(i, o)) * nth(factor_, o);
  applyPost<float>(form_.post, residual, y, n);
  if (!form_.to) return;
  for (int64_t i = 0; i < n; ++i) integers[i] = form_.ofFloat(y[i]);
}

std::vector<uint32_t> centred(const TensorRef& ref, const QuantParams& q, const std::function<int64_t(int64_t)>& channelOf) {
  const Elements<int64_t> values(ref);
  std::vector<uint32_t> out(usize(values.size()));
  if (!channelOf || q.zeroPoints.size() == 1) {
    for (int64_t i = 0; i < values.size(); ++i) nth(out, i) = static_cast<uint32_t>(values[i] - q.zeroPoint());
  } else {
    for (int64_t i = 0; i < values.size(); ++i) nth(out, i) = static_cast<uint32_t>(values[i] - q.zeroPoint(channelOf(i)));
  }
  return out;
}

std::vector<float> dequantized(const TensorRef& ref, const QuantParams& q) {
  const Elements<int64_t> values(ref);
  std::vector<float> out(usize(values.size()));
  for (int64_t i = 0; i < values.size(); ++i) nth(out, i) = qmath::dequantize(static_cast<int32_t>(values[i]), q.scale(), q.zeroPoint());
  return out;
}

void storeIntegers(const TensorRef& out, const int32_t* values) {
  const int64_t n = out.numElements();
  withStorage(out.dtype, [&](auto tag) {
    using S = decltype(tag);
    for (int64_t i = 0; i < n; ++i) out.as<S>()[i] = narrowed<S>(values[i]);
  });
}

}  // namespace qc
