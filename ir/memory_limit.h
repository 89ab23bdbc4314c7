// How much memory an evaluation may take.  Sizes come from models, so they are compared with a limit before anything is allocated: a model
// that asks for more is answered with an error that says so, not by the kernel's out-of-memory killer.
#pragma once

#include <cstdint>

#include "ir/status.h"

namespace qc {

// Three quarters of the memory this process may use (the machine's, or its control group's), or what QC_MEMORY_LIMIT says, in bytes.
int64_t memoryLimit();

// An error if `bytes` are more than memoryLimit(); `what` names what needs them.
Status checkMemory(int64_t bytes, std::string_view what);

}  // namespace qc
