// lower-bodies: the graphs that nodes hold, such as the bodies of loops, go from the imported form to the one whose results define the
// model's, as the graph around them does.
#include "ir/loops.h"
#include "passes/pass_manager.h"
#include "passes/passes.h"

namespace qc {

Status lowerBodies(Graph& graph, PassContext& cx) {
  for (Node* node = graph.front(); node; node = node->next()) {
    const Graph* body = bodyOf(*node);
    if (!body) continue;
    Graph own = body->clone();
    PassContext inner;
    if (auto lowered = runPipeline("lower", own, inner); !lowered)
      return tl::make_unexpected(std::move(lowered.error()).at(node->location()));
    cx.remarks.insert(cx.remarks.end(), inner.remarks.begin(), inner.remarks.end());
    node->attrs().set("body", GraphAttr(std::move(own)));
  }
  return {};
}

}  // namespace qc
