// The attributes that convolutions and pools share: kernel, strides, dilations, padding, with auto_pad resolved and sizes in range.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

struct OnnxWindow {
  std::vector<int64_t> kernel, strides, pads, dilations;
  bool ceil = false;
};

// Of a node over [N, C, spatial...]; `kernel` stands in for an absent kernel_shape.
Result<OnnxWindow> onnxWindow(OnnxNode& n, std::vector<int64_t> kernel = {});

// The spatial sizes of the weight that input `weight` is.
Result<std::vector<int64_t>> onnxKernel(OnnxNode& n, int weight);

// The first input without what negative pads cut off; these become 0.  `pads` are those of its last dims: begins, then ends.
Result<Value*> cropped(OnnxNode& n, std::vector<int64_t>& pads);

// Keeps the arithmetic on sizes far from overflow: every value from `least` to 2^30.
Status checkOnnxWindow(OnnxNode& n, std::initializer_list<const std::vector<int64_t>*> lists, int64_t least);

}  // namespace qc
