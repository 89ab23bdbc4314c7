// The functions that rows of kernels.def name, one block per family of kernels.  No LLVM here.
#pragma once

#include "codegen/kernel.h"

namespace qc {

}  // namespace qc
