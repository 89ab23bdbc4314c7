// Layers in the bodies of loops (ir/loops.h).  What rounds compute is not calibrated, so that they take parameters found at run time where
// the rest is static.
#pragma once

#include "runtime/workflow/prepared_model.h"

namespace qc {

// Into `model`, which has its rules and its simplified graph: the bodies as these rules quantize them, each of its nodes with a row of
// coverage in place of the loop's.  Without rules, of a quantizer of one's own, bodies stay float.
Status quantizeBodies(PreparedModel& model);

// Those bodies, in place of the float ones of a graph that was made of the model.
Status putBodies(Graph& graph, const PreparedModel& model);

}  // namespace qc
