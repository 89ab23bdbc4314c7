// The input of a strip of output rows in scratch, for convolutions whose loops are to know no borders: the lines of every plane of the
// kernel, each with its padding, one behind the other.  Emitted by emit/stage_strip.cpp.
#pragma once

#include <algorithm>
#include <string>

#include "codegen/plan/number.h"
#include "ir/packed_layout.h"

namespace qc {

struct StagedStrip {
  const ConvGeometry& conv;
  Number inH, inW;      // of the input
  Number rows, width;   // lines of one plane, pixels of a line
  int64_t channels;     // of a staged pixel: all, or those of one group
  DType element;        // as staged
  bool widens = false;  // the input is u8 that becomes s16

  static constexpr int64_t kSlack = 128;  // fills and copies may end in a whole vector
  int64_t pixelBytes() const { return channels * sizeOf(element); }
  int64_t planeBytes() const { return rows.value * width.value * pixelBytes(); }
  int64_t bytes() const { return (conv.kernelD * planeBytes() + kSlack + 63) / 64 * 64; }

  // Pixels of a line that are padding on the left, and those from the input; the rest is padding on the right.
  int64_t left() const { return std::min(conv.padLeft, width.value); }
  int64_t copied() const { return std::max<int64_t>(0, std::min(inW.value, width.value - conv.padLeft)); }
  // What the code depends on beside numbers.
  std::string form() const { return fmt::format("staged behind {}{}", left(), copied() ? "" : ", all padding"); }
};

}  // namespace qc
