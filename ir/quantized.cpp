#include "ir/quantized.h"

namespace qc {

bool isQuantized(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->is("quantize") || n->is("dequantize") || n->is("quantize_with") || n->op().starts_with("q.")) return true;
  return false;
}

}  // namespace qc
