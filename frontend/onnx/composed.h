// Products that more than one ONNX op is made of.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

// Conv: x, w, bias?
Result<Value*> convolution(OnnxNode& n);
// Gemm: a, b, c?
Result<Value*> generalProduct(OnnxNode& n);

}  // namespace qc
