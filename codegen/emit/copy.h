// The copy of one box as part of another kernel, and streams interleaved in registers.
#pragma once

#include <vector>

#include "codegen/emit/emit.h"
#include "codegen/plan/copy_plan.h"

namespace qc {

// All of it, by loops around vectors; pointers to the box's first element.
void emitBoxCopy(KernelEmitter& e, const StridedCopy& box, int64_t elementBytes, Reg from, Reg to);
// The same of a box whose numbers may be the plan's.
void emitBoxCopy(KernelEmitter& e, const CopyPlan& plan, Reg from, Reg to);

// a0 b0 c0 a1 b1 c1 ..: one vector of 2 to 4 of one type.
Reg interleaved(KernelEmitter& e, const std::vector<Reg>& parts);

}  // namespace qc
