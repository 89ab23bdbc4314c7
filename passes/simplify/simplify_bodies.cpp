// simplify-bodies: the graphs that nodes hold, such as the bodies of loops, in the form that the quantizer sees of the graph around them,
// so that rules find in a body what they find outside: a matmul with a constant and a bias is a linear.
#include "passes/pass_manager.h"
#include "passes/passes.h"

namespace qc {

Status simplifyBodies(Graph& graph, PassContext& cx) { return runInBodies("simplify", graph, cx); }

}  // namespace qc
