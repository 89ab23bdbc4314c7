// Ops of an integrator's own, beside those of ir/ops: declared once, they parse, print, verify and evaluate like any other.
//
//   QC_TRY(registerOp({.name = "acme.swoosh", .operands = {{"x"}}, .infer = ..., .eval = ...}));
//
// To take part in quantization an op needs, besides, a policy (quantizer/rules/op_policy.h) and a lowering to its integer form
// (passes/lower/lowering.h).  Generated code exists for the built-in ops only; others run in the interpreter.
#pragma once

#include "ir/op_def.h"

namespace qc {

// Before graphs are built or parsed, from one thread.  Errors: the name is taken, or has no dot (those belong to the product).
Status registerOp(OpDef def);

}  // namespace qc
