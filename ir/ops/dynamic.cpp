// Linear layers over integers whose parameters were found at run time.
//   y = float(acc) * f32(s * sw[c]) + bias        acc = sum of (q - z) * (qw - zw), exact int32; without bias nothing is added
// Group-wise weights sum the groups in order from +0: y = sum of float(acc_g) * f32(s * sw[c][g]), each term rounded by itself.
// s and z are scalars or one per row.  q.dynamic_conv has the same form and stands in conv.cpp.
// Tests: tests/unit/dynamic_ops_test.cpp.
#include "ir/ops/dynamic.h"

#include <algorithm>
#include <cmath>

#include "ir/ops/batches.h"
#include "ir/ops/epilogue.h"
#include "ir/ops/gemm.h"
#include "ir/ops/products.h"
#include "ir/quant_spec.h"

namespace qc {
namespace {

enum DynamicOperand { kInput, kWeight, kBiasOperand, kScale, kZeroPoint };

// A scalar, or one per row of x.
Status requireRowParameter(const InferContext& c, int operand, DType dtype) {
  const TensorType& t = c.type(operand);
  const Shape& x = c.type(kInput).shape;
  if (t.isQuantized() || t.dtype != dtype)
    return fail(ErrorCode::kInvalidModel, "'{}' takes {} of {}, got {}", c.op, operandName(c, operand), toString(dtype),
                describe(c, operand));
  if (t.shape.empty() || (t.shape.size() == 1 && t.shape[0] == Dim(1))) return {};
  if (t.shape.size() == x.size() && t.shape.back() == Dim(1) && std::equal(t.shape.begin(), t.shape.end() - 1, x.begin(), compatible))
    return {};
  return fail(ErrorCode::kInvalidModel, "'{}': {} is neither a scalar nor one value per row of {}", c.op, describe(c, operand),
              describe(c, kInput));
}

Result<Types> inferDynamicLinear(const InferContext& c) {
  const TensorType &x = c.type(kInput), &w = c.type(kWeight);
  if (x.isQuantized() || !isInteger(x.dtype) || sizeOf(x.dtype) != 1)
    return fail(ErrorCode::kInvalidModel, "'{}' takes plain 8-bit integers, got {}", c.op, describe(c, kInput));
  QC_TRY(requireRank(c, kInput, 1));
  QC_TRY(requireRank(c, kWeight, 2, 2));
  if (!w.isQuantized() || !w.isStatic() || sizeOf(w.dtype) != 1 || (w.quant->perChannel() && w.quant->axis != (w.quant->blockSize ? 1 : 0)))
    return fail(ErrorCode::kInvalidModel,
                "'{}' takes weights quantized to at most 8 bits per tensor, per row or in groups of a row; got {}", c.op, w.str());
  QC_TRY(checkQuantParams(*w.quant, w.shape));
  if (!compatible(x.shape.back(), w.shape[1]))
    return fail(ErrorCode::kInvalidModel, "'{}': rows of {} do not fit {}", c.op, describe(c, kInput), describe(c, kWeight));
  QC_TRY(requireDynamicSums(c, x.dtype, *w.quant, w.shape[1].size()));
  QC_TRY(requireRowParameter(c, kScale, DType::f32));
  QC_TRY(requireRowParameter(c, kZeroPoint, DType::s32));
  if (c.has(kBiasOperand)) {
    if (c.type(kBiasOperand).isQuantized() || c.type(kBiasOperand).dtype != DType::f32)
      return fail(ErrorCode::kInvalidModel, "'{}' takes an f32 bias, got {}", c.op, describe(c, kBiasOperand));
    QC_TRY(requireVector(c, kBiasOperand, w.shape[0]));
  }
  Shape shape = x.shape;
  shape.back() = w.shape[0];
  return checkedResults({TensorType(DType::f32, std::move(shape))});
}

Status evalDynamicLinear(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const QuantParams& wq = *c.inType(kWeight).quant;
  const int64_t outputs = c.in(kWeight).sizes[0], depth = c.in(kWeight).sizes[1], rows = c.out().numElements() / outputs;
  const int64_t group = wq.blockSize ? wq.blockSize : std::max<int64_t>(depth, 1),
                groups = std::max<int64_t>((depth + group - 1) / group, 1);
  const auto scaleIndex = [&](int64_t o, int64_t g) { return wq.blockSize ? o * groups + g : o; };
  const Elements<int64_t> x(c.in(kInput)), w(c.in(kWeight));
  const Elements<float> scale(c.in(kScale));
  const int32_t* zero = c.in(kZeroPoint).as<int32_t>();
  const bool perRow = scale.size() > 1, zeroPerRow = c.in(kZeroPoint).numElements() > 1;
  std::vector<uint32_t> integers(usize(x.size())), weights(usize(w.size()));
  for (int64_t i = 0; i < x.size(); ++i) nth(integers, i) = static_cast<uint32_t>(x[i] - zero[zeroPerRow ? i / depth : 0]);
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t k = 0; k < depth; ++k)
      nth(weights, k * outputs + o) = static_cast<uint32_t>(w[o * depth + k] - wq.zeroPoint(scaleIndex(o, k / group)));
  float* y = c.out().as<float>();
  std::fill_n(y, rows * outputs, 0.0f);
  std::vector<uint32_t> acc(usize(rows * outputs));
  for (int64_t g = 0; g < groups; ++g) {
    std::fill(acc.begin(), acc.end(), 0u);
    const int64_t first = g * group;
    ref::multiplyAdd<uint32_t>({integers.data() + first, depth}, {weights.data() + first * outputs, outputs}, {acc.data(), outputs},
                               {rows, outputs, std::min(group, depth - first)});
    for (int64_t r = 0, i = 0; r < rows; ++r)
      for (int64_t o = 0; o < outputs; ++o, ++i) {
        const float term = static_cast<float>(static_cast<int32_t>(nth(acc, i))) * (scale[perRow ? r : 0] * wq.scale(scaleIndex(o, g)));
        y[i] = g == 0 ? term : y[i] + term;
      }
  }
  if (!c.has(kBiasOperand)) return {};
  const float* bias = c.in(kBiasOperand).as<float>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) y[r * outputs + o] += bias[o];
  return {};
}

}  // namespace

DynamicParams dynamicParams(std::span<const float> x, const DynamicRange& range) {
  float lo = 0, hi = 0;
  for (const float v : x) {
    if (!std::isfinite(v)) continue;
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  const auto steps = static_cast<float>(range.qmax - range.qmin);
  float scale = std::max(range.symmetric ? std::max(-lo, hi) / (steps / 2) : (hi - lo) / steps, range.eps);
  // The difference of the extremes can pass the largest float.
  if (!std::isfinite(scale)) scale = std::numeric_limits<float>::max();
  if (scale == 0) scale = 1;
  int32_t zp = range.qmin < 0 ? 0 : (range.qmin + range.qmax + 1) / 2;
  if (!range.symmetric) zp = qmath::roundClamp(-qmath::rne(lo / scale), range.qmin, range.qmin, range.qmax);
  return {scale, zp};
}

std::vector<AttrSpec> dynamicRangeAttrs() {
  return {{"storage", AttrKind::dtype, Attr(DType::u8)},
          integerAttr("qmin", 0),
          integerAttr("qmax", 255),
          stringAttr("scheme", "affine"),
          realAttr("eps", kSmallestScale)};
}

Status requireIntegerRange(const InferContext& c) {
  const DType storage = c.attrs.dtype("storage");
  if (!isInteger(storage) || sizeOf(storage) > 2)
    return fail(ErrorCode::kUnsupported, "'{}': integers of type {}", c.op, toString(storage));
  const IntRange range = rangeOf(storage);
  const int64_t qmin = c.attrs.integer("qmin"), qmax = c.attrs.integer("qmax");
  if (qmin < range.min || qmax > range.max || qmin > 0 || qmax < 0 || qmin == qmax)
    return fail(ErrorCode::kInvalidModel, "'{}': {}..{} is not a range of {} around 0", c.op, qmin, qmax, toString(storage));
  return {};
}

Status requireDynamicRange(const InferContext& c) {
  QC_TRY(requireIntegerRange(c));
  QC_TRY(requireOneOf(c, "scheme", {"affine", "symmetric"}));
  if (const double eps = c.attrs.real("eps"); !(eps >= 0) || !std::isfinite(eps))
    return fail(ErrorCode::kInvalidModel, "'{}': eps={}", c.op, eps);
  return {};
}

DynamicRange dynamicRangeOf(const AttrDict& attrs) {
  return {attrs.dtype("storage"), static_cast<int32_t>(attrs.integer("qmin")), static_cast<int32_t>(attrs.integer("qmax")),
          attrs.string("scheme") == "symmetric", static_cast<float>(attrs.real("eps"))};
}

bool isStandardRange(const AttrDict& attrs) {
  return attrs.dtype("storage") == DType::u8 && attrs.integer("qmin") == 0 && attrs.integer("qmax") == 255 &&
         attrs.string("scheme") == "affine" && attrs.string("granularity") == "tensor";
}

AttrSpec granularityAttr() { return stringAttr("granularity", "tensor"); }
Status requireGranularity(const InferContext& c) { return requireOneOf(c, "granularity", {"tensor", "token"}); }

Status requireDynamicSums(const InferContext& c, DType x, const QuantParams& w, int64_t depth) {
  const IntRange rx = rangeOf(x), rw = rangeOf(w.storage);
  const int64_t largest = (rx.max - rx.min) * (rw.max - rw.min);
  if (depth <= INT32_MAX / largest) return {};
  return fail(ErrorCode::kUnsupported, "'{}': int32 sums could overflow: {} terms of up to {}", c.op, depth, largest)
      .help("keep this layer in float");
}

void registerDynamicOps(OpRegistry& registry) {
  registry.add({.name = "q.dynamic_linear",
                .summary = "integer linear layer whose input's scale and zero point are operands; float result",
                .operands = {{"x"},
                             {.name = "w", .role = OperandRole::weight, .weight = WeightAxes{0, 1}},
                             {.name = "bias", .optional = true, .role = OperandRole::bias},
                             {.name = "scale", .role = OperandRole::parameter},
                             {.name = "zero_point", .role = OperandRole::parameter}},
                .attrs = {},
                .infer = inferDynamicLinear,
                .eval = evalDynamicLinear,
                .scalar = {},
                .batch = batchOfDynamicLinear,
                .products = productsOfRows});
}

}  // namespace qc
