// lower-dynamic: layers whose input is quantized with computed parameters become integer ops.
//   linear(dequantize_with(q, s, z), dequantize(w), b?)  ->  q.dynamic_linear q, w, b, s, z
//   conv likewise
// With groups=0 layers of group-wise weights are left as they are: ONNX has no integer form of them.
// Tests: tests/golden/lower_dynamic.
#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"

namespace qc {
namespace {

// The zero point as s32; without one it is 0.
Result<Value*> zeroPointOf(Builder& b, Value* z) {
  if (!z) {
    Tensor zero(DType::s32, {});
    return b.constant({}, std::move(zero));
  }
  if (z->type().dtype == DType::s32) return z;
  return b.create("cast", {z}, {{"to", DType::s32}});
}

Result<bool> lowerLayer(const Match& m, Rewriter& rw, bool groups) {
  Node* node = m.root();
  Node *x = m.node("x"), *w = m.node("w");
  if (x->integer("axis") >= 0 && !isSingle(x->operand("scale"))) return false;
  if (x->operand("zero_point") && x->integer("axis") >= 0 && !isSingle(x->operand("zero_point"))) return false;
  Value *integers = x->operand(0), *weights = w->operand(0), *bias = node->operand("bias");
  if (sizeOf(integers->type().dtype) != 1 || !weights->constant() || sizeOf(weights->type().dtype) != 1) return false;
  if (node->operand("residual") || node->expr("post") || (bias && bias->type().dtype != DType::f32)) return false;
  const QuantParams& q = *weights->type().quant;
  const bool conv = node->is("conv");
  if (q.blockSize && !groups) return false;
  if (q.perChannel() && (q.blockSize ? conv || q.axis != 1 : q.axis != 0)) return false;
  if (conv && (!isSingle(x->operand("scale")) || (x->operand("zero_point") && !isSingle(x->operand("zero_point"))))) return false;
  AttrDict attrs = node->attrs();
  attrs.erase("post");
  Builder b = rw.before(node);
  QC_ASSIGN(Value * zero, zeroPointOf(b, x->operand("zero_point")));
  // A sum that could leave int32 keeps the layer in float.
  auto y = b.create("q.dynamic_" + std::string(node->op()), {integers, weights, bias, x->operand("scale"), zero}, std::move(attrs));
  if (!y) return false;
  rw.replace(node, {*y});
  return true;
}

}  // namespace

Status lowerDynamic(Graph& graph, PassContext& cx) {
  const bool groups = cx.options.integer("groups") != 0;
  const std::vector<RewriteRule> rules = {
      {"layer", oneOf({"linear", "conv"}, {op("dequantize_with").as("x"), op("dequantize").as("w")}),
       [groups](const Match& m, Rewriter& rw) { return lowerLayer(m, rw, groups); }},
  };
  return applyRules(rules, graph, cx);
}

}  // namespace qc
