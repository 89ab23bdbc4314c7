// Ops that move elements, as data: the boxes that each copies.  The interpreter copies them with stridedCopy, the code emitter
// with loops of its own.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "ir/attr.h"
#include "ir/ops/strided_copy.h"

namespace qc {

struct BoxCopy {
  static constexpr int kFill = -1;
  int operand = 0;  // kFill: elements of the op's own, such as a pad's value
  int result = 0;
  int64_t from = 0, to = 0;  // elements from the start of the tensor to the box's first
  StridedCopy box;
};

// What an op's boxes depend on.  Sizes of all operands and results.
struct MovementShape {
  const AttrDict& attrs;
  std::vector<std::vector<int64_t>> in, out;
};

// Null for ops that do more than to move boxes of elements.  The boxes cover every result, each element once; a pad that repeats
// a small tensor very often has none.
using BoxesFn = std::vector<BoxCopy> (*)(const MovementShape&);
BoxesFn boxesOf(std::string_view op);

// Of one node that code is generated for: each is code of its own.
inline constexpr size_t kMostBoxes = 40;

// Where index i of a padded dim comes from, -before <= i < dim + after, for the modes that repeat the input.
int64_t padSource(int64_t i, int64_t dim, std::string_view mode);

}  // namespace qc
