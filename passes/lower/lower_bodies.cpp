// lower-bodies: the graphs that nodes hold, such as the bodies of loops, go from the imported form to the one whose results define the
// model's, as the graph around them does.
#include "passes/pass_manager.h"
#include "passes/passes.h"

namespace qc {

Status lowerBodies(Graph& graph, PassContext& cx) { return runInBodies("lower", graph, cx); }

}  // namespace qc
