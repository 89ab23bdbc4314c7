// Copies an N-d box of elements between two strided layouts.  This is the whole of transpose, slice, concat, split, pad, expand
// and tile: see movement.h.  Neighbouring dims are merged where both sides allow, contiguous
// runs go through memcpy, and a transposed plane goes through registers by square tiles.
#pragma once

#include <cstdint>
#include <vector>

namespace qc {

struct StridedCopy {
  std::vector<int64_t> sizes;                   // of the box; outer to inner
  std::vector<int64_t> fromStrides, toStrides;  // in elements, per dim; from may be 0 (repeat) or negative
};

// `from` and `to` point at the box's first element.
void stridedCopy(const StridedCopy& copy, const void* from, void* to, int64_t elementBytes);

// Element strides of a dense row-major tensor.
std::vector<int64_t> denseStrides(const std::vector<int64_t>& sizes);

}  // namespace qc
