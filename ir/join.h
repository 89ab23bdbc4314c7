// Which ops may be computed by the kernel of the op before them: what annotate leaves in floats between an op and its quantize, what
// lower-quant and fuse-elementwise then make one op of.  Each of them asks here, and adds only what its own kernels cannot do.
#pragma once

#include <optional>

#include "ir/graph.h"
#include "ir/scalar_expr.h"

namespace qc {

// An elementwise op from floats to floats that is not a fused one already.
bool computesFloats(const Node& node);

struct Join {
  ScalarExpr formula;         // of the value before, a0, and the residual, a1
  Value* residual = nullptr;  // of the same type, computed elsewhere; null: none
};
// `user` as a function of `current`, of finite numbers and of one other value at most; nothing where it is none, or its result is of
// another type.
std::optional<Join> joining(const Node& user, const Value* current);

}  // namespace qc
