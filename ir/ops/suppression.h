// Non-maximum suppression of the boxes of one class, in the order and arithmetic of ONNX Runtime.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace qc {

struct Suppression {
  bool centerPoint = false;  // boxes are x, y, width, height; else two corners y, x, y, x in any order
  int64_t most = 0;
  float iou = 0;
  std::optional<float> score;  // only boxes above it

  // Best first.
  std::vector<int64_t> selected(const float* boxes, std::span<const float> scores) const;
};

}  // namespace qc
