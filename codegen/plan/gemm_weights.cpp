// What kernels of convolutions take of a node's types and weights, and the weights packed.
#include <algorithm>
#include <cmath>

#include "codegen/plan/gemm.h"
#include "ir/epilogue_form.h"
#include "ir/op_def.h"
#include "passes/graph_util.h"

namespace qc {
namespace {

// Of s8, u8, s4 and u4: tensors hold integers of 4 bits one to a byte.
int64_t byteAt(const Tensor& w, int64_t i) {
  const auto at = usize(i);
  return isSigned(w.dtype()) ? w.as<int8_t>()[at] : w.as<uint8_t>()[at];
}

bool isCentred(const QuantParams& quant) {
  return std::all_of(quant.zeroPoints.begin(), quant.zeroPoints.end(), [](int32_t z) { return z == 0; });
}

// The bytes of s4 are those of the same integers in s8.
Tensor sameBytes(const Tensor& t, DType as) { return Tensor(as, t.sizes(), std::make_shared<Tensor>(t), t.data()); }

// Constant weights of at most 8 bits with parameters per tensor or per output channel.
bool hasByteWeights(const Node& node) {
  const TensorType& type = node.operand("w")->type();
  return node.operand("w")->constant() && type.isQuantized() && sizeOf(type.dtype) == 1 && type.quant->blockSize == 0 &&
         type.quant->axis <= 0;
}

// Weights as integers of zero point 0: s8, or s16 where they leave it.
std::optional<Tensor> centredWeights(const Node& node) {
  if (!hasByteWeights(node)) return std::nullopt;
  const Tensor* w = node.operand("w")->constant();
  const QuantParams& quant = *node.operand("w")->type().quant;
  if (isSigned(w->dtype()) && isCentred(quant)) return w->dtype() == DType::s8 ? *w : sameBytes(*w, DType::s8);
  const bool wide = hasWideWeights(node);
  Tensor centred(wide ? DType::s16 : DType::s8, w->sizes());
  const int64_t channels = w->sizes()[0], inner = w->numElements() / std::max<int64_t>(channels, 1);
  for (int64_t i = 0; i < w->numElements(); ++i) {
    const int64_t q = byteAt(*w, i) - quant.zeroPoint(quant.perChannel() ? i / inner : 0);
    if (wide)
      nth(centred.mutableAs<int16_t>(), i) = static_cast<int16_t>(q);
    else
      nth(centred.mutableAs<int8_t>(), i) = static_cast<int8_t>(q);
  }
  return centred;
}

// The largest magnitude that a formula of sums, products and limits gives for arguments of such magnitudes; infinite where it is not known.
double largestMagnitude(const ScalarExpr& e, std::span<const double> args) {
  using Op = ScalarExpr::Op;
  const auto of = [&](size_t i) { return largestMagnitude(e.operands()[i], args); };
  switch (e.op()) {
    case Op::arg: return args[usize(e.argIndex())];
    case Op::constant: return std::abs(static_cast<double>(e.value()));
    case Op::neg:
    case Op::abs: return of(0);
    case Op::add:
    case Op::sub: return of(0) + of(1);
    case Op::mul: return of(0) * of(1);
    case Op::min:
    case Op::max: return std::max(of(0), of(1));
    case Op::select: return std::max(of(1), of(2));
    default: return INFINITY;
  }
}

double largestMagnitude(const Value& v) {
  if (!v.type().isQuantized()) return INFINITY;
  const QuantParams& quant = *v.type().quant;
  const double most = std::max(std::abs(static_cast<double>(quant.qmin) - quant.zeroPoint()),
                               std::abs(static_cast<double>(quant.qmax) - quant.zeroPoint()));
  return most * quant.scale();
}

// Whether kernels of this element type take such weights: 255 is not a sum of two s8.
bool fits(const Tensor& centred, DType element) {
  if (centred.dtype() == DType::s8 || element == DType::s16) return true;
  const std::span<const int16_t> w = centred.as<int16_t>();
  return std::all_of(w.begin(), w.end(), [](int16_t v) { return v >= -256 && v <= 254; });
}

bool isPadded(const Node& node) {
  const auto& pads = node.attrs().find("pads") ? node.integers("pads") : std::vector<int64_t>();
  return std::any_of(pads.begin(), pads.end(), [](int64_t p) { return p != 0; });
}

bool allFinite(const Tensor& weights) {
  const std::span<const float> w = weights.as<float>();
  return std::all_of(w.begin(), w.end(), [](float v) { return std::isfinite(v); });
}

// Then float16 holds them without a change.  NaN is none of them, so that its bits need no thought.
bool areHalves(const Tensor& weights) {
  const std::span<const float> w = weights.as<float>();
  return std::all_of(w.begin(), w.end(), [](float v) { return halfToFloat(floatToHalf(v)) == v; });
}

// The bias, then what every run adds where all it reads is the zero point `zx`.
Tensor withRunSums(const PackedLayout& layout, const Tensor& bias, const Tensor& weights, int64_t zx) {
  const int64_t outputs = weights.sizes()[0], runs = layout.runs(), inputs = weights.sizes()[1];
  Tensor all(DType::s32, {layout.biasEntries()}), sums(DType::s32, {outputs});
  const std::span<int32_t> to = all.mutableAs<int32_t>();
  const auto put = [&](int64_t place, const Tensor& values) {
    const Tensor packed = layout.packChannels(values);
    std::copy(packed.as<int32_t>().begin(), packed.as<int32_t>().end(), to.begin() + place * layout.columns());
  };
  put(0, bias);
  for (int64_t run = 0; run < runs; ++run) {
    for (int64_t o = 0; o < outputs; ++o) {
      int64_t sum = 0;
      for (int64_t i = 0; i < inputs; ++i) sum += static_cast<int64_t>(weights.at((o * inputs + i) * runs + run));
      nth(sums.mutableAs<int32_t>(), o) = static_cast<int32_t>(zx * sum);  // wraps, like the sums it stands for
    }
    put(1 + run, sums);
  }
  return all;
}

// ---- what is computed: packed by movers -------------------------------------------------------

Result<Value*> reshaped(Builder& b, Value* v, const std::vector<int64_t>& sizes) {
  return v->type().sizes() == sizes ? v : b.create("reshape", {v}, {{"shape", sizes}});
}

// One transpose for it and the one that made v, if any.
Result<Value*> transposed(Builder& b, Value* v, std::vector<int64_t> perm) {
  if (const Node* before = v->producer(); before && before->is("transpose")) {
    for (int64_t& d : perm) d = nth(before->integers("perm"), d);
    v = before->operand(0);
  }
  return std::is_sorted(perm.begin(), perm.end()) ? v : b.create("transpose", {v}, {{"perm", perm}});
}

// [..., n] with zeros behind the n of each row.
Result<Value*> padded(Builder& b, Value* v, int64_t wanted) {
  const std::vector<int64_t> sizes = v->type().sizes();
  if (sizes.back() == wanted) return v;
  std::vector<int64_t> pads(2 * sizes.size(), 0);
  pads.back() = wanted - sizes.back();
  return b.create("pad", {v}, {{"pads", pads}});
}

// Elements move to where PackedLayout::pack() puts them, of floats whose steps are single elements.
class ComputedPacking {
 public:
  ComputedPacking(const PackedLayout& layout, Builder& b) : layout_(layout), p_(layout.packing()), b_(b) {
    groups_ = layout.columns() / (layout.panels() * p_.panel);
    QC_CHECK(p_.element == DType::f32 && p_.group == 1 && p_.runPad == 1 && p_.copies == 1 && p_.halves == 1,
             "computed weights packed as '{}'", p_.str());
  }

  Result<Value*> weights(Value* w) {
    // [G * O, I, taps...] -> [G, taps..., I, O] -> [G, panel, taps * I, column]
    std::vector<int64_t> sizes = w->type().sizes(), perm;
    const int64_t outputs = sizes[0] / groups_, depth = numElements(sizes) / sizes[0];
    if (groups_ > 1) {
      sizes[0] = outputs;
      sizes.insert(sizes.begin(), groups_);
      perm.push_back(0);
    }
    const auto first = std::ssize(perm), rank = std::ssize(sizes);
    for (int64_t d = first + 2; d < rank; ++d) perm.push_back(d);
    perm.insert(perm.end(), {first + 1, first});
    QC_ASSIGN(w, reshaped(b_, w, sizes));
    QC_ASSIGN(w, transposed(b_, w, perm));
    return panels(w, depth, outputs, layout_.size());
  }

  Result<Value*> channels(Value* bias) {
    if (bias->type().numElements() == 1) return expanded(bias);
    return panels(bias, 1, bias->type().numElements() / groups_, layout_.columns());
  }

 private:
  // One value for all channels.
  Result<Value*> expanded(Value* bias) { return b_.create("expand", {bias}, {{"shape", std::vector<int64_t>{layout_.columns()}}}); }

  // v as [G, rows, outputs] -> [G, panel, rows, column], columns in the order of the packing.
  Result<Value*> panels(Value* v, int64_t rows, int64_t outputs, int64_t elements) {
    const int64_t panels = layout_.panels(), lanes = p_.lanes;
    const int64_t vectors = p_.columns == Packing::Columns::quad ? 4 : p_.columns == Packing::Columns::pair ? 2 : 1;
    QC_ASSIGN(v, reshaped(b_, v, {groups_, rows, outputs}));
    QC_ASSIGN(v, padded(b_, v, panels * p_.panel));
    if (vectors > 1) {
      QC_ASSIGN(v, reshaped(b_, v, {groups_, rows, panels, p_.panel / (vectors * lanes), lanes / 4, vectors, 4}));
      QC_ASSIGN(v, transposed(b_, v, {0, 2, 1, 3, 5, 4, 6}));
    } else if (panels > 1 && rows > 1) {
      QC_ASSIGN(v, reshaped(b_, v, {groups_, rows, panels, p_.panel}));
      QC_ASSIGN(v, transposed(b_, v, {0, 2, 1, 3}));
    }
    return reshaped(b_, v, {elements});
  }

  const PackedLayout& layout_;
  const Packing& p_;
  Builder& b_;
  int64_t groups_;
};

bool isShortQuant(const TensorType& type) { return type.isQuantized() && !type.quant->perChannel() && sizeOf(type.dtype) <= 2; }

}  // namespace

bool computesInIntegers(const Node& node) { return node.operand(0)->type().isQuantized(); }

std::vector<int64_t> weightShapeOf(const Node& node) {
  if (const Attr* packed = node.attrs().find("weight_shape")) return std::get<std::vector<int64_t>>(*packed);
  std::vector<int64_t> sizes = node.operand("w")->type().sizes();
  if (const Attr* columns = node.attrs().find("columns")) sizes[1] = std::get<int64_t>(*columns);  // of q.weight_linear
  return sizes;
}

bool hasConvTypes(const Node& node) {
  const TensorType& x = node.operand(0)->type();
  const TensorType& y = node.result()->type();
  if (computesInIntegers(node) ? (x.dtype != DType::u8 && x.dtype != DType::s16) || x.quant->perChannel() : x.dtype != DType::f32)
    return false;
  if (y.isQuantized() ? !isShortQuant(y) : y.dtype != DType::f32) return false;
  const Value* residual = node.operand("residual");
  if (residual && !(isShortQuant(residual->type()) || (residual->type().dtype == DType::f32 && !residual->type().isQuantized())))
    return false;
  if (residual && residual->type().shape != y.shape) return false;
  const Attr* layout = node.attrs().find("layout");
  if (layout && weightShapeOf(node).size() > 2 && *layout != Attr(std::string("channels_last"))) return false;
  const auto usable = [&](const Value* v) {
    return !v || v->constant() || (!computesInIntegers(node) && isPlain(v, DType::f32) && v->type().isStatic());
  };
  return x.isStatic() && y.numElements() > 0 && usable(node.operand("w")) && usable(node.operand("bias"));
}

bool hasWideWeights(const Node& node) {
  if (!hasByteWeights(node)) return false;
  const Tensor& w = *node.operand("w")->constant();
  const QuantParams& quant = *node.operand("w")->type().quant;
  if (isSigned(w.dtype()) && isCentred(quant)) return false;
  const int64_t sets = quant.perChannel() ? w.sizes()[0] : 1, each = w.numElements() / std::max<int64_t>(sets, 1);
  for (int64_t s = 0; s < sets; ++s) {
    const int64_t low = quant.zeroPoint(s) - 128, high = quant.zeroPoint(s) + 127;
    for (int64_t i = s * each; i < (s + 1) * each; ++i)
      if (const int64_t q = byteAt(w, i); q < low || q > high) return true;
  }
  return false;
}

bool takesWeights(const Node& node, DType element) {
  if (!computesInIntegers(node)) {
    const Tensor* w = node.operand("w")->constant();
    return isPlain(node.operand("w"), DType::f32) && (element != DType::f16 || (w && areHalves(*w)));
  }
  return hasByteWeights(node) && (!hasWideWeights(node) || fits(*centredWeights(node), element));
}

bool pairsStayExact(const Node& node, const GemmPlan& plan) {
  const std::optional<Tensor> centred = centredWeights(node);
  if (!centred) return false;
  const Tensor packed = PackedLayout(plan.packing, plan.conv).pack(*centred);
  const std::span<const int8_t> w = packed.as<int8_t>();
  for (size_t i = 0; i + 1 < w.size(); i += 2) {
    const int high = std::max<int>(w[i], 0) + std::max<int>(w[i + 1], 0), low = std::min<int>(w[i], 0) + std::min<int>(w[i + 1], 0);
    if (255 * high > 32767 || 255 * low < -32768) return false;
  }
  return true;
}

Result<Node*> packConv(const Node& node, const PackedLayout& layout, Builder& builder) {
  const TensorType& x = node.operand(0)->type();
  const std::vector<int64_t> weightShape = node.operand("w")->type().sizes();
  const Tensor* givenBias = node.operand("bias") ? node.operand("bias")->constant() : nullptr;
  const QuantPtr to = node.result()->type().quant;
  const int64_t outputs = weightShape[0], inner = numElements(weightShape) / std::max<int64_t>(outputs, 1);
  const std::string base = node.operand("w")->name();
  AttrDict attrs{{"weight_shape", weightShape}, {"packing", layout.packing()}, {"to", QuantAttr{to}}};
  for (const char* name : {"strides", "pads", "dilations", "group", "post", "clamp_min", "clamp_max"})
    if (const Attr* attr = node.attrs().find(name);
        attr && !(std::holds_alternative<int64_t>(*attr) && std::string_view(name).starts_with("clamp") && !to))
      attrs.set(name, *attr);
  Value *scale = nullptr, *bias = nullptr;
  Value* packed = nullptr;
  if (computesInIntegers(node)) {
    const std::optional<Tensor> centred = centredWeights(node);
    if (!centred)
      return fail(ErrorCode::kUnsupported, "weights are not constants of at most 8 bits and one zero point per channel")
          .at(node.location());
    const Tensor& weights = *centred;
    const auto weightAt = [&](int64_t i) -> int64_t {
      const auto at = usize(i);
      return weights.dtype() == DType::s8 ? weights.as<int8_t>()[at] : weights.as<int16_t>()[at];
    };
    const QuantParams& wq = *node.operand("w")->type().quant;
    const EpilogueForm form = EpilogueForm::of(node);
    const double residual = form.residual ? largestMagnitude(*form.residual) : 0;
    bool bounded = form.to && std::isfinite(residual);
    const int64_t zx = x.quant->zeroPoint() - layout.packing().offset;
    const int64_t largest = x.dtype == DType::s16 ? 32768 : 255;  // of inputs
    Tensor scales(DType::f32, {outputs}), biases(DType::s32, {outputs});
    for (int64_t c = 0; c < outputs; ++c) {
      const auto sw = wq.scale(wq.perChannel() ? c : 0);
      int64_t sum = 0, magnitude = 0;
      for (int64_t k = 0; k < inner; ++k) {
        const int64_t weight = weightAt(c * inner + k);
        sum += weight;
        magnitude += std::abs(weight);
      }
      const int64_t folded = (givenBias ? static_cast<int64_t>(givenBias->at(c)) : 0) - zx * sum;
      nth(biases.mutableAs<int32_t>(), c) = static_cast<int32_t>(folded);  // wraps; the sum wraps back
      nth(scales.mutableAs<float>(), c) = form.factor(x.quant->scale(), sw);
      const auto most = static_cast<double>(std::abs(folded) + largest * magnitude);
      const double factor = std::abs(static_cast<double>(nth(scales.as<float>(), c)));
      double value = most * factor;
      if (bounded && !form.integerForm()) {
        constexpr double kOfRoundings = 1.001;  // every step of the formula is rounded
        const double args[] = {kOfRoundings * value, residual};
        value = kOfRoundings * largestMagnitude(form.formula(), args) * form.inverseScale();
      }
      bounded = bounded && most < 2147483648.0 && value < 2147483520.0;  // false for NaN too
    }
    attrs.set("bounded", int64_t{bounded});
    scale = builder.constant(base + ".scale", layout.packChannels(scales));
    bias = builder.constant(base + ".bias", layout.packing().sums ? withRunSums(layout, biases, weights, zx) : layout.packChannels(biases));
    packed = builder.constant(base + ".packed", layout.pack(weights));
  } else {
    if (givenBias) {
      bias = builder.constant(base + ".bias", layout.packChannels(*givenBias));
    } else if (Value* computed = node.operand("bias")) {
      QC_ASSIGN(bias, ComputedPacking(layout, builder).channels(computed));
    }
    if (const Tensor* weights = node.operand("w")->constant()) {
      if (isPadded(node)) attrs.set("bounded", int64_t{allFinite(*weights)});
      packed = builder.constant(base + ".packed", layout.pack(*weights));
    } else {
      QC_ASSIGN(packed, ComputedPacking(layout, builder).weights(node.operand("w")));
    }
  }
  std::vector<Value*> operands{node.operand(0), packed, scale, bias};
  if (Value* residual = node.operand("residual")) operands.push_back(residual);
  return builder.createNode("k.conv", std::move(operands), std::move(attrs), node.result()->name());
}

}  // namespace qc
