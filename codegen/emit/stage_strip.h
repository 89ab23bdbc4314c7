// Brings the input of a strip of output rows into scratch: codegen/plan/staged_strip.h.  Includes LLVM through emit.h.
#pragma once

#include "codegen/emit/emit.h"
#include "codegen/plan/staged_strip.h"

namespace qc {

// The strip of output plane `plane` (over all images) that begins with row `firstRow`; `group` if pixels hold the channels of one.  Planes
// `begin` to `end` of the kernel are staged.  `padding` is a whole vector of padding elements.
struct StripOrigin {
  Reg plane, firstRow, group, begin, end;
};
void stageStrip(KernelEmitter& e, const StagedStrip& strip, const StripOrigin& origin, Reg padding);

// Bytes of a staged line, and of a plane.
Reg stagedRowBytes(KernelEmitter& e, const StagedStrip& strip);
Reg stagedPlaneBytes(KernelEmitter& e, const StagedStrip& strip);

// Every output plane reads one plane of the input, which is there: none of the padding.
inline bool readsOnePlane(const ConvGeometry& conv) { return conv.kernelD == 1 && conv.padFront == 0 && conv.padBack == 0; }

// The planes of the kernel that lie inside the input for output plane `plane`: first and last + 1, which may be no larger.
std::pair<Reg, Reg> planesInside(KernelEmitter& e, const ConvGeometry& conv, Reg plane);

// The place of kernel plane 0 in the input, in pixels of all its planes; before the input's begin where the padding leads there.
Reg firstPlane(KernelEmitter& e, const ConvGeometry& conv, Reg plane);

}  // namespace qc
