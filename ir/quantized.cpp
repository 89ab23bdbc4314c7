#include "ir/quantized.h"

#include "ir/loops.h"

namespace qc {
namespace {

constexpr int kLongestChain = 16;  // of ops between integers and their reader

bool isLayer(const Node& n) { return n.is("matmul") || n.is("linear") || n.is("conv") || n.is("conv_transpose"); }

bool hasFewBits(DType dtype) { return isInteger(dtype) && sizeOf(dtype) <= 1; }

}  // namespace

const Value* integersBehind(const Node& layer, int operand) {
  if (!isLayer(layer) || operand >= layer.numOperands() || layer.result()->type().dtype != DType::s32) return nullptr;
  const Value* v = layer.operand(operand);
  for (int i = 0; v && i < kLongestChain; ++i) {
    if (hasFewBits(v->type().dtype)) return v;
    const Node* n = v->producer();
    if (!n || !(n->is("cast") || n->is("sub") || n->is("reshape") || n->is("transpose"))) return nullptr;
    v = n->operand(0);
  }
  return nullptr;
}

bool isQuantized(const Graph& graph) {
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->is("quantize") || n->is("dequantize") || n->is("quantize_with") || n->op().starts_with("q.")) return true;
    if (integersBehind(*n, 0) || integersBehind(*n, 1)) return true;
    if (const Graph* body = bodyOf(*n); body && isQuantized(*body)) return true;
  }
  return false;
}

}  // namespace qc
