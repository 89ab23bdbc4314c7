// expand-dynamic: layers over run-time parameters on the kernels of static ones.
//   q.dynamic_linear(q, w, b, s, z)          s and z are scalars or one per row
//     ->  q'    = q as u8 of scale 1, zero point 128: where q = quantize_with(x, s, z) straight from x,
//                 map x, s, z {select(x / s is a number, round(x / s) + z, z) - 128}; else from a cast of the integers
//         raw   = q.linear q', w as integers of scale 1                     the sum of (q - 128) * w, as a float
//         y     = map raw, z, sums of w, s, scales of w, b {(raw - (z - 128) * sum) * (s * scale) + bias}
//                 which what comes behind joins, elementwise as it is
// Where q is s8, 0 takes the place of 128 in these formulas; w is meant without its zero points.
// A convolution likewise; there `sums` depends on the place where padding is, since padding adds nothing to raw.
// Done where z is of the range of q's type and the weights prove that every sum stays below 2^24: then raw and the product are exact
// integers, their difference is rounded once, as the integer sum would be, and the result has the same bits as the one op.
// Deeper sums are cut into stretches of input channels for which that holds, and joined as s32; not those of grouped convolutions, and not
// where one channel alone is too deep.  What remains runs by its reference evaluation.
// What is left of quantize_with and dequantize_with, for values that no such layer reads, becomes a map as well.  Tests:
// tests/golden/expand_dynamic, tests/unit/modes_test.cpp.
#include <algorithm>
#include <cmath>
#include <map>

#include "ir/interp.h"
#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/lower/fuse_maps.h"
#include "passes/passes.h"

namespace qc {
namespace {

constexpr int64_t kExact = int64_t{1} << 24;  // integers below are floats
constexpr int64_t kMaxSmall = (1 << 16) - 1;  // sums of two such integers are floats
constexpr int32_t kMiddle = 128;              // of u8: the largest magnitude then is 128

class Expansion {
 public:
  explicit Expansion(Graph& graph) : rewriter_(graph) {}

  Result<bool> run(Node* node) {
    const Value *x = node->operand("x"), *w = node->operand("w");
    const DType integer = x->type().dtype;
    if (!isByte(integer) || x->constant() || !w->constant() || !isOf(node->operand("zero_point"), integer)) return false;
    const QuantParams& q = *w->type().quant;
    if (!isByte(w->type().dtype) || q.blockSize) return false;
    const RowTotals totals = totalsOf(*w->constant(), q);
    const bool conv = node->is("q.dynamic_conv"), fits = totals.largest < kExact / kMiddle;
    const Tensor weights = conv || !fits ? centredWeights(*w->constant(), q) : Tensor();
    const std::vector<int64_t> cuts = fits ? std::vector<int64_t>{0, w->constant()->sizes()[1]} : exactStretches(weights);
    const bool whole = cuts.size() == 2;
    if (cuts.empty() || (!whole && conv && node->integer("group") != 1)) return false;
    if (!x->type().isStatic() && (conv || !whole)) return false;  // sums at the border of an image, and stretches, are cut to its sizes
    Builder b = rewriter_.before(node);
    QC_ASSIGN(Tensor sums, conv ? convSums(b, *node, weights, totals.sums) : Result<Tensor>(totals.sums));
    QC_ASSIGN(Value * quantized, integersOf(b, *node));
    std::vector<Value*> operands;
    const auto argument = [&](Value* v) {
      operands.push_back(v);
      return fmt::format("a{}", operands.size() - 1);
    };
    std::string expr;
    if (whole) {
      QC_ASSIGN(Value * zero, b.create("cast", {node->operand("zero_point")}, {{"to", DType::f32}}));
      QC_ASSIGN(Value * raw, product(b, *node, quantized, *w->constant()));
      operands = {raw, zero, b.constant(w->name() + ".sums", std::move(sums))};
      expr = fmt::format("(a0 - ({}) * a2)", centred(integer, "a1"));
    } else {
      QC_ASSIGN(Value * sum, longSum(b, *node, quantized, cuts, sums));
      operands = {sum};
      expr = "a0";
    }
    expr += fmt::format(" * ({} * ", argument(node->operand("scale")));
    const auto spatial = usize(w->type().rank() - 2);
    if (q.scales.size() == 1) {
      expr += toString(Attr(static_cast<double>(q.scale()))) + ")";
    } else {
      const auto sizes = alongChannels(static_cast<int64_t>(q.scales.size()), spatial);
      expr += argument(b.constant(w->name() + ".scales", Tensor::ofFloats(sizes, q.scales))) + ")";
    }
    if (Value* bias = node->operand("bias")) {
      if (spatial > 0) {
        QC_ASSIGN(bias, b.create("reshape", {bias}, {{"shape", alongChannels(bias->type().numElements(), spatial)}}));
      }
      expr += " + " + argument(bias);
    }
    QC_ASSIGN(Value * y, b.create("map", std::move(operands), {{"expr", expr}}));
    if (y->type() != node->result()->type()) return false;
    rewriter_.replace(node, {y});
    return true;
  }

  // quantize_with and dequantize_with themselves, where integers and zero points are small enough to be floats.
  Result<bool> spellOut(Node* node) {
    const bool quantizes = node->is("quantize_with");
    const Value *x = node->operand(0), *zero = node->operand("zero_point");
    const DType storage = (quantizes ? node->result()->type() : x->type()).dtype;
    if (!x->type().isStatic() || sizeOf(storage) > 2 || (zero && !isSmall(zero)) || (quantizes && x->type().dtype != DType::f32))
      return false;
    Builder b = rewriter_.before(node);
    QC_ASSIGN(Value * scale, besideRows(b, *node, node->operand("scale")));
    std::vector<Value*> operands = {node->operand(0), scale};
    if (zero) {
      QC_ASSIGN(Value * wide, besideRows(b, *node, node->operand("zero_point")));
      QC_ASSIGN(wide, b.create("cast", {wide}, {{"to", DType::f32}}));
      operands.push_back(wide);
    }
    if (!quantizes) {
      QC_ASSIGN(operands[0], b.create("cast", {operands[0]}, {{"to", DType::f32}}));
      QC_ASSIGN(Value * y, b.create("map", std::move(operands), {{"expr", std::string(zero ? "a1 * (a0 - a2)" : "a1 * a0")}}));
      rewriter_.replace(node, {y});
      return true;
    }
    QC_ASSIGN(Value * real, b.create("map", std::move(operands), {{"expr", bounded(rounded(zero != nullptr), *node)}}));
    QC_ASSIGN(Value * q, b.create("cast", {real}, {{"to", storage}}));
    rewriter_.replace(node, {q});
    return true;
  }

 private:
  // Expressions over x, scale and, if there is one, the zero point; a value that is not a number becomes the zero point.
  static std::string rounded(bool hasZero) {
    return hasZero ? "select(eq(a0 / a1, a0 / a1), round(a0 / a1) + a2, a2)" : "select(eq(a0 / a1, a0 / a1), round(a0 / a1), 0)";
  }
  static std::string bounded(const std::string& expr, const Node& quantize) {
    return fmt::format("min(max({}, {}), {})", expr, quantize.integer("qmin"), quantize.integer("qmax"));
  }
  // An expression over integers of this type, moved to -128..127.
  static std::string centred(DType t, const std::string& expr) { return t == DType::u8 ? fmt::format("{} - {}", expr, kMiddle) : expr; }

  // The same integers of scale 1.
  static QuantPtr unscaled(const QuantParams& q) {
    if (std::ranges::count(q.zeroPoints, q.zeroPoint()) == std::ssize(q.zeroPoints)) return quantPerTensor(q.storage, 1, q.zeroPoint());
    auto same = std::make_shared<QuantParams>(q);
    same->scales.assign(q.scales.size(), 1.0f);
    return same;
  }

  // A parameter with one value per slice along `axis`, in the rank of the operand; a single one has no dims.
  static Result<Value*> besideRows(Builder& b, const Node& node, Value* parameter) {
    const int64_t axis = node.integer("axis");
    if (isSingle(parameter)) return b.create("reshape", {parameter}, {{"shape", std::vector<int64_t>()}});
    if (axis < 0 || parameter->type().rank() != 1) return parameter;
    std::vector<int64_t> sizes(usize(node.operand(0)->type().rank()), 1);
    nth(sizes, axis) = parameter->type().numElements();
    return b.create("reshape", {parameter}, {{"shape", sizes}});
  }

  // Whether zero points can only lie in that range, whatever type holds them.
  static bool liesWithin(const Value* z, int64_t low, int64_t high) {
    const auto keeps = [](DType t) { return t == DType::s32 || t == DType::s64 || t == DType::f32; };
    while (keeps(z->type().dtype) && z->producer() && (z->producer()->is("cast") || z->producer()->is("reshape")))
      z = z->producer()->operand(0);
    if (const DType type = z->type().dtype; isInteger(type) && sizeOf(type) < 4)
      return rangeOf(type).min >= low && rangeOf(type).max <= high;
    if (const Tensor* fixed = z->constant()) {
      for (int64_t i = 0; i < fixed->numElements(); ++i)
        if (!(fixed->at(i) >= static_cast<double>(low) && fixed->at(i) <= static_cast<double>(high))) return false;
      return true;
    }
    const Node* params = z->producer();
    return params && params->is("dynamic_qparams") && params->integer("qmin") >= low && params->integer("qmax") <= high;
  }
  static bool isByte(DType t) { return t == DType::u8 || t == DType::s8; }
  static bool isOf(const Value* z, DType type) { return liesWithin(z, rangeOf(type).min, rangeOf(type).max); }
  static bool isSmall(const Value* z) { return liesWithin(z, -kMaxSmall, kMaxSmall); }

  // Made once for all layers that read these integers.
  Result<Value*> integersOf(Builder& b, const Node& node) {
    Value* q = node.operand("x");
    const auto known = quantized_.find(q);
    if (known != quantized_.end()) return known->second;
    const DType integer = q->type().dtype;
    AttrDict attrs{{"to", QuantAttr{quantPerTensor(DType::u8, 1, kMiddle)}}};
    const Node* quantize = q->producer();
    if (quantize && quantize->is("quantize_with") && quantize->operand("zero_point") && isOf(quantize->operand("zero_point"), integer) &&
        quantize->integer("axis") < 0 && quantize->operand(0)->type().dtype == DType::f32) {
      QC_ASSIGN(Value * zero, b.create("cast", {quantize->operand("zero_point")}, {{"to", DType::f32}}));
      const IntRange all = rangeOf(integer);  // which `to` bounds
      const bool whole = quantize->integer("qmin") == all.min && quantize->integer("qmax") == all.max;
      attrs.set("expr", centred(integer, whole ? rounded(true) : bounded(rounded(true), *quantize)));
      QC_ASSIGN(Value * made, b.create("map", {quantize->operand(0), quantize->operand("scale"), zero}, std::move(attrs)));
      return quantized_[q] = made;
    }
    QC_ASSIGN(Value * numbers, b.create("cast", {q}, {{"to", DType::f32}}));
    attrs.set("expr", centred(integer, "a0"));
    QC_ASSIGN(Value * made, b.create("map", {numbers}, std::move(attrs)));
    return quantized_[q] = made;
  }

  // [channels, 1, ..]: one value per channel, in front of the spatial dims.
  static std::vector<int64_t> alongChannels(int64_t channels, size_t spatial) {
    std::vector<int64_t> sizes(1 + spatial, 1);
    sizes[0] = channels;
    return sizes;
  }

  // The elements of each output, which lie together.
  template <class F>
  static void eachRow(const Tensor& w, const F& body) {
    const auto rows = usize(w.sizes()[0]), depth = rows ? usize(w.numElements()) / rows : 0;
    for (size_t row = 0; row < rows; ++row) body(static_cast<int64_t>(row), row * depth, (row + 1) * depth);
  }

  // Of the weights of each output, less their zero points.
  struct RowTotals {
    Tensor sums;          // f32
    int64_t largest = 0;  // of the sums of magnitudes
  };
  static RowTotals totalsOf(const Tensor& w, const QuantParams& q) {
    RowTotals totals{Tensor(DType::f32, {w.sizes()[0]})};
    const std::span<float> sums = totals.sums.mutableAs<float>();
    const auto add = [&](auto from) {
      eachRow(w, [&](int64_t row, size_t begin, size_t end) {
        const int32_t zero = q.zeroPoint(row);
        int64_t sum = 0, magnitude = 0;
        for (size_t i = begin; i < end; ++i) {
          const int32_t v = from[i] - zero;
          sum += v, magnitude += std::abs(v);
        }
        nth(sums, row) = static_cast<float>(sum);
        totals.largest = std::max(totals.largest, magnitude);
      });
    };
    w.dtype() == DType::s8 ? add(w.as<int8_t>()) : add(w.as<uint8_t>());
    return totals;
  }

  // Bytes minus their zero points, as floats.
  static Tensor centredWeights(const Tensor& w, const QuantParams& q) {
    Tensor centred(DType::f32, w.sizes());
    const auto centre = [&](auto from) {
      float* to = centred.mutableAs<float>().data();
      eachRow(w, [&](int64_t row, size_t begin, size_t end) {
        const int32_t zero = q.zeroPoint(row);
        for (size_t i = begin; i < end; ++i) to[i] = static_cast<float>(from[i] - zero);
      });
    };
    w.dtype() == DType::s8 ? centre(w.as<int8_t>()) : centre(w.as<uint8_t>());
    return centred;
  }

  // Sums of (q - 128) * w as floats; `w`: the weights, or some of their input channels.
  static Result<Value*> product(Builder& b, const Node& node, Value* quantized, const Tensor& w) {
    const Value* all = node.operand("w");
    Value* integers = b.constant(all->name(), w, unscaled(*all->type().quant));
    return b.create(node.is("q.dynamic_conv") ? "q.conv" : "q.linear", {quantized, integers}, node.attrs());
  }

  // Sums that leave the integers among floats: of stretches of input channels, joined as s32, with the zero point taken off there.
  static Result<Value*> longSum(Builder& b, const Node& node, Value* quantized, const std::vector<int64_t>& cuts, const Tensor& sums) {
    const Tensor& w = *node.operand("w")->constant();
    const AttrDict toInt{{"to", DType::s32}};
    std::vector<int64_t> starts(usize(quantized->type().rank()), 0), sizes = quantized->type().sizes();
    const std::vector<int64_t> steps(starts.size(), 1);
    const size_t channels = node.is("q.dynamic_conv") ? 1 : starts.size() - 1;
    Value* sum = nullptr;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      starts[channels] = cuts[i];
      sizes[channels] = cuts[i + 1] - cuts[i];
      QC_ASSIGN(Value * stretch, b.create("slice", {quantized}, {{"starts", starts}, {"sizes", sizes}, {"steps", steps}}));
      QC_ASSIGN(Value * raw, product(b, node, stretch, inputChannels(w, cuts[i], cuts[i + 1])));
      QC_ASSIGN(Value * part, b.create("cast", {raw}, toInt));
      if (sum) {
        QC_ASSIGN(part, b.create("add", {sum, part}));
      }
      sum = part;
    }
    QC_ASSIGN(Value * zero, b.create("cast", {node.operand("zero_point")}, toInt));
    if (node.operand("x")->type().dtype == DType::u8) {
      QC_ASSIGN(zero, b.create("sub", {zero, b.constant({}, integers({}, [](int64_t) { return kMiddle; }))}));
    }
    const Tensor whole = integers(sums.sizes(), [&](int64_t k) { return static_cast<int32_t>(sums.at(k)); });
    QC_ASSIGN(Value * offset, b.create("mul", {zero, b.constant(node.operand("w")->name() + ".sums", whole)}));
    QC_ASSIGN(sum, b.create("sub", {sum, offset}));
    return b.create("cast", {sum}, {{"to", DType::f32}});
  }

  template <class F>
  static Tensor integers(std::vector<int64_t> sizes, const F& at) {
    Tensor t(DType::s32, std::move(sizes));
    for (int64_t i = 0; i < t.numElements(); ++i) nth(t.mutableAs<int32_t>(), i) = at(i);
    return t;
  }

  // [outputs, channels, taps ..] -> [outputs, to - from, taps ..]
  static Tensor inputChannels(const Tensor& w, int64_t from, int64_t to) {
    std::vector<int64_t> sizes = w.sizes();
    const int64_t taps = w.numElements() / (sizes[0] * sizes[1]), row = sizes[1] * taps, taken = (to - from) * taps;
    sizes[1] = to - from;
    Tensor part(w.dtype(), sizes);
    for (int64_t i = 0; i < part.numElements(); ++i)
      storeElement(w.dtype(), part.mutableData(), i, w.at(i / taken * row + from * taps + i % taken));
    return part;
  }

  // Input channels, cut so that in no stretch a sum of products with -128..127 can reach 2^24: [0, .., all]; empty when one alone can.
  static std::vector<int64_t> exactStretches(const Tensor& weights) {
    const auto w = weights.as<float>();
    const int64_t outputs = weights.sizes()[0], channels = weights.sizes()[1];
    const int64_t taps = weights.numElements() / std::max<int64_t>(1, outputs * channels);
    const double most = static_cast<double>(kExact) / kMiddle;
    std::vector<int64_t> cuts = {0};
    std::vector<double> sums(usize(outputs), 0.0), added(sums.size());
    for (int64_t c = 0; c < channels; ++c) {
      bool fits = true;
      for (int64_t o = 0; o < outputs; ++o) {
        double& sum = nth(added, o) = 0;
        for (int64_t k = 0; k < taps; ++k) sum += std::fabs(nth(w, (o * channels + c) * taps + k));
        if (sum >= most) return {};
        fits = fits && nth(sums, o) + sum < most;
      }
      if (!fits) {
        cuts.push_back(c);
        std::fill(sums.begin(), sums.end(), 0.0);
      }
      for (size_t o = 0; o < sums.size(); ++o) sums[o] += added[o];
    }
    cuts.push_back(channels);
    return cuts;
  }

  // What a convolution of ones gives at every place: the weights of one tap summed over the channels, on an image of one channel.
  static Result<Tensor> convSums(Builder& b, const Node& node, const Tensor& w, const Tensor& rowSums) {
    const auto spatial = usize(w.rank() - 2);
    const auto& pads = node.integers("pads");
    if (std::all_of(pads.begin(), pads.end(), [](int64_t p) { return p == 0; }))
      return rowSums.reshaped(alongChannels(w.sizes()[0], spatial));
    const int64_t outputs = w.sizes()[0], inputs = w.sizes()[1], taps = w.numElements() / (outputs * inputs);
    std::vector<int64_t> weightSizes = w.sizes(), imageSizes = node.operand("x")->type().sizes();
    weightSizes[1] = imageSizes[0] = imageSizes[1] = 1;
    Tensor summed(DType::f32, weightSizes), image(DType::f32, imageSizes);
    const std::span<const float> from = w.as<float>();
    const std::span<float> to = summed.mutableAs<float>();
    for (int64_t i = 0; i < w.numElements(); ++i) nth(to, i / (inputs * taps) * taps + i % taps) += nth(from, i);
    for (float& v : image.mutableAs<float>()) v = 1;
    AttrDict attrs = node.attrs();
    attrs.set("group", int64_t{1});
    QC_ASSIGN(Node * conv, b.createNode("conv", {b.constant({}, std::move(image)), b.constant({}, std::move(summed))}, std::move(attrs)));
    QC_ASSIGN(auto folded, foldNode(*conv, int64_t{1} << 32));
    if (!folded) return fail(ErrorCode::kResource, "a result of {} is too large", conv->result()->type().str()).at(node.location());
    return std::move((*folded)[0]);
  }

  Rewriter rewriter_;
  std::map<const Value*, Value*> quantized_;
};

}  // namespace

Status expandDynamic(Graph& graph, PassContext& cx) {
  Expansion expansion(graph);
  int expanded = 0;
  for (Node* node : graph.nodes())
    if (node->is("q.dynamic_linear") || (node->is("q.dynamic_conv") && node->string("layout") == "channels_first")) {
      QC_ASSIGN(const bool done, expansion.run(node));
      expanded += done;
    }
  graph.eraseDeadNodes();
  int spelledOut = 0;
  for (Node* node : graph.nodes())
    if (node->is("quantize_with") || node->is("dequantize_with")) {
      QC_ASSIGN(const bool done, expansion.spellOut(node));
      spelledOut += done;
    }
  cx.countHits({{"layer", expanded}, {"parameters", spelledOut}});
  graph.eraseDeadNodes();
  // What comes behind a layer joins the formula that it ends in, as it would join a static layer.
  if (expanded > 0) {
    QC_ASSIGN(const int fused, fuseMaps(graph));
    cx.countHits({{"fused", fused}});
    graph.eraseDeadNodes();
  }
  return {};
}

}  // namespace qc
