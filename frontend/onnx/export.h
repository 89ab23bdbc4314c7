// Float and quantize/dequantize stage graphs -> ONNX, in the lowest opset from 13 on that has every op.  Quantized constants become
// integer initializers behind DequantizeLinear, so that any ONNX runtime takes the file.  Inputs, outputs and nodes keep the user's names.
// Free dims keep their names, and what is computed from them is computed in the file: from the Shape of an input, once for each size.
// An op without a row of the table is an error that names the node.
#pragma once

#include <string>

#include "ir/graph.h"

namespace qc {

Result<std::string> exportOnnx(const Graph& graph);

}  // namespace qc
