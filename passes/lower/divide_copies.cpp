// divide-copies: a concat of more values than one kernel copies, as of the rounds of a long Loop, becomes a concat of concats, and a split
// into more of them a split of splits.  Tests: tests/golden/divide_copies.
#include <algorithm>
#include <iterator>
#include <numeric>

#include "ir/ops/movement.h"
#include "ir/rewriter.h"
#include "passes/passes.h"

namespace qc {
namespace {

Result<Value*> divided(Builder& b, std::vector<Value*> values, const AttrDict& attrs) {
  while (values.size() > kMostBoxes) {
    std::vector<Value*> joined;
    for (auto from = values.begin(); from != values.end();) {
      const auto to = from + static_cast<std::ptrdiff_t>(std::min(kMostBoxes, usize(values.end() - from)));
      QC_ASSIGN(Value * part, to - from == 1 ? Result<Value*>(*from) : b.create("concat", std::vector<Value*>(from, to), attrs));
      joined.push_back(part);
      from = to;
    }
    values = std::move(joined);
  }
  return b.create("concat", std::move(values), attrs);
}

// The pieces of sizes[from, to) of x.
Status pieces(Builder& b, Value* x, int64_t axis, std::span<const DimExpr> sizes, std::vector<Value*>& all) {
  const auto splitInto = [&](std::vector<DimExpr> wanted) -> Result<std::vector<Value*>> {
    QC_ASSIGN(const Node* split, b.createNode("split", {x}, {{"axis", axis}, {"sizes", std::move(wanted)}}));
    std::vector<Value*> results;
    for (int i = 0; i < split->numResults(); ++i) results.push_back(split->result(i));
    return results;
  };
  if (sizes.size() <= kMostBoxes) {
    QC_ASSIGN(const std::vector<Value*> last, splitInto({sizes.begin(), sizes.end()}));
    all.insert(all.end(), last.begin(), last.end());
    return {};
  }
  const size_t group = std::max(kMostBoxes, (sizes.size() + kMostBoxes - 1) / kMostBoxes);
  std::vector<std::span<const DimExpr>> groups;
  std::vector<DimExpr> wanted;
  for (size_t from = 0; from < sizes.size(); from += group) {
    groups.push_back(sizes.subspan(from, std::min(group, sizes.size() - from)));
    wanted.push_back(std::accumulate(groups.back().begin(), groups.back().end(), DimExpr(0)));
  }
  QC_ASSIGN(const std::vector<Value*> parts, splitInto(std::move(wanted)));
  for (size_t i = 0; i < parts.size(); ++i) QC_TRY(pieces(b, parts[i], axis, groups[i], all));
  return {};
}

}  // namespace

Status divideCopies(Graph& graph, PassContext& cx) {
  Rewriter rw(graph);
  int count = 0;
  for (Node* node : graph.nodes()) {
    const bool isConcat = node->is("concat") && usize(node->numOperands()) > kMostBoxes;
    if (!isConcat && !(node->is("split") && usize(node->numResults()) > kMostBoxes)) continue;
    Builder b = rw.before(node);
    b.at(node->location());
    std::vector<Value*> results;
    if (isConcat) {
      QC_ASSIGN(Value * y, divided(b, node->operands(), node->attrs()));
      results.push_back(y);
    } else {
      QC_TRY(pieces(b, node->operand(0), node->integer("axis"), node->attrs().dims("sizes"), results));
    }
    rw.replace(node, results);
    ++count;
  }
  cx.countHits({{"divided", count}});
  return {};
}

}  // namespace qc
