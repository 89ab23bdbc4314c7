// The passes of this room, one function each in the file of the same name.
#pragma once

#include "passes/pass.h"

namespace qc {

#define PASS(function, ...) Status function(Graph& graph, PassContext& cx);
#include "passes/passes.def"
#undef PASS

}  // namespace qc
