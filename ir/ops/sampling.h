// What grid_sample reads along one dim of the image, as expressions: its evaluation computes them, and so does the code of its kernel.  And
// how many samples roi_align takes at most.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "ir/scalar_expr.h"

namespace qc {

// arg(0) is the position that the grid gives, arg(1) the size of the dim.
struct SampledTap {
  ScalarExpr index;  // a whole number within the dim, or -1: outside, where there are zeros
  ScalarExpr weight;
};

// In the order in which they are summed.
std::vector<SampledTap> sampledTaps(const Node& gridSample);

constexpr int64_t kMaxBin = 4096;  // samples of roi_align along a side of a bin

}  // namespace qc
