// lower-weights: integer weights under float arithmetic stay packed until they are used.
//   linear(x, dequantize(w), b?)       ->  q.weight_linear x, packed w, scales, b
//   gather(dequantize(table), i)       ->  q.embedding
// What still reads a dequantized constant afterwards (convolutions, recurrent layers) gets the floats: they are computed once, here.
// Tests: tests/golden/lower_weights.
#include "ir/interp.h"
#include "ir/ops/packed_weights.h"
#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"

namespace qc {
namespace {

// Scales and zero points as constants beside the packed weights.
struct PackedOperands {
  Value *weights, *scale, *zeroPoint;
  AttrDict attrs;
};

std::optional<PackedOperands> pack(Builder& b, const Value* w) {
  auto packed = packWeights(*w->constant(), *w->type().quant);
  if (!packed) return std::nullopt;
  PackedOperands p{b.constant(w->name(), packed->weights), b.constant(w->name() + ".scale", packed->scale), nullptr, packed->attrs()};
  if (packed->hasZeroPoint) p.zeroPoint = b.constant(w->name() + ".zero_point", packed->zeroPoint);
  return p;
}

Result<bool> lowerLinear(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  const Value *w = m.node("w")->operand(0), *x = node->operand(0);
  if (!w->constant() || x->constant() || x->type().dtype != DType::f32 || node->operand("residual") || node->expr("post")) return false;
  Builder b = rw.before(node);
  const auto packed = pack(b, w);
  if (!packed) return false;
  QC_ASSIGN(Value * y,
            b.create("q.weight_linear", {node->operand(0), packed->weights, packed->scale, packed->zeroPoint, node->operand("bias")},
                     packed->attrs));
  rw.replace(node, {y});
  return true;
}

Result<bool> lowerGather(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  const Value *w = m.node("w")->operand(0), *indices = node->operand("indices");
  if (!w->constant() || node->integer("axis") != 0 || (indices->type().dtype != DType::s64 && indices->type().dtype != DType::s32))
    return false;
  Builder b = rw.before(node);
  const auto packed = pack(b, w);
  if (!packed) return false;
  QC_ASSIGN(Value * y,
            b.create("q.embedding", {packed->weights, packed->scale, packed->zeroPoint, node->operand("indices")}, packed->attrs));
  if (y->type() != node->result()->type()) return false;
  rw.replace(node, {y});
  return true;
}

Result<bool> expand(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  QC_ASSIGN(auto folded, foldNode(*node, int64_t{1} << 40));
  if (!folded) return false;
  rw.replace(node, {rw.before(node).constant(node->result()->name(), std::move((*folded)[0]))});
  return true;
}

}  // namespace

Status lowerWeights(Graph& graph, PassContext& cx) {
  static const std::vector<RewriteRule> kPacked = {
      {"linear", op("linear", {any(), op("dequantize").as("w")}), lowerLinear},
      {"embedding", op("gather", {op("dequantize").as("w")}), lowerGather},
  };
  static const std::vector<RewriteRule> kExpanded = {{"expand", op("dequantize"), expand}};
  QC_TRY(applyRules(kPacked, graph, cx));
  return applyRules(kExpanded, graph, cx);
}

}  // namespace qc
