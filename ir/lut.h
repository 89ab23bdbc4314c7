// Tables of 256 entries: any scalar function of one 8-bit quantized value.
#pragma once

#include "ir/scalar_expr.h"
#include "ir/tensor.h"

namespace qc {

// Whether a function between such values has a table: 8-bit storage and one scale; out may be null (f32).
bool hasLut(const QuantParams& in, const QuantParams* out);

// Entry (uint8_t)(storage bits) = expr(dequantize(q)), in float32; finished (qmath::finish) into `out` where given.  The bits are
// those of `map` over one operand of type `in`.  Shape [256]; dtype out->storage, or f32.  QC_CHECK: hasLut.
Tensor buildLut(const ScalarExpr& expression, const QuantParams& in, const QuantParams* out);

}  // namespace qc
