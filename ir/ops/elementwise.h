// The shared half of elementwise evaluation: a scalar program over broadcast operands.
#pragma once

#include "ir/op_def.h"

namespace qc {

// out = program(operands...), numpy broadcasting.  Arithmetic is done in the type that arithmeticOf() names for the first
// operand that is not bool; quantized operands are dequantized on the way in, a quantized result is finished
// (qmath::finish) on the way out, and both are float32 arithmetic.
void evaluateElementwise(const ExprProgram& program, const EvalContext& context);

// What an elementwise node (trait kElementwise) computes of its operands, in order.
inline ScalarExpr scalarMeaning(const Node& node) { return node.def().scalar(node.attrs()); }

// The declarations of ops/map.cpp, registered with the elementwise ones.
void registerMapOps(OpRegistry& registry);

}  // namespace qc
