#include "passes/simplify/apply_rules.h"

namespace qc {

Status applyRules(const std::vector<RewriteRule>& rules, Graph& graph, PassContext& cx) {
  QC_ASSIGN(const auto hits, rewritePatterns(graph, rules));
  cx.countHits(hits);
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
