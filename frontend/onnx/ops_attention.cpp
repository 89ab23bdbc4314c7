// Attention and RotaryEmbedding, which transformers of opset 23 and later hold as single nodes, as the ops they stand for.
#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/onnx/attention.h"
#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"

namespace qc {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int64_t kMaxMask = int64_t{1} << 26;  // elements of a constant mask

using Sizes = AttentionSizes;

Result<Value*> transposed(OnnxNode& n, Value* v, const Ints& perm) { return n.create("transpose", {v}, {{"perm", perm}}); }

Result<Value*> splitHeads(OnnxNode& n, Value* v, const char* attribute) {
  if (v->type().rank() == 4) return v;
  QC_ASSIGN(const int64_t heads, n.integer(attribute));
  return qc::splitHeads(n, v, heads);
}

// Every head `times` in a row.
Result<Value*> repeatHeads(OnnxNode& n, Value* v, int64_t times) {
  if (times == 1) return v;
  const Dims s = OnnxNode::dims(v);
  QC_ASSIGN(v, n.reshapeToDims(v, {s[0], s[1], 1, s[2], s[3]}));
  QC_ASSIGN(v, n.create("expand", {v}, {{"shape", Dims{s[0], s[1], times, s[2], s[3]}}}));
  return n.reshapeToDims(v, {s[0], s[1] * times, s[2], s[3]});
}

// [queries, keys] in one table, of a size that can be held.
Status checkMask(OnnxNode& n, const Sizes& sizes) {
  const int64_t queries = sizes.queries.constant().value_or(0), keys = sizes.keys.constant().value_or(0);
  if (queries > 0 && keys > kMaxMask / queries) return n.error(ErrorCode::kResource, "a mask of {} x {}", queries, keys);
  return {};
}

// `first` and those after it, one to a query: [queries, 1].
Result<Value*> countedQueries(OnnxNode& n, const DimExpr& first, const Sizes& sizes) {
  QC_ASSIGN(Value * places, countedUp(n, first, sizes.queries));
  return n.reshapeToDims(places, {sizes.queries, 1});
}

Result<Value*> biasWhere(OnnxNode& n, Value* allowed) { return n.create("where", {allowed, n.scalar(0), n.scalar(-kInf)}); }

// Which keys a query may see by its place: causal, and within a window to either side (-1: any distance).
struct Places {
  bool causal = false;
  int64_t left = -1, right = -1;
  bool restrict() const { return causal || left >= 0 || right >= 0; }
};

Result<Value*> placeBias(OnnxNode& n, const Places& places, const Sizes& sizes) {
  QC_TRY(checkMask(n, sizes));
  QC_ASSIGN(Value * keys, countedUp(n, 0, sizes.keys));
  QC_ASSIGN(Value * queries, countedQueries(n, sizes.past, sizes));
  QC_ASSIGN(Value * distance, n.create("sub", {keys, queries}));
  const auto least = places.left >= 0 ? -places.left : INT64_MIN;
  const auto most = places.causal ? 0 : places.right >= 0 ? places.right : INT64_MAX;
  Value* allowed = nullptr;
  const auto restrict = [&](std::vector<Value*> ordered) -> Status {
    QC_ASSIGN(Value * within, n.create("less_equal", std::move(ordered)));
    if (allowed) {
      QC_ASSIGN(within, n.create("and", {allowed, within}));
    }
    allowed = within;
    return {};
  };
  if (least != INT64_MIN) QC_TRY(restrict({n.constantValue(Tensor::ofInts({}, std::vector{least})), distance}));
  if (most != INT64_MAX || !allowed) QC_TRY(restrict({distance, n.constantValue(Tensor::ofInts({}, std::vector{most}))}));
  return biasWhere(n, allowed);
}

// What the mask operand adds; keys that it does not reach are not seen.
Result<Value*> maskBias(OnnxNode& n, Value* mask, const Sizes& sizes) {
  if (mask->type().dtype == DType::boolean) {
    QC_ASSIGN(mask, biasWhere(n, mask));
  }
  // Where the two are free and not known to differ they are the same size.
  const int64_t missing = (sizes.keys - mask->type().shape.back().expr()).constant().value_or(0);
  if (missing <= 0) return mask;
  Ints pads(2 * usize(mask->type().rank()), 0);
  pads.back() = missing;
  return n.create("pad", {mask}, {{"pads", pads}, {"value", -static_cast<double>(kInf)}});
}

// Keys behind the valid ones of each batch entry; with causal masks the last query sees the last valid key.
Result<Value*> lengthBias(OnnxNode& n, Value* lengths, bool causal, const Sizes& sizes) {
  QC_TRY(checkMask(n, sizes));
  QC_ASSIGN(Value * least, countedUp(n, 1, sizes.keys));  // the length from which key k is seen
  if (causal) {                                           // by query q
    QC_ASSIGN(Value * keys, countedUp(n, sizes.queries, sizes.keys));
    QC_ASSIGN(Value * queries, countedQueries(n, 0, sizes));
    QC_ASSIGN(Value * later, n.create("sub", {keys, queries}));
    QC_ASSIGN(least, n.create("max", {least, later}));
  }
  QC_ASSIGN(lengths, n.reshapeToDims(lengths, {product(OnnxNode::dims(lengths)), 1, 1, 1}));
  QC_ASSIGN(Value * seen, n.create("less_equal", {least, lengths}));
  return biasWhere(n, seen);
}

struct Bias {
  Value* value = nullptr;
  bool mayHideAll = false;  // some query may see no key
};

Result<Bias> attentionBias(OnnxNode& n, const Sizes& sizes) {
  Places places;
  QC_ASSIGN(const int64_t causal, n.integer("is_causal", 0));
  QC_ASSIGN(places.left, n.integer("left_window_size", -1));
  QC_ASSIGN(places.right, n.integer("right_window_size", -1));
  places.causal = causal != 0;
  std::vector<Value*> parts;
  if (n.input(6)) {
    if (places.left >= 0 || places.right >= 0) return n.error(ErrorCode::kUnsupported, "windows over keys of several lengths");
    QC_ASSIGN(Value * lengths, lengthBias(n, n.input(6), places.causal, sizes));
    parts.push_back(lengths);
  } else if (places.restrict()) {
    QC_ASSIGN(Value * place, placeBias(n, places, sizes));
    parts.push_back(place);
  }
  if (n.input(3)) {
    QC_ASSIGN(Value * mask, maskBias(n, n.input(3), sizes));
    parts.push_back(mask);
  }
  if (parts.empty()) return Bias{};
  Bias bias{parts[0], n.input(3) || n.input(6) || places.left >= 0 || places.right >= 0};
  for (size_t i = 1; i < parts.size(); ++i) {
    QC_ASSIGN(bias.value, n.create("add", {bias.value, parts[i]}));
  }
  return bias;
}

Result<Value*> softcapped(OnnxNode& n, Value* scores, double cap) {
  if (!(cap > 0)) return scores;
  Value* limit = n.scalar(static_cast<float>(cap));
  QC_ASSIGN(scores, n.create("div", {scores, limit}));
  QC_ASSIGN(scores, n.create("tanh", {scores}));
  return n.create("mul", {scores, limit});
}

Result<Value*> probabilities(OnnxNode& n, Value* scores, const Bias& bias) {
  const int64_t last = scores->type().rank() - 1;
  QC_ASSIGN(Value * p, n.create("softmax", {scores}, {{"axis", last}}));
  if (!bias.mayHideAll) return p;
  QC_ASSIGN(Value * largest, n.create("reduce_max", {bias.value}, {{"axes", Ints{bias.value->type().rank() - 1}}}));
  QC_ASSIGN(Value * hidden, n.create("equal", {largest, n.scalar(-kInf)}));
  return n.create("where", {hidden, n.scalar(0), p});
}

// Q, K, V, mask?, past key?, past value?, lengths? -> Y, present key, present value, scores
Status attention(OnnxNode& n) {
  for (int i = 0; i < 3; ++i)
    if (n.type(i).rank() != n.type(0).rank() || n.type(i).dtype != DType::f32)
      return n.error(ErrorCode::kInvalidModel, "operand {} is {}", i, n.type(i).str());
  QC_ASSIGN(Value * q, splitHeads(n, n.input(0), "q_num_heads"));
  QC_ASSIGN(Value * k, splitHeads(n, n.input(1), "kv_num_heads"));
  QC_ASSIGN(Value * v, splitHeads(n, n.input(2), "kv_num_heads"));
  QC_ASSIGN(k, behindPast(n, n.input(4), k));
  QC_ASSIGN(v, behindPast(n, n.input(5), v));
  Value *presentKey = k, *presentValue = v;
  const Dims qs = OnnxNode::dims(q), ks = OnnxNode::dims(k);
  const Sizes sizes{qs[2], ks[2], n.input(4) && n.type(4).rank() == 4 ? n.dims(4)[2] : 0};
  QC_ASSIGN(const int64_t qHeads, n.fixedSize(qs[1], "the number of heads"));
  QC_ASSIGN(const int64_t kHeads, n.fixedSize(ks[1], "the number of heads"));
  QC_ASSIGN(const int64_t width, n.fixedSize(qs[3], "the size of a head"));
  if (kHeads < 1 || qHeads % kHeads) return n.error(ErrorCode::kInvalidModel, "{} heads of queries for {} of keys", qHeads, kHeads);
  QC_ASSIGN(k, repeatHeads(n, k, qHeads / kHeads));
  QC_ASSIGN(v, repeatHeads(n, v, qHeads / kHeads));
  QC_ASSIGN(const double scale, n.real("scale", 1 / std::sqrt(static_cast<double>(std::max<int64_t>(width, 1)))));
  QC_ASSIGN(const double cap, n.real("softcap", 0.0));
  QC_ASSIGN(const int64_t mode, n.integer("qk_matmul_output_mode", 0));
  Value* root = n.scalar(static_cast<float>(std::sqrt(scale)));
  QC_ASSIGN(q, n.create("mul", {q, root}));
  QC_ASSIGN(k, transposed(n, k, {0, 1, 3, 2}));
  QC_ASSIGN(k, n.create("mul", {k, root}));
  QC_ASSIGN(Value * product, n.create("matmul", {q, k}));
  QC_ASSIGN(Value * capped, softcapped(n, product, cap));
  QC_ASSIGN(const Bias bias, attentionBias(n, sizes));
  Value* biased = capped;
  if (bias.value) {
    QC_ASSIGN(biased, n.create("add", {capped, bias.value}));
  }
  QC_ASSIGN(Value * p, probabilities(n, biased, bias));
  QC_ASSIGN(Value * y, n.create("matmul", {p, v}));
  if (n.type(0).rank() == 3) {
    QC_ASSIGN(y, joinHeads(n, y));
  }
  Value* const scores[] = {product, capped, biased, p};
  if (mode < 0 || mode > 3) return n.error(ErrorCode::kInvalidModel, "qk_matmul_output_mode {}", mode);
  return n.setOutputs({y, presentKey, presentValue, scores[mode]});
}

// cos or sin of each place: [batch, sequence, half]
Result<Value*> angles(OnnxNode& n, int operand, int64_t half) {
  Value* cache = n.input(operand);
  if (n.input(3)) {
    QC_ASSIGN(cache, n.create("gather", {cache, n.input(3)}, {{"axis", int64_t{0}}}));
  }
  const Dims s = OnnxNode::dims(cache);
  if (s.size() != 3 || !(s[2] == half)) return n.error(ErrorCode::kInvalidModel, "angles {} for {} pairs", cache->type().str(), half);
  return cache;
}

Status rotaryEmbedding(OnnxNode& n) {
  QC_ASSIGN(const int64_t interleaved, n.integer("interleaved", 0));
  QC_ASSIGN(int64_t turned, n.integer("rotary_embedding_dim", 0));
  int64_t heads = 0;
  if (n.type(0).rank() != 4) {
    QC_ASSIGN(heads, n.integer("num_heads"));
  }
  if (!turned) {
    QC_ASSIGN(turned, n.fixedSize(n.dims(0).back(), "the size of a head"));
    if (heads > 0) turned /= heads;
  }
  QC_ASSIGN(Value * cos, angles(n, 1, turned / 2));
  QC_ASSIGN(Value * sin, angles(n, 2, turned / 2));
  QC_ASSIGN(Value * y, rotated(n, n.input(0), heads, {cos, sin, turned, interleaved != 0}));
  return n.setOutput(y);
}

}  // namespace

Result<Value*> slicedAlong(OnnxNode& n, Value* v, size_t dim, int64_t start, const DimExpr& size, int64_t step) {
  Ints starts(usize(v->type().rank()), 0), steps(starts.size(), 1);
  Dims sizes = OnnxNode::dims(v);
  starts[dim] = start;
  sizes[dim] = size;
  steps[dim] = step;
  return n.create("slice", {v}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}});
}

Result<Value*> splitHeads(OnnxNode& n, Value* v, int64_t heads) {
  const Dims sizes = OnnxNode::dims(v);
  if (sizes.size() == 4) return v;
  if (sizes.size() != 3 || heads < 1) return n.error(ErrorCode::kInvalidModel, "{} heads in {}", heads, v->type().str());
  QC_ASSIGN(const int64_t width, n.fixedSize(sizes[2], "the size of all heads"));
  if (width % heads) return n.error(ErrorCode::kInvalidModel, "{} heads in {}", heads, v->type().str());
  QC_ASSIGN(v, n.reshapeToDims(v, {sizes[0], sizes[1], heads, width / heads}));
  return transposed(n, v, {0, 2, 1, 3});
}

Result<Value*> joinHeads(OnnxNode& n, Value* v) {
  QC_ASSIGN(v, transposed(n, v, {0, 2, 1, 3}));
  const Dims s = OnnxNode::dims(v);
  return n.reshapeToDims(v, {s[0], s[1], s[2] * s[3]});
}

Result<Value*> causalBias(OnnxNode& n, const AttentionSizes& sizes) { return placeBias(n, {.causal = true}, sizes); }

Result<Value*> behindPast(OnnxNode& n, Value* past, Value* present) {
  if (!past) return present;
  return n.create("concat", {past, present}, {{"axis", int64_t{2}}});
}

Result<Value*> rotated(OnnxNode& n, Value* x, int64_t heads, const Rotation& rotation) {
  const Dims given = OnnxNode::dims(x);
  if (!heads && given.size() != 4) return n.error(ErrorCode::kInvalidModel, "no number of heads for {}", x->type().str());
  QC_ASSIGN(x, splitHeads(n, x, heads));
  const Dims sizes = OnnxNode::dims(x);  // [batch, heads, sequence, size]
  QC_ASSIGN(const int64_t width, n.fixedSize(sizes[3], "the size of a head"));
  const int64_t turned = rotation.turned, half = turned / 2, step = rotation.interleaved ? 2 : 1;
  if (turned < 2 || turned % 2 || turned > width) return n.error(ErrorCode::kInvalidModel, "rotary_embedding_dim {} of {}", turned, width);
  const auto forAllHeads = [&](Value* table) {
    const Dims s = OnnxNode::dims(table);
    return n.reshapeToDims(table, {s[0], 1, s[1], s[2]});
  };
  QC_ASSIGN(Value * cos, forAllHeads(rotation.cos));
  QC_ASSIGN(Value * sin, forAllHeads(rotation.sin));
  QC_ASSIGN(Value * a, slicedAlong(n, x, 3, 0, half, step));
  QC_ASSIGN(Value * b, slicedAlong(n, x, 3, rotation.interleaved ? 1 : half, half, step));
  QC_ASSIGN(Value * cosA, n.create("mul", {cos, a}));
  QC_ASSIGN(Value * sinB, n.create("mul", {sin, b}));
  QC_ASSIGN(Value * sinA, n.create("mul", {sin, a}));
  QC_ASSIGN(Value * cosB, n.create("mul", {cos, b}));
  QC_ASSIGN(Value * first, n.create("sub", {cosA, sinB}));
  QC_ASSIGN(Value * second, n.create("add", {sinA, cosB}));
  if (rotation.interleaved) {  // pairs side by side
    Dims pair = OnnxNode::dims(first);
    pair.emplace_back(1);
    QC_ASSIGN(first, n.reshapeToDims(first, pair));
    QC_ASSIGN(second, n.reshapeToDims(second, pair));
  }
  QC_ASSIGN(Value * y, n.create("concat", {first, second}, {{"axis", int64_t{rotation.interleaved ? 4 : 3}}}));
  QC_ASSIGN(y, n.reshapeToDims(y, {sizes[0], sizes[1], sizes[2], turned}));
  if (turned < width) {
    QC_ASSIGN(Value * rest, slicedAlong(n, x, 3, turned, width - turned));
    QC_ASSIGN(y, n.create("concat", {y, rest}, {{"axis", int64_t{3}}}));
  }
  return given.size() == 4 ? Result<Value*>(y) : joinHeads(n, y);
}

std::span<const OnnxOp> onnxAttentionOps() {
  static const OnnxOp kOps[] = {
      {.name = "Attention", .minInputs = 3, .maxInputs = 7, .convert = attention, .freeDims = true},
      {.name = "RotaryEmbedding", .minInputs = 3, .maxInputs = 4, .convert = rotaryEmbedding, .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
