// How a box of elements is best copied: loops around one piece of straight-line vectors.  Emitted by emit/copy.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "codegen/plan/number.h"
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
  Number size, from, to;
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
  Number blocks = 1, block = 1;

  const Number& splitSize() const { return level < loops.size() ? loops[level].size : main.size; }
  int64_t lastBlock() const { return splitSize().value - (blocks.value - 1) * block.value; }
  int64_t units() const;
  int64_t bytes() const;  // moved in all
  void eachNumber(const NumberVisitor& visit);
  std::string form() const;
};

// `elsewhere` is the same box where dims that were free have other sizes (number.h); what differs there is no part of the code.
// `widestTile`: bytes of a row of a tile of 4-byte elements (16 or 32); tiles of other elements have rows of 16.
CopyPlan planCopy(const StridedCopy& box, const StridedCopy& elsewhere, int64_t elementBytes, int64_t widestTile);

}  // namespace qc
