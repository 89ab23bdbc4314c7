// Parameters of quantization that operands of a node hold.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

// Scales that are no parameters here, by index; empty: there are none.  Some quantizers write 0 for tensors and channels of zeros, and
// ONNX Runtime's one of few bits writes scales below zero.
struct OddScales {
  enum class Kind : uint8_t { none, zero, negative };
  std::vector<Kind> how;
};

// Makes parameters of them, one zero point for each scale: 1 for 0, and of a negative scale, for integers that count from the other end.
OddScales settleScales(QuantParams& q);

// The integers, a constant, that mean the same with such parameters.
Result<Tensor> withoutOddScales(OnnxNode& n, const Value* integers, const QuantParams& q, const OddScales& odd);

// Those that operands `scale` and `zeroPoint` hold, for integers of type `storage` along `axis` of `shape`.  odd, where given: such are
// allowed, settled and listed there.
Result<QuantPtr> quantParams(OnnxNode& n, int scale, int zeroPoint, DType storage, int64_t axis, const Shape& shape, int64_t block = 0,
                             OddScales* odd = nullptr);

}  // namespace qc
