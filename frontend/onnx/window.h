// The attributes that convolutions and pools share: kernel, strides, dilations, padding, with auto_pad resolved and sizes in range.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

struct OnnxWindow {
  std::vector<int64_t> kernel, strides, pads, dilations;
  // Pads that follow from free sizes, begins and then ends: `padded` adds them in front of the op, and `pads` holds 0 for them. None:
  // empty.
  std::vector<DimExpr> freePads;
  bool ceil = false;
};

// Of a node over [N, C, spatial...]; `kernel` stands in for an absent kernel_shape.
// fixed: pads that follow from free sizes are refused.
enum class OnnxPads : uint8_t { fixed, free };
Result<OnnxWindow> onnxWindow(OnnxNode& n, std::vector<int64_t> kernel = {}, OnnxPads pads = OnnxPads::fixed);

// x with the free pads of the window around it, filled as the op `pad` does it in this mode.
Result<Value*> padded(OnnxNode& n, Value* x, const OnnxWindow& w, const std::string& mode = "constant");

// For each window of x, the first input, where its largest element is: the index in all of x.  `pooled`: the largest ones.
Result<Value*> placesOfLargest(OnnxNode& n, const OnnxWindow& w, const Value* pooled);

// The spatial sizes of the weight that input `weight` is.
Result<std::vector<int64_t>> onnxKernel(OnnxNode& n, int weight);

// The first input without what negative pads cut off; these become 0.  `pads` are those of its last dims: begins, then ends.
Result<Value*> cropped(OnnxNode& n, std::vector<DimExpr>& pads);

// Keeps the arithmetic on sizes far from overflow: every value from `least` to 2^30.
Status checkOnnxWindow(OnnxNode& n, std::initializer_list<const std::vector<int64_t>*> lists, int64_t least);

}  // namespace qc
