// Fake quantization with gradients, for training with quantization in the loop: what PyTorch's fake-quantize kernels compute, bit for
// bit.  Unlike the `quantize` op, which divides as ONNX defines it, these multiply by the float32 reciprocal of the scale.
//
//   forward    y = (clamp(zp + rne(x * f32(1 / s)), qmin, qmax) - zp) * s
//   backward   straight through: dx = dy where the integer lies in the range before clamping, else 0
//
// Values are a tensor of `sizes`; with axis >= 0 there is one scale and zero point per slice along it, else one.  Functions that return no
// Result require that these numbers agree.  +-inf saturate (PyTorch's
// per-channel kernel sends them to qmin), NaN gives the zero point.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ir/status.h"
#include "ir/type.h"
#include "quantizer/observers/qparams.h"

namespace qc {

struct FakeQuantized {
  std::vector<float> y;
  std::vector<uint8_t> passes;  // 1: the gradient passes
};
FakeQuantized fakeQuantize(std::span<const float> x, std::span<const int64_t> sizes, const QuantParams& q);

// Scale and zero point as parameters that learn (LSQ).  Zero points are real numbers here.
struct LearnableParams {
  int64_t qmin = 0, qmax = 255;
  int axis = -1;
  std::vector<float> scales, zeroPoints;
  double gradFactor = 1;  // of the parameters' gradients; PyTorch's grad scaling is 1 / sqrt(elements * qmax)
};
std::vector<float> learnableForward(std::span<const float> x, std::span<const int64_t> sizes, const LearnableParams& p);
struct LearnableGradients {
  std::vector<float> dx, dscale, dzeroPoint;
};
//   integer below qmin   dx 0    ds dy * (qmin - z)   dz -dy * s
//   integer above qmax   dx 0    ds dy * (qmax - z)   dz -dy * s
//   inside               dx dy   ds dy * (y - x) / s  dz 0
// The integer is rne(fma(x, 1 / s, z)): the zero point joins before rounding, in contrast to the forward direction.
LearnableGradients learnableBackward(std::span<const float> x, std::span<const float> dy, std::span<const int64_t> sizes,
                                     const LearnableParams& p);

// Observer and fake quantization in one: moving averages of minimum and maximum, parameters by chooseQParams (FBGEMM's variant,
// symmetric = preserve sparsity), then fakeQuantize.
class MovingAverageFakeQuantize {
 public:
  struct Config {
    int64_t qmin = 0, qmax = 255;
    bool symmetric = false;
    bool perChannel = false;  // along axis 0
    double averagingConstant = 0.01;
    double eps = kSmallestScale;  // smallest scale; PyTorch's: kEpsRunTime
  };
  explicit MovingAverageFakeQuantize(Config config) : config_(config) {}

  bool observe = true;   // update the averages
  bool quantize = true;  // off: y = x; parameters are not refreshed then
  Result<FakeQuantized> step(std::span<const float> x, std::span<const int64_t> sizes);

  const std::vector<ValueRange>& averages() const { return averages_; }
  const QuantParams& params() const { return params_; }

 private:
  Status refresh();
  Config config_;
  std::vector<ValueRange> averages_;
  QuantParams params_;
};

}  // namespace qc
