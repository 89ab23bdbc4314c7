// What convolutions take and give: types of their results, checked operands.
#pragma once

#include "ir/ops/epilogue.h"
#include "ir/ops/infer_util.h"

namespace qc {

// x, w, bias?, scale, zero_point: parameters of x are computed, one set for the whole tensor.
enum DynamicOperand { kScale = kBias + 1, kZeroPoint };

Result<Types> inferConv(const InferContext& c);
Result<Types> inferConvTranspose(const InferContext& c);
Result<Types> inferQuantizedConv(const InferContext& c);
Result<Types> inferQuantizedConvTranspose(const InferContext& c);
Result<Types> inferDynamicConv(const InferContext& c);

}  // namespace qc
