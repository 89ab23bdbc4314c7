// recognize-means: an average pool whose one window is the whole of a known plane becomes a mean over the spatial axes.  A mean sums in
// another order, so this is for the graph that defines the results, not for what follows when its sizes are bound.
// Tests: tests/golden/recognize_means.
#include <algorithm>
#include <numeric>

#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"

namespace qc {
namespace {

Result<bool> poolToMean(const Match& m, Rewriter& rw) {
  Node* pool = m.root();
  const TensorType& x = pool->operand(0)->type();
  const auto& pads = pool->integers("pads");
  if (std::any_of(pads.begin(), pads.end(), [](int64_t p) { return p != 0; })) return false;
  const auto& kernel = pool->integers("kernel_shape");
  const int first = channelAxis(*pool) == 1 ? 2 : 1;
  std::vector<int64_t> axes(kernel.size());
  std::iota(axes.begin(), axes.end(), first);
  for (size_t i = 0; i < kernel.size(); ++i)
    if (nth(x.shape, axes[i]) != Dim(kernel[i]) || nth(pool->result()->type().shape, axes[i]) != Dim(1)) return false;
  QC_ASSIGN(Value * y, rw.before(pool).create("reduce_mean", {pool->operand(0)}, {{"axes", axes}}));
  rw.replace(pool, {y});
  return true;
}

}  // namespace

Status recognizeMeans(Graph& graph, PassContext& cx) { return applyRules({{"pool-to-mean", op("avg_pool"), poolToMean}}, graph, cx); }

}  // namespace qc
