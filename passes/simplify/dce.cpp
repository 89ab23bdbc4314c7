#include "passes/passes.h"

namespace qc {

Status dce(Graph& graph, PassContext& cx) {
  if (const int erased = graph.eraseDeadNodes(); erased > 0) cx.countHits({{"erased", erased}});
  return {};
}

}  // namespace qc
