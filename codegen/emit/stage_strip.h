// The input of a strip of output rows in scratch, for convolutions whose loops are to know no borders: the lines of every plane of the
// kernel, each with its padding, one behind the other.  Includes LLVM through emit.h.
#pragma once

#include "codegen/emit/emit.h"
#include "ir/packed_layout.h"

namespace qc {

struct StagedStrip {
  const ConvGeometry& conv;
  int64_t rows, width;  // lines of one plane, pixels of a line
  int64_t channels;     // of a staged pixel: all, or those of one group
  DType element;        // as staged
  bool widens = false;  // the input is u8 that becomes s16

  static constexpr int64_t kSlack = 128;  // fills and copies may end in a whole vector
  int64_t pixelBytes() const { return channels * sizeOf(element); }
  int64_t rowBytes() const { return width * pixelBytes(); }
  int64_t planeBytes() const { return rows * rowBytes(); }
  int64_t bytes() const { return (conv.kernelD * planeBytes() + kSlack + 63) / 64 * 64; }
};

// The strip of output plane `plane` (over all images) that begins with row `firstRow`; `group` if pixels hold the channels of one.  Planes
// `begin` to `end` of the kernel are staged.  `padding` is a whole vector of padding elements.
struct StripOrigin {
  Reg plane, firstRow, group, begin, end;
};
void stageStrip(KernelEmitter& e, const StagedStrip& strip, const StripOrigin& origin, Reg padding);

// The planes of the kernel that lie inside the input for output plane `plane`: first and last + 1, which may be no larger.
std::pair<Reg, Reg> planesInside(KernelEmitter& e, const ConvGeometry& conv, Reg plane);

// The place of kernel plane 0 in the input, in pixels of all its planes; before the input's begin where the padding leads there.
Reg firstPlane(KernelEmitter& e, const ConvGeometry& conv, Reg plane);

}  // namespace qc
