// What the emitters of ops that address elements by integer indices share.  Includes LLVM through emit.h.
#pragma once

#include "codegen/emit/emit.h"

namespace qc {

// The number at `place` of an integer operand, as i64.
Reg loadInteger(KernelEmitter& e, const Node& node, int operand, Reg place);

// The index at `place` of an operand of indices, counted from the start of a dim of `size`.  One outside of it is refused, and 0 taken
// so that nothing outside is touched.  size > 0.
Reg checkedIndex(KernelEmitter& e, const Node& node, int operand, Reg place, Reg size);

}  // namespace qc
