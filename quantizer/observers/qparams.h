// From a range of real numbers to quantization parameters: the formulas, and nothing that has state.
//
//   calculateQParams   what every observer uses
//   chooseQParams      what run-time (dynamic) kernels use; differs on purpose, see there
//   blockQParams       group-wise weights;  tokenQParams  one row of a dynamically quantized activation
//
// Ranges are those of the data; 0 is always made representable.  All arithmetic is float32 unless said otherwise, in the order
// written, so that results equal PyTorch's bit for bit.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "ir/quant_spec.h"
#include "ir/status.h"
#include "ir/type.h"

namespace qc {

// Smallest scales.  Our own is kSmallestScale (ir/quant_spec.h); PyTorch's are those of backends that compute as PyTorch does.
inline constexpr double kEpsTorch = 1.1920928955078125e-07;  // 2^-23, of its observers
inline constexpr double kEpsXnnpack = 0.000244140625;        // 2^-12 keeps every requantization multiplier below 256
inline constexpr double kEpsRunTime = 6.1e-5;                // of its run-time parameters

// A range of real values.
struct ValueRange {
  float min = 0, max = 0;
};
struct ScaleZero {
  float scale = 1.0f;
  int32_t zeroPoint = 0;
  bool operator==(const ScaleZero&) const = default;
};
struct FloatQParams {
  float scale = 1.0f;
  float zeroPoint = 0.0f;
};

// The integers to use: the type's own or a customised range, halved if `reduceRange`.
// Errors: qmin >= qmax, 0 outside, or ends outside the type.
Result<IntRange> selectRange(DType dtype, std::optional<IntRange> custom = std::nullopt, bool reduceRange = false);

struct QParamsRequest {
  DType dtype = DType::u8;
  int64_t qmin = 0, qmax = 255;
  QScheme scheme = QScheme::affine;
  double eps = kSmallestScale;
  // A symmetric unsigned type has its zero point at 128, or at floor((qmin + qmax) / 2) when the range was customised.
  // Unset: customised means different from the type's own range.
  std::optional<bool> customRange;
};
QParamsRequest requestFor(const ObservedSpec& spec);

// scale = max((hi - lo) / (qmax - qmin), eps), zp = clamp(qmin - rne(lo / scale)) over [min(min, 0), max(max, 0)];
// symmetric: scale = max(max(-lo, hi) / ((qmax - qmin) / 2), eps).  Nothing but zeros has no scale of its own: max(kEpsTorch, eps), which
// keeps what it is divided by in bounds.  min = +inf with max = -inf is the state of an observer that saw
// nothing: scale 1, zero point 0.  Errors: NaN, an infinite end, min > max, a zero point outside the range.
Result<ScaleZero> calculateQParams(float min, float max, const QParamsRequest& request);

// Affine with a float zero point, for embeddings: scale = (max - min) / (qmax - qmin), or 1 when not above eps; zp = -min / scale.
Result<FloatQParams> calculateFloatQParams(float min, float max, int64_t qmin, int64_t qmax, double eps = kSmallestScale);

// The choice made at run time from one tensor's minimum and maximum.  The two variants differ in how they pick the end of the range
// whose rounding error is smaller, and in the precision of the scale while they do.  Below `eps` a range is widened to it.
enum class ChooseVariant { aten, fbgemm };
Result<ScaleZero> chooseQParams(float min, float max, int64_t qmin, int64_t qmax, ChooseVariant variant = ChooseVariant::aten,
                                bool preserveSparsity = false, bool reduceRange = false, double eps = kEpsRunTime);

enum class BlockMapping { asymmetric, symmetric, symmetricNoClipping };
// One block of a group-wise quantized tensor.  eps defaults to float32's smallest normal number.
Result<ScaleZero> blockQParams(float min, float max, BlockMapping mapping, int64_t qmin, int64_t qmax, double eps = 1.1754943508222875e-38);
// Group-wise along `axis`: sizes[axis] is cut into ceil(dim / blockSize) blocks; scales in the order that QuantParams defines.
Result<QuantParams> groupwiseQParams(std::span<const float> data, std::span<const int64_t> sizes, DType dtype, int64_t qmin, int64_t qmax,
                                     int axis, int64_t blockSize, BlockMapping mapping);

// One token's parameters; asymmetric is int8 in double precision, symmetric max(|x|) / 127.  Unset, eps is torchao's: 2^-23, and 1e-5 /
// 127.
struct TokenQParams {
  double scale = 1.0;
  int32_t zeroPoint = 0;
};
Result<TokenQParams> tokenQParams(std::span<const float> row, bool symmetric, std::optional<double> eps = std::nullopt);

// Smallest and largest finite element, and how many were not finite.
struct MinMax {
  float min = 0, max = 0;  // meaningless when finite == 0
  int64_t finite = 0, nonFinite = 0;
};
MinMax minMaxOf(std::span<const float> data);

}  // namespace qc
