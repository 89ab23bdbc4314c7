#include "ir/constant_view.h"
#include "ir/interp.h"
#include "ir/memory_limit.h"
#include "ir/rewriter.h"
#include "passes/integer_weights.h"
#include "passes/passes.h"

namespace qc {

// One walk in schedule order is enough: what a node becomes is seen by its users further down.
Status foldConstants(Graph& graph, PassContext& cx) {
  const int64_t maxBytes = cx.options.integer("max_bytes");
  const bool narrow = cx.options.integer("narrow_weights") != 0;
  FoldBudget budget;
  for (const auto& [name, tensor] : graph.constants().entries()) budget.payload += tensor.byteSize();
  int64_t dropped = 0;  // bytes at most of payloads that nothing reads any more
  std::map<std::string, int> hits;
  Rewriter rewriter(graph);
  for (Node* node : graph.nodes()) {
    if (rewriter.wasErased(node) || node->is("const")) continue;
    // A dequantized weight stays one: its four times larger float form would hide that it is int8.
    if (node->is("dequantize") && !(node->result()->type().isStatic() && node->result()->type().numElements() == 0)) continue;
    if (narrow && widensWeights(*node)) continue;
    if (dropped > memoryLimit() / 16) {
      graph.constants().eraseUnused(graph);
      dropped = 0;
    }
    QC_ASSIGN(auto folded, foldNode(*node, budget, maxBytes));
    if (!folded) continue;
    Builder builder = rewriter.before(node);
    std::vector<Value*> values;
    std::vector<std::string> names;
    for (int i = 0; i < node->numResults(); ++i) {
      const Value* result = node->result(i);
      names.push_back(result->name());
      values.push_back(builder.constant(result->name(), std::move(nth(*folded, i)), result->type().quant));
    }
    ++hits[std::string(node->op())];
    for (const Value* v : node->operands()) dropped += v && v->constant() ? v->constant()->byteSize() : 0;
    recordViews(*node, values);
    rewriter.replace(node, values);
    for (size_t i = 0; i < values.size(); ++i) graph.rename(values[i], names[i]);
  }
  forgetLoneViews(graph);
  cx.countHits(hits);
  return {};
}

}  // namespace qc
