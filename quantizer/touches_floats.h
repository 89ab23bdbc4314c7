// Which ops there is something to be quantized of.
#pragma once

#include "ir/graph.h"

namespace qc {

// Whether an op reads or gives floats, or integers that stand for them.  Those that compute on plain integers alone, sizes and indices, are
// no part of a report on what became of a model.
bool touchesFloats(const Node& node);

}  // namespace qc
