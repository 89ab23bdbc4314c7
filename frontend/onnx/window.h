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

// Keeps the arithmetic on sizes far from overflow: every value from `least` to 2^30.
Status checkOnnxWindow(OnnxNode& n, std::initializer_list<const std::vector<int64_t>*> lists, int64_t least);

}  // namespace qc
