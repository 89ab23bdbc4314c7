// Layers in the bodies of loops (ir/loops.h).  What rounds compute is not calibrated, so that they take parameters found at run time where
// the rest is static.
#pragma once

#include "runtime/workflow/prepared_model.h"

namespace qc {

// Of `graph`, which was made of the model by its rules: each body by the rule that decides about its loop.  A row of coverage for each of
// its nodes takes the place of the loop's.  Without rules, of a quantizer of one's own, bodies stay float.
Status quantizeBodies(Graph& graph, const PreparedModel& model, CoverageReport& coverage, PassContext& cx);

}  // namespace qc
