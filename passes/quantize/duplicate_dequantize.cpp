// duplicate-dequantize: every reader of a dequantize gets one of its own, for tools that match `dequantize -> op -> quantize` without
// looking past other readers.  A graph output keeps the original.  Tests: tests/golden/duplicate_dequantize.
#include "passes/passes.h"

namespace qc {

Status duplicateDequantize(Graph& graph, PassContext& cx) {
  int made = 0;
  for (Node* dq : graph.nodes()) {
    if (!dq->is("dequantize")) continue;
    const std::vector<Node*> users = dq->result()->users();
    // The last reader keeps the original unless the graph returns it.
    const size_t moved = dq->result()->isOutput() ? users.size() : users.empty() ? 0 : users.size() - 1;
    for (size_t u = 0; u < moved; ++u) {
      Builder b(graph);
      b.before(users[u]);
      b.at(dq->location());
      QC_ASSIGN(Value * copy, b.create("dequantize", {dq->operand(0)}, {}, dq->result()->name()));
      for (int i = 0; i < users[u]->numOperands(); ++i)
        if (users[u]->operand(i) == dq->result()) users[u]->setOperand(i, copy);
      ++made;
    }
  }
  cx.countHits({{"copies", made}});
  return {};
}

}  // namespace qc
