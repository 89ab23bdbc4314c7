// lower-bodies: the graphs that nodes hold, such as the bodies of loops, go from the imported form to the one whose results define the
// model's, as the graph around them does.
#include "ir/loops.h"
#include "passes/pass_manager.h"
#include "passes/passes.h"

namespace qc {

Status lowerBodies(Graph& graph, PassContext& cx) {
  return editBodies(graph, [&](Graph& body) -> Status {
    PassContext inner;
    QC_TRY(runPipeline("lower", body, inner));
    cx.remarks.insert(cx.remarks.end(), inner.remarks.begin(), inner.remarks.end());
    return {};
  });
}

}  // namespace qc
