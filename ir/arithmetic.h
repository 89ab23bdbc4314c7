// The floating-point state in which everything here is defined: rounding to nearest, denormal numbers kept, no traps.  A program linked
// with -ffast-math, or one that changed the rounding or unmasked exceptions, calls us from threads in another state; each entry that
// computes with floats holds one of these, so that it gives the same bits, and the caller finds its own state again however the entry ends.
#pragma once

#include "runtime/rt/fp_state.h"

namespace qc {

class DefinedArithmetic {
 public:
  DefinedArithmetic() : former_(qcrt_fp_enter()) {}
  ~DefinedArithmetic() { qcrt_fp_leave(former_); }
  DefinedArithmetic(const DefinedArithmetic&) = delete;
  DefinedArithmetic& operator=(const DefinedArithmetic&) = delete;

 private:
  uint64_t former_;
};

}  // namespace qc
