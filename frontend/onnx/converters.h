// The tables of converters, one per file ops_*.cpp; ops that are only renamed have a row of ir/onnx_names.h instead.
#pragma once

#include <span>
#include <string_view>

#include "frontend/onnx/node.h"

namespace qc {

// Of functions that files written here carry along, which are read back as one op.  Their names end in a number, `Op_1`: a model may have
// several bodies for one op.
inline constexpr const char* kOwnDomain = "qcompile";

// The attributes of an op of ours that is renamed in ONNX, from a node that has those of its namesake.
Result<AttrDict> renamedAttrs(OnnxNode& n, std::string_view op);

std::span<const OnnxOp> onnxRenamedOps();
std::span<const OnnxOp> onnxNnOps();
std::span<const OnnxOp> onnxMathOps();
std::span<const OnnxOp> onnxReductionOps();
std::span<const OnnxOp> onnxShapeOps();
std::span<const OnnxOp> onnxResizeOps();
std::span<const OnnxOp> onnxDecidingOps();
std::span<const OnnxOp> onnxSamplingOps();
std::span<const OnnxOp> onnxSignalOps();
std::span<const OnnxOp> onnxRecurrentOps();
std::span<const OnnxOp> onnxQuantOps();
std::span<const OnnxOp> onnxComposedOps();
std::span<const OnnxOp> onnxAttentionOps();
std::span<const OnnxOp> onnxContribOps();           // of com.microsoft
std::span<const OnnxOp> onnxContribAttentionOps();  // the same
std::span<const OnnxOp> onnxMlOps();                // of ai.onnx.ml
std::span<const OnnxOp> onnxMlTreeOps();            // the same
std::span<const OnnxOp> onnxOwnOps();               // of integrators: converter.h

}  // namespace qc
