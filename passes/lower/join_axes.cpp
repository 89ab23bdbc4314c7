// join-axes: a reduction over axes that lie apart reads a transposed copy in which they stand side by side, behind those that stay: what
// kernels walk.  Elements count in the same order, so the bits are the same.  Tests: tests/golden/join_axes.
#include <algorithm>

#include "ir/rewriter.h"
#include "passes/passes.h"

namespace qc {
namespace {

bool isOne(const Dim& d) { return d.isStatic() && d.size() == 1; }

// Whether a dim that stays, and is not 1, lies between two that go.
bool liesApart(const Shape& shape, const std::vector<int64_t>& axes) {
  bool reduced = false, stayed = false;
  for (int64_t d = 0; d < std::ssize(shape); ++d) {
    if (isOne(nth(shape, d))) continue;
    const bool goes = std::find(axes.begin(), axes.end(), d) != axes.end();
    if (goes && stayed) return true;
    reduced |= goes;
    stayed |= reduced && !goes;
  }
  return false;
}

// By its attributes; all reductions over several axes have these.
bool isReduction(const Node& node) { return node.numOperands() == 1 && node.attrs().find("axes") && node.attrs().find("keepdims"); }

// Whether the result can have its dims of 1 back by sizes that are known.
bool canBeGivenBack(const Node& node) {
  const Shape& shape = node.result()->type().shape;
  return node.integer("keepdims") == 0 ||
         std::all_of(shape.begin(), shape.end(), [](const Dim& d) { return d.isStatic() && !d.wasFree(); });
}

Result<Value*> joined(Node& node, Rewriter& rw) {
  Value* x = node.operand(0);
  const std::vector<int64_t>& axes = node.integers("axes");  // ascending
  std::vector<int64_t> perm;
  for (int64_t d = 0; d < x->type().rank(); ++d)
    if (std::find(axes.begin(), axes.end(), d) == axes.end()) perm.push_back(d);
  std::vector<int64_t> last(axes.size());
  for (size_t i = 0; i < axes.size(); ++i) last[i] = std::ssize(perm) + static_cast<int64_t>(i);
  perm.insert(perm.end(), axes.begin(), axes.end());
  Builder b = rw.before(&node);
  b.at(node.location());
  QC_ASSIGN(Value * moved, b.create("transpose", {x}, {{"perm", perm}}));
  AttrDict attrs = node.attrs();
  attrs.set("axes", last);
  attrs.set("keepdims", int64_t{0});
  QC_ASSIGN(Value * y, b.create(node.op(), {moved}, std::move(attrs)));
  if (node.integer("keepdims") == 0) return y;
  return b.create("reshape", {y}, {{"shape", sizesOf(node.result()->type().shape)}});
}

}  // namespace

Status joinAxes(Graph& graph, PassContext& cx) {
  Rewriter rw(graph);
  int count = 0;
  for (Node* node : graph.nodes()) {
    if (rw.wasErased(node) || !isReduction(*node) || !canBeGivenBack(*node)) continue;
    if (!liesApart(node->operand(0)->type().shape, node->integers("axes"))) continue;
    QC_ASSIGN(Value * y, joined(*node, rw));
    rw.replace(node, {y});
    ++count;
  }
  cx.countHits({{"joined", count}});
  return {};
}

}  // namespace qc
