// Attention as ONNX Runtime's transformer optimizer fuses it (com.microsoft), as the ops it stands for; see ContribOperators.md there.
#include <cmath>
#include <limits>

#include "frontend/onnx/attention.h"
#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

Result<Value*> withBias(OnnxNode& n, Value* v, Value* bias) {
  if (!bias) return v;
  return n.create("add", {v, bias});
}

// What hides keys: 0 where `seen` is set, else the number that the node's attribute gives.
Result<Value*> filter(OnnxNode& n, Value* seen) {
  QC_ASSIGN(const double hidden, n.real("mask_filter_value", -10000.0));
  return n.create("where", {seen, n.scalar(0), n.scalar(static_cast<float>(hidden))});
}

Result<Value*> compared(OnnxNode& n, const char* op, Value* keys, Value* bound) {
  QC_ASSIGN(bound, n.create("cast", {bound}, {{"to", DType::s64}}));
  return n.create(op, {keys, bound});
}

// A mask of [batch] ends of the keys that are seen, of [2 * batch] ends and then beginnings, or of 0 and 1 by key: [batch, keys] or
// [batch, queries, keys].  Gives what scores are to have added, [batch, 1, 1 or queries, keys].
Result<Value*> paddingBias(OnnxNode& n, Value* mask, const DimExpr& batch, const AttentionSizes& sizes) {
  const Dims given = OnnxNode::dims(mask);
  if (given.size() == 2 || given.size() == 3) {
    QC_ASSIGN(mask, n.reshapeToDims(mask, given.size() == 2 ? Dims{given[0], 1, 1, given[1]} : Dims{given[0], 1, given[1], given[2]}));
    QC_ASSIGN(Value * zero, n.create("cast", {n.constantValue(Tensor::ofInts({}, Ints{0}))}, {{"to", mask->type().dtype}}));
    QC_ASSIGN(Value * seen, n.create("greater", {mask, zero}));
    return filter(n, seen);
  }
  const bool two = given.size() == 1 && given[0] == batch * 2;
  if (given.size() != 1 || !(two || given[0] == batch)) return n.error(ErrorCode::kUnsupported, "a mask {}", mask->type().str());
  QC_ASSIGN(Value * keys, countedUp(n, 0, sizes.keys));
  const auto part = [&](bool second) -> Result<Value*> {
    Value* v = mask;
    if (two) {
      QC_ASSIGN(v, n.reshapeToDims(mask, {2, batch}));
      QC_ASSIGN(v, slicedAlong(n, v, 0, second ? 1 : 0, 1));
    }
    return n.reshapeToDims(v, {batch, 1, 1, 1});
  };
  QC_ASSIGN(Value * ends, part(false));
  QC_ASSIGN(Value * seen, compared(n, "less", keys, ends));
  if (two) {
    QC_ASSIGN(Value * begins, part(true));
    QC_ASSIGN(Value * begun, compared(n, "greater_equal", keys, begins));
    QC_ASSIGN(seen, n.create("and", {seen, begun}));
  }
  return filter(n, seen);
}

struct Heads {
  Value *q, *k, *v;  // [batch, heads, queries or keys, size]
};

// softmax(scale * q k' + what masks add) v: [batch, queries, heads * size]
Result<Value*> attended(OnnxNode& n, const Heads& h, Value* mask, Value* bias, const DimExpr& past) {
  const Dims qs = OnnxNode::dims(h.q), ks = OnnxNode::dims(h.k);
  const AttentionSizes sizes{qs[2], ks[2], past};
  QC_ASSIGN(const int64_t width, n.fixedSize(qs[3], "the size of a head"));
  QC_ASSIGN(double scale, n.real("scale", 0.0));
  QC_ASSIGN(const int64_t causal, n.integer("unidirectional", 0));
  if (scale == 0) scale = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(width, 1)));
  QC_ASSIGN(Value * keys, n.create("transpose", {h.k}, {{"perm", Ints{0, 1, 3, 2}}}));
  QC_ASSIGN(Value * scores, n.create("matmul", {h.q, keys}));
  QC_ASSIGN(scores, n.create("mul", {scores, n.scalar(static_cast<float>(scale))}));
  if (mask) {
    QC_ASSIGN(Value * hidden, paddingBias(n, mask, qs[0], sizes));
    QC_ASSIGN(scores, n.create("add", {scores, hidden}));
  }
  if (causal) {
    QC_ASSIGN(Value * later, causalBias(n, sizes));
    QC_ASSIGN(scores, n.create("add", {scores, later}));
  }
  QC_ASSIGN(scores, withBias(n, scores, bias));
  QC_ASSIGN(Value * p, n.create("softmax", {scores}, {{"axis", int64_t{3}}}));
  QC_ASSIGN(Value * y, n.create("matmul", {p, h.v}));
  return joinHeads(n, y);
}

// x, weights [inputs, q + k + v], bias?, mask?, past [2, batch, heads, past, size]?, attention bias? -> y, present
Status contribAttention(OnnxNode& n) {
  QC_ASSIGN(const int64_t heads, n.integer("num_heads"));
  QC_ASSIGN(const int64_t rotary, n.integer("do_rotary", 0));
  QC_ASSIGN(const int64_t shared, n.integer("past_present_share_buffer", 0));
  if (rotary || shared) return n.error(ErrorCode::kUnsupported, "{}", rotary ? "do_rotary" : "past_present_share_buffer");
  if (n.type(0).rank() != 3 || n.type(1).rank() != 2)
    return n.error(ErrorCode::kInvalidModel, "operands {} and {}", n.type(0).str(), n.type(1).str());
  QC_ASSIGN(const int64_t columns, n.fixedSize(n.dims(1)[1], "the size of all heads"));
  QC_ASSIGN(const Ints widths, n.integers("qkv_hidden_sizes", Ints(3, columns / 3)));
  if (widths.size() != 3 || widths[0] + widths[1] + widths[2] != columns)
    return n.error(ErrorCode::kInvalidModel, "qkv_hidden_sizes [{}] of {} columns", fmt::join(widths, ", "), columns);
  QC_ASSIGN(Value * all, n.create("matmul", {n.input(0), n.input(1)}));
  QC_ASSIGN(all, withBias(n, all, n.input(2)));
  Value* parts[3];
  int64_t first = 0;
  for (size_t i = 0; i < 3; ++i) {
    QC_ASSIGN(parts[i], slicedAlong(n, all, 2, first, widths[i]));
    QC_ASSIGN(parts[i], splitHeads(n, parts[i], heads));
    first += widths[i];
  }
  Heads h{parts[0], parts[1], parts[2]};
  DimExpr past = 0;
  if (Value* before = n.input(4)) {
    const Dims s = OnnxNode::dims(before);
    if (s.size() != 5) return n.error(ErrorCode::kInvalidModel, "past {}", before->type().str());
    past = s[3];
    for (const auto& [v, index] : {std::pair(&h.k, 0), std::pair(&h.v, 1)}) {
      QC_ASSIGN(Value * one, slicedAlong(n, before, 0, index, 1));
      QC_ASSIGN(one, n.reshapeToDims(one, {s[1], s[2], s[3], s[4]}));
      QC_ASSIGN(*v, behindPast(n, one, *v));
    }
  }
  Value* present = nullptr;
  if (n.outputUsed(1)) {
    Value* both[2];
    for (const auto& [v, index] : {std::pair(h.k, 0), std::pair(h.v, 1)}) {
      const Dims s = OnnxNode::dims(v);
      QC_ASSIGN(both[index], n.reshapeToDims(v, {1, s[0], s[1], s[2], s[3]}));
    }
    QC_ASSIGN(present, n.create("concat", {both[0], both[1]}, {{"axis", int64_t{0}}}));
  }
  QC_ASSIGN(Value * y, attended(n, h, n.input(3), n.input(5), past));
  return n.setOutputs({y, present});
}

// query, key, value, bias?, mask?, attention bias?, past key?, past value? -> y, present key, present value
Status multiHeadAttention(OnnxNode& n) {
  QC_ASSIGN(const int64_t heads, n.integer("num_heads"));
  if (!n.input(1) || !n.input(2) || n.type(0).rank() != 3)
    return n.error(ErrorCode::kUnsupported, "queries, keys and values in one tensor, {}", n.type(0).str());
  Value* parts[3];
  int64_t first = 0;
  for (int i = 0; i < 3; ++i) {
    Value* v = n.input(i);
    if (v->type().rank() == 3 && n.input(3)) {
      QC_ASSIGN(const int64_t width, n.fixedSize(OnnxNode::dims(v)[2], "the size of all heads"));
      QC_ASSIGN(Value * bias, slicedAlong(n, n.input(3), 0, first, width));
      QC_ASSIGN(v, n.create("add", {v, bias}));
      first += width;
    }
    QC_ASSIGN(parts[i], splitHeads(n, v, heads));
  }
  const DimExpr past = n.input(6) ? n.dims(6)[2] : DimExpr(0);
  QC_ASSIGN(Value * k, behindPast(n, n.input(6), parts[1]));
  QC_ASSIGN(Value * v, behindPast(n, n.input(7), parts[2]));
  QC_ASSIGN(Value * y, attended(n, {parts[0], k, v}, n.input(4), n.input(5), past));
  return n.setOutputs({y, k, v});
}

// x, positions [batch, sequence] or the first one alone [1], tables of cos and sin [places, pairs]
Status contribRotaryEmbedding(OnnxNode& n) {
  QC_ASSIGN(const int64_t interleaved, n.integer("interleaved", 0));
  QC_ASSIGN(const int64_t partial, n.integer("rotary_embedding_dim", 0));
  QC_ASSIGN(int64_t heads, n.integer("num_heads", 0));
  QC_ASSIGN(const double scale, n.real("scale", 1.0));
  QC_ASSIGN(const int64_t packed, n.integer("is_packed_batching", 0));
  if (packed || scale != 1.0) return n.error(ErrorCode::kUnsupported, "{}", packed ? "is_packed_batching" : "a scale");
  const Dims sizes = n.dims(0), table = n.dims(2);
  if ((sizes.size() != 3 && sizes.size() != 4) || table.size() != 2 || n.type(1).rank() > 2)
    return n.error(ErrorCode::kInvalidModel, "operands {}, {} and {}", n.type(0).str(), n.type(1).str(), n.type(2).str());
  QC_ASSIGN(const int64_t pairs, n.fixedSize(table[1], "the number of pairs"));
  if (sizes.size() == 3 && (!heads || !partial)) {
    QC_ASSIGN(const int64_t width, n.fixedSize(sizes[2], "the size of all heads"));
    heads = std::max<int64_t>(1, width / std::max<int64_t>(1, 2 * pairs));
  }
  Value* positions = n.input(1);
  if (n.type(1).rank() < 2) {
    QC_ASSIGN(Value * counted, countedUp(n, 0, sizes[sizes.size() - 2]));
    QC_ASSIGN(positions, n.create("add", {counted, positions}));
    QC_ASSIGN(positions, n.reshapeToDims(positions, {1, sizes[sizes.size() - 2]}));
  }
  QC_ASSIGN(Value * cos, n.create("gather", {n.input(2), positions}, {{"axis", int64_t{0}}}));
  QC_ASSIGN(Value * sin, n.create("gather", {n.input(3), positions}, {{"axis", int64_t{0}}}));
  QC_ASSIGN(Value * y, rotated(n, n.input(0), sizes.size() == 3 ? heads : 0, {cos, sin, 2 * pairs, interleaved != 0}));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxContribAttentionOps() {
  static const std::vector<OnnxOp> kOps = [] {
    std::vector<OnnxOp> rows = {
        {"Attention", 2, 6, contribAttention},
        {"MultiHeadAttention", 1, 8, multiHeadAttention},
        {"RotaryEmbedding", 4, 4, contribRotaryEmbedding},
    };
    for (OnnxOp& row : rows) row.domain = "com.microsoft", row.freeDims = true;
    return rows;
  }();
  return kOps;
}

}  // namespace qc
