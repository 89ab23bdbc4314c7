// Integer weights as they are kept while a weight-only model runs: two 4-bit weights to a byte, scales in a tensor of their own.
#pragma once

#include "ir/op_def.h"

namespace qc {

struct PackedWeights {
  Tensor weights, scale, zeroPoint;  // as the operands of q.weight_linear
  bool hasZeroPoint = false;         // any that is not 0
  int64_t columns = 0, group = 0;
  int bits = 8;
  bool isSigned = true;
  AttrDict attrs() const;
};

// A matrix of 4 or 8 bits, quantized per tensor, per row or in groups of columns; anything else is an error.
Result<PackedWeights> packWeights(const Tensor& weights, const QuantParams& params);

void registerPackedWeightOps(OpRegistry& registry);  // called by registerQuantOps

}  // namespace qc
