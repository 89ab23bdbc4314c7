// The passes of this room, one function each in the file of the same name, and what recipes of channels ask of a value beside it
// (Recipe::channelAxis).
#pragma once

#include "passes/pass.h"

namespace qc {

#define PASS(function, ...) Status function(Graph& graph, PassContext& cx);
#define RECIPE PASS
#define RECIPE_OF_CHANNELS(function, axis, ...) PASS(function) int axis(const Value& value);
#include "passes/passes.def"
#include "passes/quantize/recipes.def"
#undef RECIPE_OF_CHANNELS
#undef RECIPE
#undef PASS

}  // namespace qc
