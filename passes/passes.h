// The passes of this room, one function each in the file of the same name.
#pragma once

#include "passes/pass.h"

namespace qc {

#define PASS(function, ...) Status function(Graph& graph, PassContext& cx);
#define RECIPE PASS
#include "passes/passes.def"
#include "passes/quantize/recipes.def"
#undef RECIPE
#undef PASS

}  // namespace qc
