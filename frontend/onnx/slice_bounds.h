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

// Of a free dim whether a bound counts from the end must be sayable for all sizes.
Result<SliceCut> sliceCut(const DimExpr& dim, const SliceBounds& bounds);

// Bounds that take this cut at all sizes, the simplest that read back as the same where there are such.
SliceBounds sliceBounds(const DimExpr& dim, const SliceCut& cut);

}  // namespace qc
