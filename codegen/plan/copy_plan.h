// How a box of elements is best copied: loops around one piece of straight-line vectors.  Emitted by emit/copy.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ir/ops/strided_copy.h"

namespace qc {

// What the innermost code does with `size` steps of its main dim.  All strides are in bytes.
enum class PieceKind : uint8_t {
  run,           // contiguous bytes on both sides
  fill,          // one element over contiguous ones
  line,          // one element per step, any strides
  interleave,    // `cross` contiguous sources to one contiguous result: to[i][k] = from[k][i]
  deinterleave,  // one contiguous source to `cross` contiguous results: to[k][i] = from[i][k]
  tiles,         // a plane of size x cross: to[i][k] = from[k][i]; square tiles in registers
};

struct CopyDim {
  int64_t size, from, to;
};

struct CopyPlan {
  std::vector<CopyDim> loops;  // outer to inner
  PieceKind kind = PieceKind::run;
  int64_t elementBytes = 1;
  CopyDim main{1, 1, 1};
  CopyDim cross{1, 0, 0};  // interleave, deinterleave, tiles
  int64_t tile = 1;        // elements of a tile's side
  // Work units: loops before `level` whole, that dim (loops.size(): main) in `blocks` of `block` steps, the last one longer.
  size_t level = 0;
  int64_t blocks = 1, block = 1, units = 1;

  int64_t lastBlock() const { return (level < loops.size() ? loops[level].size : main.size) - (blocks - 1) * block; }
  int64_t bytes() const;  // moved in all
};

// `widestTile`: bytes of a row of a tile of 4-byte elements (16 or 32); tiles of other elements have rows of 16.
CopyPlan planCopy(const StridedCopy& box, int64_t elementBytes, int64_t widestTile);

}  // namespace qc
