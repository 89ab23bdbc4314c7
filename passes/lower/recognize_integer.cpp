// recognize-integer: integer layers as ONNX writes them become layers between quantize and dequantize, so that models quantized at run
// time by other tools take the same way as ours.
//   mul(cast(matmul(sub(cast q, cast z), W)), mul(s, sw))   ->  matmul(dequantize_with(q, s, z), dequantize(w of scale sw))
//   mul(cast(matmul(..)), sw) with a constant zero point  ->  the same with s = 1
//   conv likewise; also with the zero point taken off afterwards: sub(matmul(cast q, W), mul(z, sums of W))
//   cast(clip(round(x / s) + cast z, qmin, qmax)) to 8 bits, in front of one  ->  quantize_with(x, s, z)
// The latter makes z of NaN, of which ONNX says nothing.
// W are integer constants with their own zero point taken off; they must fit in 8 bits, with a zero point or without.  Lowering makes exact
// integer sums of it again and scales them in the same order.  Tests: tests/golden/recognize_integer.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "ir/interp.h"
#include "passes/graph_util.h"
#include "passes/integer_weights.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"

namespace qc {
namespace {

// The 8-bit integers behind a cast to s32.
Value* narrowSource(Value* v) { return v && v->producer() ? widenedIntegers(*v->producer()) : nullptr; }

// The two operands of a binary node: the one that `is` accepts first.
template <class F>
std::pair<Value*, Value*> operandsBy(const Node& node, const F& is) {
  for (const int i : {0, 1})
    if (is(node.operand(i))) return {node.operand(i), node.operand(1 - i)};
  return {nullptr, nullptr};
}

Node* producerOf(Value* v, std::string_view op) { return v && v->producer() && v->producer()->is(op) ? v->producer() : nullptr; }

struct IntegerLayer {
  Node* product = nullptr;  // matmul or conv in s32
  Value* integers = nullptr;
  Value* zeroPoint = nullptr;  // s32; null: none
};

bool isWeight(const Value* v) { return IntegerWeights::of(v).has_value(); }

// product(cast q - z, W)
bool matchCentred(Node* product, IntegerLayer& layer) {
  if (!product || !(product->is("matmul") || product->is("conv")) || !isWeight(product->operand(1))) return false;
  layer.product = product;
  Value* x = product->operand(0);
  if ((layer.integers = narrowSource(x))) return true;
  const Node* sub = producerOf(x, "sub");
  if (!sub || !(layer.integers = narrowSource(sub->operand(0)))) return false;
  layer.zeroPoint = sub->operand(1);
  return isPlain(layer.zeroPoint, DType::s32);
}

// Where along a dim the elements of a tensor lie, one after the other: of `size` places, with `inner` elements in each.
class InnerIndex {
 public:
  explicit InnerIndex(int64_t size, int64_t inner = 1) : size_(usize(size)), inner_(inner) {}
  size_t next() {
    const size_t at = at_;
    if (++within_ == inner_) {
      within_ = 0;
      if (++at_ == size_) at_ = 0;
    }
    return at;
  }

 private:
  size_t size_, at_ = 0;
  int64_t inner_, within_ = 0;
};

// matmul(cast q, W) - z * sums, where sums are those of the columns of W
bool matchShifted(Node* sub, IntegerLayer& layer) {
  if (!sub || !sub->is("sub")) return false;
  Node* product = producerOf(sub->operand(0), "matmul");
  Node* shift = producerOf(sub->operand(1), "mul");
  if (!product || !shift || !isWeight(product->operand(1)) || product->operand(1)->type().rank() != 2) return false;
  if (!(layer.integers = narrowSource(product->operand(0)))) return false;
  const auto [sums, zero] = operandsBy(*shift, [](const Value* v) { return isWeight(v); });
  if (!sums || !isPlain(zero, DType::s32)) return false;
  const IntegerWeights w = *IntegerWeights::of(product->operand(1)), s = *IntegerWeights::of(sums);
  const int64_t columns = w.values->sizes()[1];
  if (s.values->numElements() != columns) return false;
  std::vector<int64_t> found(usize(columns), 0);
  InnerIndex column(columns);
  w.forEach([&](int32_t v) { found[column.next()] += v; });
  bool same = true;
  s.forEach([&](int32_t v) { same = same && found[column.next()] == v; });
  if (!same) return false;
  layer.product = product;
  layer.zeroPoint = zero;
  return true;
}

// Scales of the weights: one, or one per output channel; `spatial` dims behind the channel are ones.
std::optional<std::vector<float>> weightScales(const Value* v, int64_t channels, int spatial) {
  const Tensor* t = floatConstant(v);
  if (!t || (t->numElements() != 1 && t->numElements() != channels)) return std::nullopt;
  const int channelDim = t->rank() - 1 - spatial;
  if (t->numElements() != 1 && (channelDim < 0 || nth(t->sizes(), channelDim) != channels)) return std::nullopt;
  std::vector<float> scales = t->toFloats();
  const bool fine = std::all_of(scales.begin(), scales.end(), [](float s) { return s > 0 && std::isfinite(s); });
  return fine ? std::optional(std::move(scales)) : std::nullopt;
}

// Weights of 8 bits: s8 as they are where that holds them, else with a zero point, of the whole or of each output channel, that brings them
// there (u8 weights less their own).  Nothing: they need more bits.
struct NarrowWeights {
  Tensor values;
  std::vector<int32_t> zeroPoints;  // value = s8 - zero point
};
std::optional<NarrowWeights> narrowWeights(const IntegerWeights& w, int64_t channels, int channelAxis) {
  const std::vector<int64_t>& sizes = w.values->sizes();
  if (w.values->dtype() == DType::s8 && !w.zero) return NarrowWeights{*w.values, {0}};
  int64_t inner = 1;  // elements between two channels
  for (size_t d = usize(channelAxis) + 1; d < sizes.size(); ++d) inner *= sizes[d];
  std::vector<std::pair<int32_t, int32_t>> ranges(usize(channels), {0, 0});
  std::pair<int32_t, int32_t> whole{0, 0};
  InnerIndex channel(channels, inner);
  w.forEach([&](int32_t v) {
    auto& [low, high] = ranges[channel.next()];
    low = std::min(low, v), high = std::max(high, v);
  });
  for (const auto& [low, high] : ranges) whole = {std::min(whole.first, low), std::max(whole.second, high)};
  const auto zeroFor = [](const std::pair<int32_t, int32_t>& r) -> std::optional<int32_t> {
    if (r.first >= -128 && r.second <= 127) return 0;
    if (int64_t{r.second} - r.first > 255) return std::nullopt;
    return std::clamp(-128 - r.first, -128, 127);
  };
  NarrowWeights narrow{Tensor(DType::s8, sizes), {}};
  if (const auto zero = zeroFor(whole)) {
    narrow.zeroPoints = {*zero};
  } else {
    for (const auto& range : ranges) {
      const auto own = zeroFor(range);
      if (!own) return std::nullopt;
      narrow.zeroPoints.push_back(*own);
    }
  }
  if (narrow.zeroPoints.size() == 1) ranges = {whole};
  for (size_t c = 0; c < ranges.size(); ++c)
    if (ranges[c].first + narrow.zeroPoints[c] < -128 || ranges[c].second + narrow.zeroPoints[c] > 127)
      return std::nullopt;  // a zero point of 8 bits does not reach it
  int8_t* to = narrow.values.mutableAs<int8_t>().data();
  InnerIndex set(std::ssize(ranges), inner);
  w.forEach([&](int32_t v) { *to++ = static_cast<int8_t>(v + narrow.zeroPoints[set.next()]); });
  return narrow;
}

bool isRowParameter(const Value* v, const Value* x) {
  if (isSingle(v)) return true;
  const Shape &own = v->type().shape, &rows = x->type().shape;
  return own.size() == rows.size() && own.back() == Dim(1) && std::equal(own.begin(), own.end() - 1, rows.begin());
}

// A scalar parameter in the shape that scalars have.
Result<Value*> asScalar(Builder& b, Value* v) {
  if (!isSingle(v) || v->type().rank() == 0) return v;
  return b.create("reshape", {v}, {{"shape", std::vector<int64_t>()}});
}

Result<bool> recognizeLayer(const Match& m, Rewriter& rw) {
  Node* root = m.root();
  if (!isPlain(root->result(), DType::f32)) return false;
  for (const int side : {0, 1}) {
    Node* cast = producerOf(root->operand(side), "cast");
    Value* factor = root->operand(1 - side);
    Node* scales = producerOf(factor, "mul");
    if (!cast || (!scales && !floatConstant(factor))) continue;
    IntegerLayer layer;
    if (!matchCentred(cast->operand(0)->producer(), layer)) layer = {};
    if (!layer.product && !matchShifted(cast->operand(0)->producer(), layer)) continue;
    Value* w = layer.product->operand(1);
    const bool conv = layer.product->is("conv");
    if (layer.product->operand(2) || layer.product->operand(3) || (!conv && w->type().rank() != 2)) continue;
    const int axis = conv ? 0 : 1, spatial = conv ? w->type().rank() - 2 : 0;
    // Where all is known, the factor is that of the weights and the input's scale 1: the same product.
    Value *weightScale = factor, *scale = nullptr;
    if (scales) std::tie(weightScale, scale) = operandsBy(*scales, [](const Value* v) { return floatConstant(v) != nullptr; });
    if (!weightScale || (scale && !isPlain(scale, DType::f32)) || (scales && !scale)) continue;
    const int64_t channels = nth(w->type().sizes(), axis);
    auto values = weightScales(weightScale, channels, spatial);
    auto narrow = narrowWeights(*IntegerWeights::of(w), channels, axis);
    if (!values || !narrow || (scale && !isRowParameter(scale, layer.integers)) ||
        (layer.zeroPoint && !isRowParameter(layer.zeroPoint, layer.integers)))
      continue;
    if (narrow->zeroPoints.size() > 1) values->resize(narrow->zeroPoints.size(), values->front());
    QuantParams q{DType::s8, -128, 127, values->size() == 1 ? -1 : axis, 0, *values, narrow->zeroPoints};
    Builder b = rw.before(root);
    if (!scale) scale = b.constant("one", Tensor::ofFloats({}, std::vector{1.0f}));
    QC_ASSIGN(Value * s, asScalar(b, scale));
    Value* z = layer.zeroPoint;
    if (z) {
      QC_ASSIGN(z, asScalar(b, z));
    }
    QC_ASSIGN(Value * x, b.create("dequantize_with", {layer.integers, s, z}));
    Value* integers = b.constant(w->name() + "_s8", std::move(narrow->values), std::make_shared<const QuantParams>(std::move(q)));
    QC_ASSIGN(Value * weights, b.create("dequantize", {integers}));
    b.at(layer.product->location());
    QC_ASSIGN(Value * y, b.create(layer.product->op(), {x, weights}, layer.product->attrs()));
    if (y->type() != root->result()->type()) return false;
    rw.replace(root, {y});
    return true;
  }
  return false;
}

// What round(x / s), with z added or none, rounds, scales and adds.
struct Scaling {
  Value *x = nullptr, *scale = nullptr, *zeroPoint = nullptr;
};
std::optional<Scaling> matchScaling(Value* v) {
  Scaling found;
  Node* round = producerOf(v, "round");
  if (const Node* add = producerOf(v, "add")) {
    const auto [rounded, zero] = operandsBy(*add, [](Value* o) { return producerOf(o, "round") != nullptr; });
    Node* cast = producerOf(zero, "cast");
    round = producerOf(rounded, "round");
    if (!cast || !isPlain(cast->result(), DType::f32)) return std::nullopt;
    found.zeroPoint = cast->operand(0);
    const DType type = found.zeroPoint->type().dtype;
    if (found.zeroPoint->type().isQuantized() || !(type == DType::u8 || type == DType::s8)) return std::nullopt;
  }
  const Node* div = round ? producerOf(round->operand(0), "div") : nullptr;
  if (!div) return std::nullopt;
  found.x = div->operand(0);
  found.scale = div->operand(1);
  if (found.zeroPoint && isSingle(found.zeroPoint) != isSingle(found.scale)) return std::nullopt;
  const bool fits = isPlain(found.x, DType::f32) && isPlain(found.scale, DType::f32) && isRowParameter(found.scale, found.x) &&
                    (!found.zeroPoint || isRowParameter(found.zeroPoint, found.x));
  return fits ? std::optional(found) : std::nullopt;
}

// Where such a layer reads the integers: alone, the arithmetic says it as well, and a float model stays one.
Result<bool> recognizeQuantize(const Match& m, Rewriter& rw) {
  Node* root = m.root();
  const auto users = root->result()->users();
  if (std::none_of(users.begin(), users.end(), [](const Node* user) { return user->is("dequantize_with"); })) return false;
  const TensorType& type = root->result()->type();
  const Node* clip = producerOf(root->operand(0), "clip");
  if (type.isQuantized() || !(type.dtype == DType::u8 || type.dtype == DType::s8) || !clip) return false;
  const auto found = matchScaling(clip->operand(0));
  const IntRange range = rangeOf(type.dtype);
  const double low = clip->real("min"), high = clip->real("max");
  const auto isBound = [&](double v) {
    return v == std::nearbyint(v) && v >= static_cast<double>(range.min) && v <= static_cast<double>(range.max);
  };
  if (!found || !isBound(low) || !isBound(high) || low >= high) return false;
  Builder b = rw.before(root);
  QC_ASSIGN(Value * s, asScalar(b, found->scale));
  Value* z = found->zeroPoint;
  if (z) {
    QC_ASSIGN(z, asScalar(b, z));
  }
  QC_ASSIGN(Value * q, b.create("quantize_with", {found->x, s, z},
                                {{"storage", type.dtype}, {"qmin", static_cast<int64_t>(low)}, {"qmax", static_cast<int64_t>(high)}}));
  if (q->type() != type) return false;
  rw.replace(root, {q});
  return true;
}

}  // namespace

Status recognizeInteger(Graph& graph, PassContext& cx) {
  static const std::vector<RewriteRule> kRules = {{"layer", op("mul"), recognizeLayer}, {"quantize", op("cast"), recognizeQuantize}};
  return applyRules(kRules, graph, cx);
}

}  // namespace qc
