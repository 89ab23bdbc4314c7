// The sampling positions of resize, shared by its reference evaluation and its kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "ir/attr.h"

namespace qc {

struct ResizeTap {
  int64_t index;  // of the source, inside it
  float weight;
};

// For every result coordinate of one dim: its taps in the order in which they are summed; none where it lies outside the source.
std::vector<std::vector<ResizeTap>> resizeTaps(const AttrDict& attrs, size_t dim, int64_t in, int64_t out);

}  // namespace qc
