// Ops of an integrator's own, beside those of ir/ops: declared once, they parse, print, verify and evaluate like any other.
//
//   QC_TRY(registerOp({.name = "acme.swoosh", .operands = {{"x"}}, .infer = ..., .eval = ...}));
//
// Where ONNX models have it, as a node of a domain of one's own, a name lets it be read and written:
//
//   QC_TRY(registerOnnxName({.theirs = "Swoosh", .ours = "acme.swoosh", .domain = "com.acme"}));
//
// To take part in quantization an op needs, besides, a policy (quantizer/rules/op_policy.h) and a lowering to its integer form
// (passes/lower/lowering.h).  Generated code exists for the built-in ops only; others run in the interpreter.
#pragma once

#include "ir/onnx_names.h"
#include "ir/op_def.h"

namespace qc {

// Before graphs are built or parsed, from one thread.  Errors: the name is taken, or has no dot (those belong to the product).
Status registerOp(OpDef def);

// Before models are read or written and rules are applied, from one thread.  Errors: it is too late, the name is taken or of a domain of
// the product's, the op is not there, or it has an attribute that ONNX cannot hold.
Status registerOnnxName(OnnxName name);

}  // namespace qc
