// The sampling positions of resize, shared by its reference evaluation and its kernels.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ir/attr.h"

namespace qc {

struct ResizeTap {
  int64_t index;  // of the source, inside it
  float weight;
};

// For every result coordinate of one dim: its taps in the order in which they are summed; none where it lies outside the source.
// `in` and `out`: the sizes of all dims.
std::vector<std::vector<ResizeTap>> resizeTaps(const AttrDict& attrs, size_t dim, std::span<const int64_t> in,
                                               std::span<const int64_t> out);

// Sizes where one scale serves all dims that `wanted` has a size for (0: it has none): the one by which none becomes larger than that, or
// none smaller.  Whole numbers to the nearest, halves up.
std::vector<DimExpr> proportionalSizes(std::span<const DimExpr> dims, std::span<const DimExpr> wanted, bool notLarger);

// p / q, q at most 64, where that is what the scale was rounded from: for sizes n up to 16384, n * scale, multiplied as a float or a double
// as the scale is, and n * p / q have the same floor, or with `up` the same ceiling.
template <typename Real>
std::optional<std::pair<int64_t, int64_t>> fractionOf(Real scale, bool up = false);

// The size that a scale gives: floor(dim * scale), multiplied in float32 as ONNX Runtime does, and as PyTorch's exporters expect of a scale
// that float32 rounds (10 * 0.7 is 7).  Of a free dim where the scale is a fraction of small integers.  Nothing: no such expression, or
// beyond 1e9.
std::optional<DimExpr> resizedSize(const DimExpr& dim, float scale);

}  // namespace qc
