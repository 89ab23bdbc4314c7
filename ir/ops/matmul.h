// How a matmul with numpy broadcasting walks its operands; for the evaluation and for the kernels.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ir/type.h"

namespace qc {

struct MatmulGeometry {
  int64_t m = 1, n = 1, k = 1;
  // Leading dims of the result, and the elements between neighbouring matrices of a and b along each (0: broadcast).
  std::vector<int64_t> batch, strideA, strideB;

  int64_t matrices() const { return numElements(batch); }
  // Of operands that matmul has accepted; vectors are matrices of one row (a) or column (b).
  static MatmulGeometry of(std::span<const int64_t> sizesA, std::span<const int64_t> sizesB);
};

}  // namespace qc
