// The arithmetic of quantization, once.  The interpreter, the passes and the code emitters all follow
// these definitions; kernels on every ISA agree with them bit for bit.
//
//   quantize    q = clamp(rne(x / s) + zp, qmin, qmax)          true float32 division (ONNX QuantizeLinear)
//   dequantize  x = s * float(q - zp)
//   requantize  q = clamp(rne(float(acc) * m) + zp, qmin, qmax)   acc exact int32, m = f32(sx * sw / sy)
//   finish      q = clamp(rne(y * inv) + zp, qmin, qmax)          inv = f32(1 / sy); the end of a fused float epilogue
//
// One rule everywhere: round half to even, then add the zero point, then clamp.  NaN gives the zero point.
// Float sums of a convolution or matrix product run over k = (ky, kx, channel) in that order, one fused
// multiply-add each, starting from +0; the bias is added last.  Sums over a reduced axis are striped: see
// StripedSum.  No other operation is fused: a * b + c rounds twice.
// This file and its users are compiled with -ffp-contract=off.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ir/type.h"

namespace qc::qmath {

// Round half to even; needs the default rounding mode, which nothing in this project changes.
inline float rne(float x) { return std::nearbyint(x); }

// rne(v) + zp clamped into [qmin, qmax]; the float -> integer step saturates, NaN gives zp (clamped).
inline int32_t roundClamp(float v, int32_t zp, int32_t qmin, int32_t qmax) {
  if (std::isnan(v)) return std::clamp(zp, qmin, qmax);
  // Bounds around the int32 range keep the conversion defined; |zp| and the clamp make the result the same.
  const float r = rne(std::clamp(v, -2147483648.0f, 2147483520.0f));
  return static_cast<int32_t>(std::clamp(static_cast<int64_t>(r) + zp, static_cast<int64_t>(qmin), static_cast<int64_t>(qmax)));
}

inline int32_t quantize(float x, float scale, int32_t zp, int32_t qmin, int32_t qmax) { return roundClamp(x / scale, zp, qmin, qmax); }
inline float dequantize(int32_t q, float scale, int32_t zp) { return scale * static_cast<float>(static_cast<int64_t>(q) - zp); }

inline int32_t requantize(int32_t acc, float multiplier, int32_t zp, int32_t qmin, int32_t qmax) {
  return roundClamp(static_cast<float>(acc) * multiplier, zp, qmin, qmax);
}

// The multiplier of a convolution's channel.  sx * sw is rounded to float32 first, as the int32 bias uses it.
inline float requantMultiplier(float sx, float sw, float sy) { return (sx * sw) / sy; }

inline int32_t finish(float y, float inverseScale, int32_t zp, int32_t qmin, int32_t qmax) {
  return roundClamp(y * inverseScale, zp, qmin, qmax);
}

// Bias of an integer convolution: rne(b / (sx*sw)) in double, saturated to int32.
inline int32_t quantizeBias(float b, float sx, float sw) {
  const double q = std::nearbyint(static_cast<double>(b) / static_cast<double>(sx * sw));
  if (std::isnan(q)) return 0;
  return static_cast<int32_t>(std::clamp(q, -2147483648.0, 2147483647.0));
}

// The order of every float sum over a reduced axis (mean, softmax, norms): 16 interleaved partial sums, element
// i into lane i % 16, folded as a tree 16 -> 8 -> 4 -> 2 -> 1 by adding the upper half to the lower half.  This is
// what vectors of 16, 8 or 4 lanes compute naturally, so every ISA gives the same bits.
struct StripedSum {
  static constexpr int kLanes = 16;
  float lane[kLanes] = {};
  void add(int64_t i, float x) { lane[i % kLanes] += x; }
  float total() const {
    float t[kLanes];
    std::copy(lane, lane + kLanes, t);
    for (int half = kLanes / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) t[i] += t[i + half];
    return t[0];
  }
};

}  // namespace qc::qmath
