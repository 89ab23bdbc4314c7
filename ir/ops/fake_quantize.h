// Fake quantization with scale and zero point as operands, as training has it: what its meaning and its gradient share.
#pragma once

#include "ir/attr.h"
#include "ir/scalar_expr.h"

namespace qc {

// Of the operands x, scale, zero point.  One rule as everywhere: divide, round, then add the zero point.
struct FakeQuantizeParts {
  explicit FakeQuantizeParts(const AttrDict& attrs)
      : low(static_cast<float>(attrs.integer("qmin"))), high(static_cast<float>(attrs.integer("qmax"))) {}
  ScalarExpr low, high;
  ScalarExpr zero =
      expr::clamp(expr::unary(ScalarExpr::Op::round, ScalarExpr::arg(2)), low, high);  // one that learns lies between integers
  ScalarExpr steps = ScalarExpr::arg(0) / ScalarExpr::arg(1);
  ScalarExpr rounded = expr::unary(ScalarExpr::Op::round, steps);
  ScalarExpr integer = rounded + zero;  // before it is clamped
};

}  // namespace qc
