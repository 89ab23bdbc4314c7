// What Slice takes of one dim: as ONNX says it, by bounds that may lie beyond the dim or count from its end, and as the op `slice` does, by
// a start within the dim and a size.
#pragma once

#include "ir/dim_expr.h"

namespace qc {

struct SliceBounds {
  DimExpr start, end;
  int64_t step = 1;
};

struct SliceCut {
  DimExpr start, size;
  int64_t step = 1;
  friend bool operator==(const SliceCut&, const SliceCut&) = default;
};

// Of a free dim the signs of the bounds must be the same for all sizes, and a step below 0 must take all of it.
Result<SliceCut> sliceCut(const DimExpr& dim, const SliceBounds& bounds);

// Bounds that take this cut at all sizes, the simplest that read back as the same where there are such.
SliceBounds sliceBounds(const DimExpr& dim, const SliceCut& cut);

}  // namespace qc
