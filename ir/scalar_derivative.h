// Derivatives of scalar expressions: what elementwise ops are trained by.
#pragma once

#include "ir/scalar_expr.h"

namespace qc {

// By arg(index), almost everywhere.  Steps (floor, comparisons, ...) have a slope of 0; where min and max meet a constant the constant
// counts, so that relu has 0 at 0, and of two variables each half.
ScalarExpr derivative(const ScalarExpr& expression, int index);

}  // namespace qc
