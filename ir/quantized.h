// What a graph is, at a glance.
#pragma once

#include "ir/graph.h"

namespace qc {

// Whether it, or the body of a loop in it, holds integers that stand for real numbers: of quantize/dequantize form, of integer ops, or with
// parameters found at run time, be they spelled out in ops of floats as ONNX has to have them for parameters by row.
bool isQuantized(const Graph& graph);

// The integers of up to 8 bits that a layer in s32 reads as this operand, behind their zero point and what widens or moves them; null:
// there are none, and the layer is not quantized.
const Value* integersBehind(const Node& layer, int operand);

}  // namespace qc
