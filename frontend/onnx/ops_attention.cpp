// Attention and RotaryEmbedding, which transformers of opset 23 and later hold as single nodes, as the ops they stand for.
#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/onnx/converters.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr int64_t kMaxMask = int64_t{1} << 26;  // elements of a constant mask

Result<Value*> transposed(OnnxNode& n, Value* v, const Ints& perm) { return n.create("transpose", {v}, {{"perm", perm}}); }

Result<Value*> sliced(OnnxNode& n, Value* v, size_t dim, int64_t start, int64_t size, int64_t step = 1) {
  Ints starts(usize(v->type().rank()), 0), sizes = v->type().sizes(), steps(starts.size(), 1);
  starts[dim] = start;
  sizes[dim] = size;
  steps[dim] = step;
  return n.create("slice", {v}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}});
}

// [batch, sequence, heads * size] -> [batch, heads, sequence, size]; four dims are in that form already.
Result<Value*> splitHeads(OnnxNode& n, Value* v, const char* attribute) {
  const Ints sizes = v->type().sizes();
  if (sizes.size() == 4) return v;
  QC_ASSIGN(const int64_t heads, n.integer(attribute));
  if (sizes.size() != 3 || heads < 1 || sizes[2] % heads)
    return n.error(ErrorCode::kInvalidModel, "{} of {} in {}", heads, attribute, v->type().str());
  QC_ASSIGN(v, n.reshape(v, {sizes[0], sizes[1], heads, sizes[2] / heads}));
  return transposed(n, v, {0, 2, 1, 3});
}

// Every head `times` in a row.
Result<Value*> repeatHeads(OnnxNode& n, Value* v, int64_t times) {
  if (times == 1) return v;
  const Ints s = v->type().sizes();
  QC_ASSIGN(v, n.reshape(v, {s[0], s[1], 1, s[2], s[3]}));
  QC_ASSIGN(v, n.create("expand", {v}, {{"shape", Ints{s[0], s[1], times, s[2], s[3]}}}));
  return n.reshape(v, {s[0], s[1] * times, s[2], s[3]});
}

struct Sizes {
  int64_t queries, keys, past;
};

// Which keys a query may see by its place: causal, and within a window to either side (-1: any distance).
struct Places {
  bool causal = false;
  int64_t left = -1, right = -1;
  bool restrict() const { return causal || left >= 0 || right >= 0; }
  bool allow(int64_t distance) const {
    return !(causal && distance > 0) && !(left >= 0 && distance < -left) && !(right >= 0 && distance > right);
  }
};

Result<Value*> placeBias(OnnxNode& n, const Places& places, const Sizes& sizes) {
  if (sizes.queries > 0 && sizes.keys > kMaxMask / sizes.queries)
    return n.error(ErrorCode::kResource, "a mask of {} x {}", sizes.queries, sizes.keys);
  Tensor bias(DType::f32, {sizes.queries, sizes.keys});
  auto values = bias.mutableAs<float>();
  for (int64_t q = 0; q < sizes.queries; ++q)
    for (int64_t k = 0; k < sizes.keys; ++k) nth(values, q * sizes.keys + k) = places.allow(k - q - sizes.past) ? 0.0f : -kInf;
  return n.constantValue(std::move(bias));
}

Result<Value*> biasWhere(OnnxNode& n, Value* allowed) { return n.create("where", {allowed, n.scalar(0), n.scalar(-kInf)}); }

// What the mask operand adds; keys that it does not reach are not seen.
Result<Value*> maskBias(OnnxNode& n, Value* mask, const Sizes& sizes) {
  if (mask->type().dtype == DType::boolean) {
    QC_ASSIGN(mask, biasWhere(n, mask));
  }
  const int64_t missing = sizes.keys - mask->type().sizes().back();
  if (missing <= 0) return mask;
  Ints pads(2 * usize(mask->type().rank()), 0);
  pads.back() = missing;
  return n.create("pad", {mask}, {{"pads", pads}, {"value", -static_cast<double>(kInf)}});
}

// Keys behind the valid ones of each batch entry; with causal masks the last query sees the last valid key.
Result<Value*> lengthBias(OnnxNode& n, Value* lengths, bool causal, const Sizes& sizes) {
  if (sizes.queries > 0 && sizes.keys > kMaxMask / sizes.queries)
    return n.error(ErrorCode::kResource, "a mask of {} x {}", sizes.queries, sizes.keys);
  Ints least;  // the length from which key k is seen by query q
  for (int64_t q = 0; q < (causal ? sizes.queries : 1); ++q)
    for (int64_t k = 0; k < sizes.keys; ++k) least.push_back(causal ? std::max(k + 1, k - q + sizes.queries) : k + 1);
  Value* bound = n.constantValue(Tensor::ofInts({causal ? sizes.queries : 1, sizes.keys}, least));
  QC_ASSIGN(lengths, n.reshape(lengths, {lengths->type().numElements(), 1, 1, 1}));
  QC_ASSIGN(Value * seen, n.create("less_equal", {bound, lengths}));
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

Result<Value*> withPast(OnnxNode& n, Value* present, int past) {
  if (!n.input(past)) return present;
  return n.create("concat", {n.input(past), present}, {{"axis", int64_t{2}}});
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
  QC_ASSIGN(k, withPast(n, k, 4));
  QC_ASSIGN(v, withPast(n, v, 5));
  Value *presentKey = k, *presentValue = v;
  const Ints qs = q->type().sizes(), ks = k->type().sizes();
  const Sizes sizes{qs[2], ks[2], n.input(4) && n.type(4).rank() == 4 ? n.type(4).sizes()[2] : 0};
  if (ks[1] < 1 || qs[1] % ks[1]) return n.error(ErrorCode::kInvalidModel, "{} heads of queries for {} of keys", qs[1], ks[1]);
  QC_ASSIGN(k, repeatHeads(n, k, qs[1] / ks[1]));
  QC_ASSIGN(v, repeatHeads(n, v, qs[1] / ks[1]));
  QC_ASSIGN(const double scale, n.real("scale", 1 / std::sqrt(static_cast<double>(std::max<int64_t>(qs[3], 1)))));
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
    QC_ASSIGN(y, transposed(n, y, {0, 2, 1, 3}));
    const Ints s = y->type().sizes();
    QC_ASSIGN(y, n.reshape(y, {s[0], s[1], s[2] * s[3]}));
  }
  Value* const scores[] = {product, capped, biased, p};
  if (mode < 0 || mode > 3) return n.error(ErrorCode::kInvalidModel, "qk_matmul_output_mode {}", mode);
  return n.setOutputs({y, presentKey, presentValue, scores[mode]});
}

// cos or sin of each place: [batch, sequence, 1, half]
Result<Value*> angles(OnnxNode& n, int operand, int64_t half) {
  Value* cache = n.input(operand);
  if (n.input(3)) {
    QC_ASSIGN(cache, n.create("gather", {cache, n.input(3)}, {{"axis", int64_t{0}}}));
  }
  const Ints s = cache->type().sizes();
  if (s.size() != 3 || s[2] != half) return n.error(ErrorCode::kInvalidModel, "angles {} for {} pairs", cache->type().str(), half);
  return n.reshape(cache, {s[0], s[1], 1, s[2]});
}

Status rotaryEmbedding(OnnxNode& n) {
  QC_ASSIGN(const int64_t interleaved, n.integer("interleaved", 0));
  QC_ASSIGN(const int64_t partial, n.integer("rotary_embedding_dim", 0));
  Value* x = n.input(0);
  const Ints given = x->type().sizes();
  if (given.size() == 4) {
    QC_ASSIGN(x, transposed(n, x, {0, 2, 1, 3}));
  } else {
    QC_ASSIGN(const int64_t heads, n.integer("num_heads"));
    if (given.size() != 3 || heads < 1 || given[2] % heads)
      return n.error(ErrorCode::kInvalidModel, "{} heads in {}", heads, x->type().str());
    QC_ASSIGN(x, n.reshape(x, {given[0], given[1], heads, given[2] / heads}));
  }
  const Ints sizes = x->type().sizes();
  const int64_t turned = partial ? partial : sizes[3], half = turned / 2;
  if (turned < 2 || turned % 2 || turned > sizes[3])
    return n.error(ErrorCode::kInvalidModel, "rotary_embedding_dim {} of {}", turned, sizes[3]);
  QC_ASSIGN(Value * cos, angles(n, 1, half));
  QC_ASSIGN(Value * sin, angles(n, 2, half));
  QC_ASSIGN(Value * a, sliced(n, x, 3, 0, half, interleaved ? 2 : 1));
  QC_ASSIGN(Value * b, sliced(n, x, 3, interleaved ? 1 : half, half, interleaved ? 2 : 1));
  QC_ASSIGN(Value * cosA, n.create("mul", {cos, a}));
  QC_ASSIGN(Value * sinB, n.create("mul", {sin, b}));
  QC_ASSIGN(Value * sinA, n.create("mul", {sin, a}));
  QC_ASSIGN(Value * cosB, n.create("mul", {cos, b}));
  QC_ASSIGN(Value * first, n.create("sub", {cosA, sinB}));
  QC_ASSIGN(Value * second, n.create("add", {sinA, cosB}));
  if (interleaved) {  // pairs side by side
    Ints pair = first->type().sizes();
    pair.push_back(1);
    QC_ASSIGN(first, n.reshape(first, pair));
    QC_ASSIGN(second, n.reshape(second, pair));
  }
  QC_ASSIGN(Value * y, n.create("concat", {first, second}, {{"axis", int64_t{interleaved ? 4 : 3}}}));
  QC_ASSIGN(y, n.reshape(y, {sizes[0], sizes[1], sizes[2], turned}));
  if (turned < sizes[3]) {
    QC_ASSIGN(Value * rest, sliced(n, x, 3, turned, sizes[3] - turned));
    QC_ASSIGN(y, n.create("concat", {y, rest}, {{"axis", int64_t{3}}}));
  }
  QC_ASSIGN(y, given.size() == 4 ? transposed(n, y, {0, 2, 1, 3}) : n.reshape(y, given));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxAttentionOps() {
  static const OnnxOp kOps[] = {
      {"Attention", 3, 7, attention},
      {"RotaryEmbedding", 3, 4, rotaryEmbedding},
  };
  return kOps;
}

}  // namespace qc
