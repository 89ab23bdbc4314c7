// canonicalize: the one form of each idiom that later passes look for.  Linear algebra on constants becomes `linear`
// with a bias; additions of per-channel constants become biases; explicit zero padding joins the conv behind it;
// data movement that does nothing, or twice, goes.  Rules are rows of the table at the end.
// Tests: tests/golden/canonicalize.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "ir/ops/resize.h"
#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/simplify/apply_rules.h"

namespace qc {
namespace {

bool isConstantLike(const Value* v) {
  return v && (v->constant() || (v->producer() && v->producer()->is("dequantize") && v->producer()->operand(0)->constant()));
}

// Transposes the two dims of a constant, or of the integer constant behind a dequantize.
Result<Value*> transposeMatrix(Builder& b, Value* w) {
  if (w->constant()) {
    QC_ASSIGN(Value * t, b.create("transpose", {w}, {{"perm", std::vector<int64_t>{1, 0}}}));
    return t;
  }
  QC_ASSIGN(Value * t, b.create("transpose", {w->producer()->operand(0)}, {{"perm", std::vector<int64_t>{1, 0}}}));
  return b.create("dequantize", {t});
}

// matmul(x, W[K,N]) -> linear(x, W^T[N,K]); W may be the transpose of the weight already, as a linear is written in ONNX
Result<bool> matmulToLinear(const Match& m, Rewriter& rw) {
  Node* matmul = m.root();
  Value* w = matmul->operand(1);
  if (w->type().rank() != 2 || matmul->operand(0)->type().rank() < 2) return false;
  if (w->type().dtype != DType::f32 || isConstantLike(matmul->operand(0))) return false;
  Node* swap = w->producer() && w->producer()->is("transpose") && w->producer()->integers("perm") == std::vector<int64_t>{1, 0}
                   ? w->producer()
                   : nullptr;
  if (!isConstantLike(swap ? swap->operand(0) : w)) return false;
  Builder b = rw.before(matmul);
  Value* transposed = swap ? swap->operand(0) : nullptr;
  if (!transposed) {
    QC_ASSIGN(transposed, transposeMatrix(b, w));
  }
  QC_ASSIGN(Value * y, b.create("linear", {matmul->operand(0), transposed}));
  rw.replace(matmul, {y});
  return true;
}

// Axis of output channels of a conv, conv_transpose or linear result.
int outputChannelAxis(const Node& node) { return node.is("linear") ? node.result()->type().rank() - 1 : channelAxis(node); }

// add(conv(x, w, b?), c) with per-channel c -> conv(x, w, b + c)
Result<bool> addToBias(const Match& m, Rewriter& rw) {
  Node* add = m.root();
  Node* conv = m.node("conv");
  if (conv->expr("post") || conv->operand("residual") || add->result()->type() != conv->result()->type()) return false;
  const Tensor* bias = floatConstant(conv->operand("bias"));
  if (conv->operand("bias") && !bias) return false;
  const int axis = outputChannelAxis(*conv);
  const auto addend = perChannelConstant(m["c"], conv->result()->type().shape, axis);
  if (!addend) return false;
  Tensor sum(DType::f32, {static_cast<int64_t>(addend->size())});
  for (size_t c = 0; c < addend->size(); ++c) sum.mutableAs<float>()[c] = (bias ? bias->as<float>()[c] : 0.0f) + (*addend)[c];
  Builder b = rw.before(add);
  b.at(conv->location());
  Value* biasValue = b.constant(m["c"]->name(), std::move(sum));
  QC_ASSIGN(Value * y, b.create(conv->op(), {conv->operand(0), conv->operand("w"), biasValue}, conv->attrs()));
  rw.replace(add, {y});
  return true;
}

// add(linear(x, w), dequantize(b)) -> linear(x, w, dequantize(b)) for a constant b of one integer per channel
Result<bool> addDequantizedBias(const Match& m, Rewriter& rw) {
  Node* add = m.root();
  Node* linear = m.node("linear");
  if (!isConstantLike(m["c"]) || linear->operand("bias") || linear->operand("residual") || linear->expr("post") ||
      add->result()->type() != linear->result()->type())
    return false;
  if (m["c"]->type().rank() != 1 || m["c"]->type().shape[0] != linear->result()->type().shape.back()) return false;
  Builder b = rw.before(add);
  b.at(linear->location());
  QC_ASSIGN(Value * y, b.create("linear", {linear->operand(0), linear->operand("w"), m["c"]}, linear->attrs()));
  rw.replace(add, {y});
  return true;
}

// conv(pad(x) with zeros on spatial dims) -> conv with larger pads
Result<bool> padIntoConv(const Match& m, Rewriter& rw) {
  Node* conv = m.root();
  Node* pad = m.node("pad");
  const int rank = conv->operand(0)->type().rank(), channel = channelAxis(*conv);
  const auto padding = constants(pad->attrs().dims("pads"));
  if (!padding || pad->string("mode") != "constant" || pad->real("value") != 0) return false;
  std::vector<int64_t> pads = conv->integers("pads");
  const auto spatial = usize(rank - 2);
  pads.resize(2 * spatial, 0);
  size_t s = 0;
  for (int d = 0; d < rank; ++d) {
    const int64_t begin = nth(*padding, d), end = nth(*padding, d + rank);
    if (d == 0 || d == channel) {
      if (begin || end) return false;
      continue;
    }
    pads[s] += begin;
    pads[s + spatial] += end;
    ++s;
  }
  AttrDict attrs = conv->attrs();
  attrs.set("pads", pads);
  std::vector<Value*> operands = conv->operands();
  operands[0] = pad->operand(0);
  Builder b = rw.before(conv);
  QC_ASSIGN(Value * y, b.create(conv->op(), std::move(operands), std::move(attrs)));
  rw.replace(conv, {y});
  return true;
}

bool isIdentityPermutation(const std::vector<int64_t>& perm) {
  for (size_t i = 0; i < perm.size(); ++i)
    if (perm[i] != static_cast<int64_t>(i)) return false;
  return true;
}

Result<bool> replaceWith(Rewriter& rw, Node* node, Value* value) {
  rw.replace(node, {value});
  return true;
}

Result<bool> simplifyTranspose(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  std::vector<int64_t> perm = node->integers("perm");
  Value* x = node->operand(0);
  if (isIdentityPermutation(perm)) return replaceWith(rw, node, x);
  if (Node* inner = x->producer(); inner && inner->is("transpose")) {
    const auto& first = inner->integers("perm");
    for (int64_t& p : perm) p = nth(first, p);
    QC_ASSIGN(Value * y, rw.before(node).create("transpose", {inner->operand(0)}, {{"perm", perm}}));
    return replaceWith(rw, node, y);
  }
  // Only dims of size 1 move: the order of the bytes stays.
  if (!x->type().isStatic() || (x->type().isQuantized() && x->type().quant->perChannel())) return false;
  std::vector<int64_t> moved;
  for (const int64_t p : perm)
    if (nth(x->type().shape, p).size() != 1) moved.push_back(p);
  if (!std::is_sorted(moved.begin(), moved.end())) return false;
  QC_ASSIGN(Value * y, rw.before(node).create("reshape", {x}, {{"shape", node->result()->type().sizes()}}));
  return replaceWith(rw, node, y);
}

Result<bool> simplifyReshape(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  Value* x = node->operand(0);
  if (node->result()->type() == x->type()) return replaceWith(rw, node, x);
  if (Node* inner = x->producer(); inner && inner->is("reshape")) {
    const TensorType& source = inner->operand(0)->type();
    if (source.isQuantized() && source.quant->perChannel()) return false;
    QC_ASSIGN(Value * y, rw.before(node).create("reshape", {inner->operand(0)}, node->attrs()));
    return replaceWith(rw, node, y);
  }
  return false;
}

Result<bool> dropIdentity(const Match& m, Rewriter& rw) { return replaceWith(rw, m.root(), m.root()->operand(0)); }

// slice, pad, expand, tile, cast, resize of everything by nothing
// Whether every result of a resize to its own size is the element at the same place, whatever the mode and the scales.
bool takesEveryElement(const Node& resize) {
  const std::vector<int64_t> sizes = resize.operand(0)->type().sizes();
  for (size_t d = 0; d < sizes.size(); ++d) {
    const auto taps = resizeTaps(resize.attrs(), d, sizes, sizes);
    for (size_t o = 0; o < taps.size(); ++o) {
      float own = 0;
      for (const ResizeTap& tap : taps[o]) {
        if (tap.weight != 0 && tap.index != static_cast<int64_t>(o)) return false;
        own += tap.weight;
      }
      if (own != 1) return false;
    }
  }
  return true;
}

Result<bool> dropNoOp(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  if (node->result()->type() != node->operand(0)->type()) return false;
  if (node->is("slice") && std::any_of(node->integers("steps").begin(), node->integers("steps").end(), [](int64_t s) { return s != 1; }))
    return false;
  if (node->is("resize") && (!node->operand(0)->type().isStatic() || !takesEveryElement(*node))) return false;
  return replaceWith(rw, node, node->operand(0));
}

// Whether every number of `narrow` is one of `wide`.
bool holdsAll(DType wide, DType narrow) {
  if (narrow == DType::boolean) return wide != DType::boolean;
  const int64_t bytes = sizeOf(narrow);
  if (isFloat(narrow)) return wide == DType::f64 ? narrow != DType::f64 : wide == DType::f32 && bytes == 2;
  if (isFloat(wide))
    return bytes <= (wide == DType::f64 ? 4 : wide == DType::f32 ? 2 : 1);  // their significands have 53, 24, 11 and 8 bits
  if (!isInteger(wide) || bytes == 8) return false;
  const IntRange all = rangeOf(wide), own = rangeOf(narrow);
  return all.min <= own.min && own.max <= all.max;
}

// cast(cast(x)) -> cast(x) where the first loses nothing
Result<bool> dropWidening(const Match& m, Rewriter& rw) {
  Node *node = m.root(), *inner = m.node("inner");
  Value* x = inner->operand(0);
  if (node->result()->type().isQuantized() || inner->result()->type().isQuantized() || x->type().isQuantized()) return false;
  if (!holdsAll(inner->result()->type().dtype, x->type().dtype)) return false;
  QC_ASSIGN(Value * y, rw.before(node).create("cast", {x}, node->attrs()));
  return replaceWith(rw, node, y);
}

// A scatter of no updates.
Result<bool> scatterNothing(const Match& m, Rewriter& rw) {
  const TensorType& updates = m.root()->operand(2)->type();
  if (!updates.isStatic() || updates.numElements() != 0 || m.root()->operand(0)->type() != m.root()->result()->type()) return false;
  return dropIdentity(m, rw);
}

// map(expand(x), y) -> map(x, y) where another operand has all dims: what broadcasts is not written out.
Result<bool> broadcastInMap(const Match& m, Rewriter& rw) {
  Node* map = m.root();
  std::vector<Value*> operands = map->operands();
  const Shape& shape = map->result()->type().shape;
  int whole = 0;
  for (const Value* v : operands) whole += v->type().shape == shape && !(v->producer() && v->producer()->is("expand"));
  if (whole == 0) return false;
  bool changed = false;
  for (Value*& v : operands) {
    if (!v->producer() || !v->producer()->is("expand")) continue;
    v = v->producer()->operand(0);
    changed = true;
  }
  if (!changed) return false;
  QC_ASSIGN(Node * made, rw.before(map).createNode("map", std::move(operands), map->attrs()));
  made->annotation() = map->annotation();
  rw.replace(map, {made->result()});
  return true;
}

Result<bool> concatOfOne(const Match& m, Rewriter& rw) {
  if (m.root()->numOperands() != 1) return false;
  return dropIdentity(m, rw);
}

// What leaves every bit of the other operand: 1 of a factor, divisor and exponent; of zeros the one that keeps -0 (x + +0 and x - -0 make
// +0 of it), of integers either.
bool isNeutral(const Node& node, const Value* v) {
  if (!node.is("add") && !node.is("sub")) return isScalar(v, 1);
  return isScalar(v, 0) && (isInteger(v->type().dtype) || std::signbit(*scalarConstant(v)) == node.is("add"));
}

// x + -0, x - 0, x * 1, x / 1, pow(x, 1) where the constant does not change the shape
Result<bool> dropNeutral(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  for (int i = 0; i < (node->def().has(kCommutative) ? 2 : 1); ++i)
    if (isNeutral(*node, node->operand(1 - i)) && node->operand(i)->type() == node->result()->type())
      return replaceWith(rw, node, node->operand(i));
  return false;
}

// max(x, 0) -> relu; max or min with a scalar -> clip; clip[0, inf] -> relu; clip(relu) and clip(clip) -> clip
Result<bool> boundToClip(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  if (node->numOperands() != 2 || node->result()->type().dtype != DType::f32) return false;
  for (int i = 0; i < 2; ++i) {
    const auto bound = scalarConstant(node->operand(i));
    Value* x = node->operand(1 - i);
    if (!bound || std::isnan(*bound) || x->type() != node->result()->type()) continue;
    QC_ASSIGN(Value * y, rw.before(node).create("clip", {x}, {{node->is("max") ? "min" : "max", *bound}}));
    return replaceWith(rw, node, y);
  }
  return false;
}

Result<bool> simplifyClip(const Match& m, Rewriter& rw) {
  Node* node = m.root();
  const double lo = node->real("min"), hi = node->real("max");
  constexpr double kInf = std::numeric_limits<double>::infinity();
  Node* inner = node->operand(0)->producer();
  if (lo == -kInf && hi == kInf) return dropIdentity(m, rw);
  if (lo == 0 && hi == kInf && node->result()->type().dtype == DType::f32) {
    QC_ASSIGN(Value * y, rw.before(node).create("relu", {node->operand(0)}));
    return replaceWith(rw, node, y);
  }
  if (!inner || !(inner->is("clip") || inner->is("relu")) || !onlyUser(node->operand(0))) return false;
  const double innerLo = inner->is("relu") ? 0 : inner->real("min"), innerHi = inner->is("relu") ? kInf : inner->real("max");
  const double newLo = std::clamp(innerLo, std::min(lo, hi), hi), newHi = std::max(std::min(innerHi, hi), lo);
  if (lo > hi || innerLo > innerHi || newLo > newHi) return false;
  QC_ASSIGN(Value * y, rw.before(node).create("clip", {inner->operand(0)}, {{"min", newLo}, {"max", newHi}}));
  return replaceWith(rw, node, y);
}

// Integers start, start + step, start + 2 step, ... with step != 0, or one integer; negative ones count from the end of a dim of `size`.
struct IndexRange {
  int64_t start = 0, step = 1, count = 0;
  static std::optional<IndexRange> of(const Tensor& indices, int64_t size) {
    IndexRange range{0, 1, indices.numElements()};
    if (range.count == 0) return std::nullopt;
    const bool wide = indices.dtype() == DType::s64;
    for (int64_t i = 0, before = 0; i < range.count; ++i) {
      const auto at = usize(i);
      int64_t index = wide ? indices.as<int64_t>()[at] : indices.as<int32_t>()[at];
      if (index < -size || index >= size) return std::nullopt;
      if (index < 0) index += size;
      if (i == 0) range.start = index;
      if (i == 1) range.step = index - before;
      if (i > 0 && (range.step == 0 || index - before != range.step)) return std::nullopt;
      before = index;
    }
    return range;
  }
};

// gather(x, constant range) -> slice(x), in the shape of the indices; a table of weights stays one
Result<bool> gatherToSlice(const Match& m, Rewriter& rw) {
  Node* gather = m.root();
  Value* x = gather->operand(0);
  const Tensor* indices = gather->operand(1)->constant();
  if (!indices || !x->type().isStatic() || isConstantLike(x)) return false;
  const auto axis = usize(gather->integer("axis"));
  std::vector<int64_t> sizes = x->type().sizes(), starts(sizes.size(), 0), steps(sizes.size(), 1);
  const auto range = IndexRange::of(*indices, sizes[axis]);
  if (!range) return false;
  sizes[axis] = range->count;
  starts[axis] = range->start;
  steps[axis] = range->step;
  Builder b = rw.before(gather);
  QC_ASSIGN(Value * y, b.create("slice", {x}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}}));
  if (y->type() != gather->result()->type()) {
    QC_ASSIGN(y, b.create("reshape", {y}, {{"shape", gather->result()->type().sizes()}}));
  }
  return replaceWith(rw, gather, y);
}

// gather_nd of every element of x's first dims in order, some dims of the result repeating them -> expand(reshape(x)): how masks are
// broadcast by exporters that write indices
Result<bool> gatherNdToExpand(const Match& m, Rewriter& rw) {
  Node* gather = m.root();
  Value* x = gather->operand(0);
  const Tensor* indices = gather->operand(1)->constant();
  if (!indices || indices->numElements() == 0 || gather->integer("batch_dims") != 0 || !x->type().isStatic() || isConstantLike(x) ||
      (x->type().isQuantized() && x->type().quant->perChannel()))
    return false;
  const std::vector<int64_t> sizes = x->type().sizes();
  const auto tuple = usize(indices->sizes().back());
  std::vector<int64_t> places(usize(indices->numElements()) / tuple, 0);
  int64_t all = 1;
  for (size_t k = 0; k < tuple; ++k) all *= sizes[k];
  for (size_t i = 0; i < places.size(); ++i)
    for (size_t k = 0; k < tuple; ++k) {
      const double index = indices->at(static_cast<int64_t>(i * tuple + k));
      const auto size = static_cast<double>(sizes[k]);
      if (index < -size || index >= size) return false;
      places[i] = places[i] * sizes[k] + static_cast<int64_t>(index < 0 ? index + size : index);
    }
  const std::vector<int64_t> leading(indices->sizes().begin(), indices->sizes().end() - 1);
  std::vector<int64_t> shape = leading, strides(leading.size(), 0);
  int64_t covered = 1;
  size_t inner = 1;
  for (size_t d = leading.size(); d-- > 0; inner *= usize(leading[d])) {
    strides[d] = leading[d] > 1 ? places[inner] - places[0] : 0;
    if (strides[d] == 0)
      shape[d] = 1;
    else if (strides[d] == covered)
      covered *= leading[d];
    else
      return false;
  }
  if (covered != all) return false;
  for (size_t i = 0; i < places.size(); ++i) {
    int64_t expected = 0;
    for (size_t d = leading.size(), rest = i; d-- > 0; rest /= usize(leading[d]))
      expected += strides[d] * static_cast<int64_t>(rest % usize(leading[d]));
    if (places[i] != expected) return false;
  }
  shape.insert(shape.end(), sizes.begin() + static_cast<ptrdiff_t>(tuple), sizes.end());
  Builder b = rw.before(gather);
  QC_ASSIGN(Value * y, b.create("reshape", {x}, {{"shape", shape}}));
  QC_ASSIGN(y, b.create("expand", {y}, {{"shape", gather->result()->type().sizes()}}));
  return replaceWith(rw, gather, y);
}

std::vector<RewriteRule> rules() {
  const auto weighted = [] { return oneOf({"conv", "conv_transpose", "linear"}).as("conv").oneUse(); };
  return {
      {"matmul-to-linear", op("matmul"), matmulToLinear},
      {"add-to-bias", op("add", {weighted(), constant("c")}), addToBias},
      {"add-to-bias", op("add", {op("linear").as("linear").oneUse(), op("dequantize").as("c")}), addDequantizedBias},
      {"pad-into-conv", oneOf({"conv", "q.conv"}, {op("pad").as("pad")}), padIntoConv},
      {"transpose", op("transpose"), simplifyTranspose},
      {"reshape", op("reshape"), simplifyReshape},
      {"identity", op("identity"), dropIdentity},
      {"no-op", oneOf({"slice", "pad", "expand", "tile", "cast", "resize"}), dropNoOp},
      {"widening", op("cast", {op("cast").as("inner")}), dropWidening},
      {"gather-to-slice", op("gather"), gatherToSlice},
      {"gather-nd-to-expand", op("gather_nd"), gatherNdToExpand},
      {"scatter-of-nothing", oneOf({"scatter_nd", "scatter_elements"}), scatterNothing},
      {"broadcast-in-map", op("map"), broadcastInMap},
      {"concat-of-one", op("concat"), concatOfOne},
      {"neutral", oneOf({"add", "sub", "mul", "div", "pow"}), dropNeutral},
      {"bound-to-clip", oneOf({"max", "min"}), boundToClip},
      {"clip", op("clip"), simplifyClip},
  };
}

}  // namespace

Status canonicalize(Graph& graph, PassContext& cx) {
  static const std::vector<RewriteRule> kRules = rules();
  return applyRules(kRules, graph, cx);
}

}  // namespace qc
