#include "quantizer/observers/qparams.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>

#include "ir/qmath.h"
#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

int64_t floorDiv(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }

Status checkRange(int64_t qmin, int64_t qmax) {
  if (qmin >= qmax) return fail(ErrorCode::kInvalidArgument, "quantized range [{}, {}] is empty", qmin, qmax);
  if (qmin > 0 || qmax < 0) return fail(ErrorCode::kInvalidArgument, "quantized range [{}, {}] leaves out 0", qmin, qmax);
  if (qmin < std::numeric_limits<int32_t>::min() || qmax > std::numeric_limits<uint32_t>::max())
    return fail(ErrorCode::kInvalidArgument, "quantized range [{}, {}] exceeds 32 bits", qmin, qmax);
  return {};
}

Status checkData(float min, float max) {
  if (std::isnan(min) || std::isnan(max)) return fail(ErrorCode::kInvalidData, "the observed range is not a number");
  if (std::isinf(min) || std::isinf(max)) return fail(ErrorCode::kInvalidData, "the observed range [{}, {}] is infinite", min, max);
  if (min > max) return fail(ErrorCode::kInvalidData, "the observed minimum {} is above the maximum {}", min, max);
  return {};
}

// (hi - lo) / n; in double where the difference leaves float32.
float spread(float hi, float lo, float n) {
  const float difference = hi - lo;
  if (!std::isinf(difference)) return difference / n;
  return static_cast<float>((static_cast<double>(hi) - lo) / n);
}

int32_t clampZeroPoint(double zp, int64_t qmin, int64_t qmax) {
  const double bounded = std::clamp(zp, static_cast<double>(qmin), static_cast<double>(qmax));
  return static_cast<int32_t>(std::clamp(bounded, -2147483648.0, 2147483647.0));
}

// So many lanes that the compiler makes a loop of whole vectors of them; a comparison with NaN is false, so NaN never enters.
QC_MULTIVERSION void scanMinMax(const float* x, int64_t n, float* outMin, float* outMax, int64_t* outBad) {
  constexpr int kLanes = 64;
  constexpr int64_t kBlock = int64_t{1} << 24;  // keeps the 32-bit counters below overflow
  float lo[kLanes], hi[kLanes];
  std::fill(lo, lo + kLanes, std::numeric_limits<float>::infinity());
  std::fill(hi, hi + kLanes, -std::numeric_limits<float>::infinity());
  int64_t bad = 0, i = 0;
  while (i + kLanes <= n) {
    int32_t count[kLanes] = {};
    const int64_t end = std::min(n, i + kBlock);
    for (; i + kLanes <= end; i += kLanes) {
      for (int j = 0; j < kLanes; ++j) {
        const float v = x[i + j];
        lo[j] = v < lo[j] ? v : lo[j];
        hi[j] = v > hi[j] ? v : hi[j];
        count[j] += std::fabs(v) <= FLT_MAX ? 0 : 1;
      }
    }
    for (int j = 0; j < kLanes; ++j) bad += count[j];
  }
  for (; i < n; ++i) {
    lo[0] = x[i] < lo[0] ? x[i] : lo[0];
    hi[0] = x[i] > hi[0] ? x[i] : hi[0];
    bad += std::fabs(x[i]) <= FLT_MAX ? 0 : 1;
  }
  for (int j = 1; j < kLanes; ++j) {
    lo[0] = lo[j] < lo[0] ? lo[j] : lo[0];
    hi[0] = hi[j] > hi[0] ? hi[j] : hi[0];
  }
  *outMin = lo[0];
  *outMax = hi[0];
  *outBad = bad;
}

}  // namespace

MinMax minMaxOf(std::span<const float> data) {
  MinMax result;
  const int64_t n = static_cast<int64_t>(data.size());
  scanMinMax(data.data(), n, &result.min, &result.max, &result.nonFinite);
  result.finite = n - result.nonFinite;
  if (result.nonFinite > 0 && result.finite > 0 && (std::isinf(result.min) || std::isinf(result.max))) {
    result.min = std::numeric_limits<float>::infinity();
    result.max = -result.min;
    for (const float v : data) {
      if (!std::isfinite(v)) continue;
      result.min = std::min(result.min, v);
      result.max = std::max(result.max, v);
    }
  }
  return result;
}

Result<IntRange> selectRange(DType dtype, std::optional<IntRange> custom, bool reduceRange) {
  if (!isInteger(dtype) || sizeOf(dtype) > 4)
    return fail(ErrorCode::kInvalidArgument, "{} is not a type that values are quantized to", toString(dtype));
  const IntRange own = rangeOf(dtype);
  IntRange range = custom.value_or(own);
  QC_TRY(checkRange(range.min, range.max));
  if (range.min < own.min || range.max > own.max)
    return fail(ErrorCode::kInvalidArgument, "quantized range [{}, {}] does not fit in {}", range.min, range.max, toString(dtype));
  const bool halvable = sizeOf(dtype) == 1 || custom;  // wider types have headroom enough
  if (reduceRange && halvable) range = {floorDiv(range.min, 2), floorDiv(range.max, 2)};
  return range;
}

QParamsRequest requestFor(const ObservedSpec& spec) { return {spec.dtype, spec.qmin, spec.qmax, spec.scheme, spec.eps, std::nullopt}; }

Result<ScaleZero> calculateQParams(float min, float max, const QParamsRequest& request) {
  const auto [dtype, qmin, qmax, scheme, eps, customRange] = request;
  QC_TRY(checkRange(qmin, qmax));
  if (std::isinf(min) && std::isinf(max) && min > 0 && max < 0) return ScaleZero{};
  QC_TRY(checkData(min, max));
  const float lo = std::min(min, 0.0f), hi = std::max(max, 0.0f);
  const auto epsilon = static_cast<float>(lo == 0 && hi == 0 ? std::max(eps, kEpsTorch) : eps);
  const float steps = static_cast<float>(qmax - qmin);
  switch (scheme) {
    case QScheme::affine: {
      const float scale = std::max(spread(hi, lo, steps), epsilon);
      const double zp = static_cast<double>(qmin) - static_cast<double>(qmath::rne(lo / scale));
      return ScaleZero{scale, clampZeroPoint(zp, qmin, qmax)};
    }
    case QScheme::symmetric: {
      const float half = static_cast<float>(static_cast<double>(qmax - qmin) / 2.0);
      const float scale = std::max(std::max(-lo, hi) / half, epsilon);
      if (isSigned(dtype)) return ScaleZero{scale, 0};
      const IntRange own = rangeOf(dtype);
      const bool custom = customRange.value_or(qmin != own.min || qmax != own.max);
      const int64_t zp = custom ? floorDiv(qmin + qmax, 2) : (own.max + 1) / 2;
      if (zp < qmin || zp > qmax)
        return fail(ErrorCode::kInvalidArgument, "symmetric {} in [{}, {}] has its zero point {} outside", toString(dtype), qmin, qmax, zp)
            .help("use an affine scheme or the type's full range");
      return ScaleZero{scale, static_cast<int32_t>(zp)};
    }
    case QScheme::floatQparams: return fail(ErrorCode::kInvalidArgument, "float zero points have no integer form; ask floatQParams()");
  }
  return fail(ErrorCode::kInvalidArgument, "unknown quantization scheme");
}

Result<FloatQParams> calculateFloatQParams(float min, float max, int64_t qmin, int64_t qmax, double eps) {
  QC_TRY(checkRange(qmin, qmax));
  QC_TRY(checkData(min, max));
  float scale = spread(max, min, static_cast<float>(qmax - qmin));
  if (!(scale > static_cast<float>(eps))) scale = 1.0f;
  return FloatQParams{scale, -min / scale};
}

Result<ScaleZero> chooseQParams(float min, float max, int64_t qmin, int64_t qmax, ChooseVariant variant, bool preserveSparsity,
                                bool reduceRange, double eps) {
  const auto smallest = static_cast<float>(eps);
  QC_TRY(checkRange(qmin, qmax));
  QC_TRY(checkData(min, max));
  if (reduceRange) {
    qmin /= 2;
    qmax /= 2;
  }
  const bool sparse = preserveSparsity && min < 0 && max > 0;
  if (sparse) {
    const int64_t n = -((qmax - qmin) / 2 + 1), p = (qmax - qmin) / 2;
    const double m = std::max(std::fabs(min / static_cast<float>(n)), std::fabs(max / static_cast<float>(p)));
    min = static_cast<float>(m * static_cast<double>(n));
    max = static_cast<float>(m * static_cast<double>(p));
  }
  min = std::min(min, 0.0f);
  max = std::max(max, 0.0f);

  double scale = (static_cast<double>(max) - min) / static_cast<double>(qmax - qmin);
  if (variant == ChooseVariant::fbgemm) scale = static_cast<float>(scale);
  if (static_cast<float>(scale) == 0.0f || std::isinf(1.0f / static_cast<float>(scale))) scale = 0.1;
  if (variant == ChooseVariant::fbgemm) scale = static_cast<float>(scale);
  if (scale < smallest) {
    const float amplify = smallest / static_cast<float>(scale);
    scale = smallest;
    if (min == 0.0f) {
      max = smallest * static_cast<float>(qmax - qmin);
    } else if (max == 0.0f) {
      min = -smallest * static_cast<float>(qmax - qmin);
    } else {
      min *= amplify;
      max *= amplify;
    }
  }

  const double fromMin = static_cast<double>(qmin) - min / scale, fromMax = static_cast<double>(qmax) - max / scale;
  const double sign = variant == ChooseVariant::aten ? -1.0 : 1.0;
  const double errorMin = std::fabs(static_cast<double>(qmin)) + sign * std::fabs(min / scale);
  const double errorMax = std::fabs(static_cast<double>(qmax)) + sign * std::fabs(max / scale);
  double zp = errorMin < errorMax ? fromMin : fromMax;
  if (sparse) zp = static_cast<double>(qmin + qmax) / 2.0;
  return ScaleZero{static_cast<float>(scale), clampZeroPoint(std::nearbyint(zp), qmin, qmax)};
}

Result<ScaleZero> blockQParams(float min, float max, BlockMapping mapping, int64_t qmin, int64_t qmax, double eps) {
  QC_TRY(checkRange(qmin, qmax));
  QC_TRY(checkData(min, max));
  const float lo = std::min(min, 0.0f), hi = std::max(max, 0.0f);
  const float epsilon = static_cast<float>(eps);
  if (mapping == BlockMapping::asymmetric) {
    const float scale = std::max(spread(hi, lo, static_cast<float>(qmax - qmin)), epsilon);
    const double zp = static_cast<double>(qmin) - static_cast<double>(qmath::rne(lo / scale));
    return ScaleZero{scale, clampZeroPoint(zp, qmin, qmax)};
  }
  float scale;
  if (mapping == BlockMapping::symmetric) {
    scale = std::max(-lo, hi) / static_cast<float>(static_cast<double>(qmax - qmin) / 2.0);
  } else {
    scale = std::max(qmin ? lo / static_cast<float>(qmin) : 0.0f, hi / static_cast<float>(qmax));
  }
  return ScaleZero{std::max(scale, epsilon), static_cast<int32_t>((qmax + qmin + 1) / 2)};
}

Result<QuantParams> groupwiseQParams(std::span<const float> data, std::span<const int64_t> sizes, DType dtype, int64_t qmin, int64_t qmax,
                                     int axis, int64_t blockSize, BlockMapping mapping) {
  if (axis < 0 || axis >= static_cast<int>(sizes.size()))
    return fail(ErrorCode::kInvalidArgument, "group axis {} of a tensor of rank {}", axis, sizes.size());
  if (blockSize < 1) return fail(ErrorCode::kInvalidArgument, "group size {} is not positive", blockSize);
  int64_t outer = 1, inner = 1;
  for (int d = 0; d < axis; ++d) outer *= nth(sizes, d);
  for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner *= sizes[d];
  const int64_t extent = nth(sizes, axis), groups = (extent + blockSize - 1) / blockSize;
  if (static_cast<int64_t>(data.size()) != outer * extent * inner)
    return fail(ErrorCode::kInvalidArgument, "{} values for {} elements", data.size(), outer * extent * inner);

  QuantParams quant{dtype, qmin, qmax, axis, blockSize, {}, {}};
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t i = 0; i < inner; ++i) {
        float lo = 0, hi = 0;
        for (int64_t k = g * blockSize; k < std::min(extent, (g + 1) * blockSize); ++k) {
          const float v = nth(data, (o * extent + k) * inner + i);
          if (!std::isfinite(v)) return fail(ErrorCode::kInvalidData, "a weight is not finite");
          lo = std::min(lo, v);
          hi = std::max(hi, v);
        }
        QC_ASSIGN(const ScaleZero q, blockQParams(lo, hi, mapping, qmin, qmax));
        quant.scales.push_back(q.scale);
        quant.zeroPoints.push_back(q.zeroPoint);
      }
    }
  }
  return quant;
}

Result<TokenQParams> tokenQParams(std::span<const float> row, bool symmetric, std::optional<double> eps) {
  const MinMax range = minMaxOf(row);
  if (range.nonFinite > 0) return fail(ErrorCode::kInvalidData, "a token holds {} values that are not finite", range.nonFinite);
  const float lo = range.finite ? std::min(range.min, 0.0f) : 0.0f, hi = range.finite ? std::max(range.max, 0.0f) : 0.0f;
  if (symmetric) {
    const float largest = std::max(-lo, hi);
    return TokenQParams{eps ? std::max(largest / 127.0f, static_cast<float>(*eps)) : std::max(largest, 1e-5f) / 127.0f, 0};
  }
  constexpr float kMin = -128, kMax = 127;
  // All in float32, as PyTorch does; a range that float32 cannot hold is halved first.
  const float width = std::isfinite(hi - lo) ? (hi - lo) / (kMax - kMin) : (hi / 2 - lo / 2) / ((kMax - kMin) / 2);
  const float scale = std::max(width, static_cast<float>(eps.value_or(kEpsTorch)));
  // The end whose rounding error is smaller gives the zero point.
  const float atMin = lo / scale, atMax = hi / scale;
  const float zp = kMin + atMin + (kMax + atMax) > 0 ? kMin - atMin : kMax - atMax;
  return TokenQParams{scale, clampZeroPoint(std::nearbyint(zp), -128, 127)};
}

}  // namespace qc
