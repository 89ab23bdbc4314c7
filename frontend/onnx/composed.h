// What more than one ONNX op is made of.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

// Conv: x, w, bias?
Result<Value*> convolution(OnnxNode& n);
// Gemm: a, b, c?
Result<Value*> generalProduct(OnnxNode& n);
// x / sqrt(mean of squares over the dims from axis on + epsilon) * scale
Result<Value*> rmsNormalized(OnnxNode& n, Value* x, Value* scale, double epsilon, int64_t axis);

}  // namespace qc
