// Weights of a quantized file that are not those of the float model, whatever quantized them.
#include <algorithm>
#include <cmath>
#include <map>

#include "ir/qmath.h"
#include "quantizer/quantizer.h"
#include "runtime/insight/causes/cause.h"
#include "runtime/insight/pairing.h"
#include "runtime/insight/signals.h"
#include "runtime/insight/weight_pairs.h"

namespace qc {
namespace {

// Against the noise of rounding to the nearest in the file's own steps: rounding by calibration data makes more of it, but not so much.
constexpr double kBeyondRounding = 8;
// Of its own power: with as much noise a channel is another one.  In the noise of the whole weight a channel of small weights is lost,
// which the next layer may make large again.
constexpr double kAnother = 0.1;

// A weight in integers, and the axis of its layer's outputs in it.
struct QuantizedWeight {
  const Node* layer = nullptr;
  int operand = 0;
  const Value* integers = nullptr;
  bool transposed = false;  // against the [outputs, inputs] of a linear layer
  int outputs() const { return transposed ? 1 : 0; }
};

std::optional<QuantizedWeight> quantizedWeight(const Node& layer) {
  for (const int i : weightOperands(layer)) {
    QuantizedWeight found{&layer, i, nullptr, layer.is("matmul")};
    const Node* n = layer.operand(i)->producer();
    while (n && n->is("transpose") && n->result()->type().rank() == 2) {
      found.transposed = !found.transposed;
      n = n->operand(0)->producer();
    }
    if (!n || !n->is("dequantize") || !n->operand(0)->constant()) continue;
    found.integers = n->operand(0);
    const QuantPtr& q = found.integers->type().quant;
    if (q && q->blockSize == 0 && found.integers->type().rank() >= 2 && found.integers->constant()->numElements() > 0) return found;
  }
  return std::nullopt;
}

// Where an element stands along one axis.
class Along {
 public:
  Along(const std::vector<int64_t>& sizes, int axis) : size_(nth(sizes, axis)) {
    for (size_t d = usize(axis) + 1; d < sizes.size(); ++d) inner_ *= sizes[d];
  }
  int64_t of(int64_t i) const { return i / inner_ % size_; }
  int64_t size() const { return size_; }

 private:
  int64_t size_, inner_ = 1;
};

Along scalesOf(const Tensor& integers, const QuantParams& q) { return {integers.sizes(), q.perChannel() ? q.axis : 0}; }

Tensor transposed(const Tensor& w) {
  const int64_t rows = w.sizes()[0], columns = w.sizes()[1];
  Tensor out(DType::f32, {columns, rows});
  const auto x = w.as<float>();
  auto y = out.mutableAs<float>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) nth(y, c * rows + r) = nth(x, r * columns + c);
  return out;
}

// The weight of a float node in the layout of the integers; none: of another kind or size.
std::optional<Tensor> inLayoutOf(const QuantizedWeight& weight, const Node& reference, const LayerPair* factors) {
  for (const int i : weightOperands(reference)) {
    const Tensor* given = reference.operand(i)->constant();
    if (!given || given->dtype() != DType::f32) continue;
    Tensor w = *given;
    if (factors && !moveFactors(w, reference, *factors, Factors::in)) continue;
    if (w.rank() == 2 && reference.is("matmul") != weight.transposed) w = transposed(w);
    if (w.sizes() == weight.integers->constant()->sizes()) return w;
  }
  return std::nullopt;
}

struct Difference {
  double noise = 0, expected = 0;
  int64_t channel = 0;       // of outputs, with most of it
  double share = 0;          // that it has
  std::vector<bool> broken;  // by channel of outputs: beyond rounding
  int64_t another = -1;      // the channel that is most beyond rounding, and has little of the float one; -1: none
  double beyond = 0;         // times the noise of rounding in it

  double ratio() const { return noise / std::max(1e-30, expected); }
  bool isBroken() const { return ratio() >= kBeyondRounding || another >= 0; }
  std::string words(const std::string& layer) const {
    if (ratio() < kBeyondRounding)
      return fmt::format("channel {} of the quantized weight of {} is not the float one's: {:.0f} times the noise of rounding", another,
                         layer, beyond);
    return fmt::format("the quantized weight of {} is not the float one: {:.0f} times the noise of rounding, {:.0f}% of it in channel {}",
                       layer, ratio(), share * 100, channel);
  }
};

Difference differenceOf(const Tensor& w, const QuantizedWeight& weight) {
  const Tensor& integers = *weight.integers->constant();
  const QuantParams& q = *weight.integers->type().quant;
  const Along scales = scalesOf(integers, q), outputs(integers.sizes(), weight.outputs());
  Difference d;
  std::vector<double> by(usize(outputs.size())), expected(by.size()), power(by.size());
  const auto x = w.as<float>();
  for (int64_t i = 0; i < w.numElements(); ++i) {
    const int64_t c = scales.of(i);
    const double s = q.scale(c), noise = std::pow(s * (integers.at(i) - q.zeroPoint(c)) - nth(x, i), 2);
    nth(by, outputs.of(i)) += noise;
    d.noise += noise;
    nth(expected, outputs.of(i)) += s * s / 12;
    nth(power, outputs.of(i)) += std::pow(nth(x, i), 2);
    d.expected += s * s / 12;
  }
  std::vector<bool> others(by.size());
  for (size_t c = 0; c < by.size(); ++c) {
    d.broken.push_back(by[c] > kBeyondRounding * expected[c]);
    others[c] = d.broken[c] && by[c] >= kAnother * power[c];
    if (!others[c] || by[c] <= d.beyond * expected[c]) continue;
    d.another = static_cast<int64_t>(c);
    d.beyond = by[c] / expected[c];
  }
  if (d.ratio() < kBeyondRounding) d.broken = std::move(others);
  const auto worst = std::max_element(by.begin(), by.end());
  d.channel = worst - by.begin();
  d.share = d.noise > 0 ? *worst / d.noise : 0;
  return d;
}

// How integers, less their zero point, and weights belong together.
struct Fit {
  double product = 0, square = 0, power = 0, count = 0;

  void add(double q, double w) { product += q * w, square += q * q, power += w * w, ++count; }
  void add(const Fit& other) { product += other.product, square += other.square, power += other.power, count += other.count; }
  bool isRounding(double scale) const {
    return power - 2 * scale * product + scale * scale * square <= kBeyondRounding * count * scale * scale / 12;
  }
  // With which scale, or the negative of one, the integers are these weights to within rounding: what is broken then is not they.
  std::optional<double> scale() const {
    if (square == 0 || product == 0) return std::nullopt;
    const double best = product / square;
    return isRounding(best) ? std::optional(best) : std::nullopt;
  }
};

// The file's model with the broken channels of this weight made again from the float one, in the same type; all where none stands out.
// Integers that are sound but for their scale or sign keep the rounding that the rest of the file was made for.
Graph repaired(const Graph& quantized, const QuantizedWeight& broken, const Tensor& w, std::vector<bool> channels) {
  if (std::find(channels.begin(), channels.end(), true) == channels.end()) channels.assign(channels.size(), true);
  const bool all = std::find(channels.begin(), channels.end(), false) == channels.end();
  Graph graph = quantized.clone();
  Node* dequantize = graph.findValue(broken.layer->result()->name())->producer()->operand(broken.operand)->producer();
  while (dequantize->is("transpose")) dequantize = dequantize->operand(0)->producer();
  QuantParams q = *broken.integers->type().quant;
  const auto x = w.as<float>();
  const Tensor& given = *broken.integers->constant();
  const Along scales = scalesOf(given, q), outputs(w.sizes(), broken.outputs());
  std::vector<float> largest(q.scales.size());
  std::vector<Fit> fits(channels.size());
  Fit whole;
  for (int64_t i = 0; i < w.numElements(); ++i) {
    const int64_t c = scales.of(i);
    float& m = largest[q.perChannel() ? usize(c) : 0];
    m = std::max(m, std::fabs(nth(x, i)));
    nth(fits, outputs.of(i)).add(given.at(i) - q.zeroPoint(c), nth(x, i));
  }
  for (const Fit& fit : fits) whole.add(fit);
  // A scale that sound channels share stays theirs.
  const bool ofOutputs = q.perChannel() && q.axis == broken.outputs();
  std::vector<int> signs(channels.size(), 1);  // of the integers that stay; 0: made again
  for (size_t o = 0; o < channels.size(); ++o) {
    if (!channels[o]) continue;
    std::optional<double> scale;
    if (ofOutputs || (all && !q.perChannel())) {
      scale = (ofOutputs ? fits[o] : whole).scale();
      if (scale) q.scales[ofOutputs ? o : 0] = static_cast<float>(std::fabs(*scale));
    } else if (!q.perChannel()) {
      const double own = std::copysign(static_cast<double>(q.scale()), fits[o].product);
      if (fits[o].isRounding(own)) scale = own;
    }
    signs[o] = !scale ? 0 : *scale < 0 ? -1 : 1;
  }
  const bool allKept = std::find(signs.begin(), signs.end(), 0) == signs.end();
  for (size_t c = 0; c < largest.size() && !allKept; ++c)
    if ((ofOutputs ? channels[c] && signs[c] == 0 : all) && q.zeroPoints[std::min(c, q.zeroPoints.size() - 1)] == 0 && largest[c] > 0)
      q.scales[c] = largest[c] / static_cast<float>(q.qmax);
  Tensor integers(q.storage, w.sizes());
  void* data = integers.mutableData();
  for (int64_t i = 0; i < w.numElements(); ++i) {
    const int64_t c = scales.of(i);
    const auto low = static_cast<int32_t>(q.qmin), high = static_cast<int32_t>(q.qmax);
    const int32_t zero = q.zeroPoint(c), sign = signs[usize(outputs.of(i))];
    const int32_t kept = std::clamp(zero + sign * (static_cast<int32_t>(given.at(i)) - zero), low, high);
    storeElement(q.storage, data, i, sign ? kept : qmath::quantize(nth(x, i), q.scale(c), zero, low, high));
  }
  Builder b(graph);
  b.before(dequantize);
  dequantize->setOperand(
      0, b.constant(dequantize->operand(0)->name() + "_again", std::move(integers), std::make_shared<const QuantParams>(std::move(q))));
  return graph;
}

}  // namespace

Result<std::vector<Suspect>> brokenWeights(const Evidence& e) {
  std::vector<Suspect> suspects;
  if (!e.options.quantized) return suspects;
  QC_ASSIGN(const PreparedModel plain, prepareModel(e.model, e.rules));
  QC_ASSIGN(const Pairing pairs, pairModels(*plain.simplified, *e.options.quantized));
  // As the float model has them, as the file says that they were moved, and as our own recipes move them: a file may not say.
  const auto asGiven = weightedNodes(*plain.simplified), moved = weightedNodes(*e.trials.model().simplified),
             theirs = weightedNodes(*e.options.quantized);
  Graph all = e.options.quantized->clone();
  for (const LayerPair& layer : pairs.layers) {
    const auto node = theirs.find(layer.actualNode);
    if (node == theirs.end()) continue;
    const std::optional<QuantizedWeight> weight = quantizedWeight(*node->second);
    if (!weight) continue;
    std::vector<Tensor> originals;
    for (const auto& [nodes, factors] :
         {std::pair(&asGiven, &layer), {&asGiven, static_cast<const LayerPair*>(nullptr)}, {&moved, nullptr}})
      if (const auto it = nodes->find(layer.referenceNode); it != nodes->end())
        if (std::optional<Tensor> w = inLayoutOf(*weight, *it->second, factors)) originals.push_back(*std::move(w));
    const Tensor* original = nullptr;
    Difference least;
    for (const Tensor& w : originals)
      if (const Difference d = differenceOf(w, *weight); !original || d.noise < least.noise) least = d, original = &w;
    if (!original || !least.isBroken()) continue;
    all = repaired(all, *weight, *original, least.broken);
    suspects.push_back({layer.layer,
                        least.words(layer.layer),
                        least.noise,
                        {{.words = "what is broken of this weight quantized again from the float model",
                          .rules = e.rules,
                          .repaired = std::make_shared<const Graph>(repaired(*e.options.quantized, *weight, *original, least.broken))}}});
  }
  if (suspects.size() > 1) {
    const Suspect& worst = *std::max_element(suspects.begin(), suspects.end(), [](auto& a, auto& b) { return a.weight < b.weight; });
    suspects.push_back({worst.layer,
                        fmt::format("the quantized weights of {} layers are not the float ones; {}", suspects.size(), worst.evidence),
                        worst.weight * 2,
                        {{.words = "what is broken of all these weights quantized again from the float model",
                          .rules = e.rules,
                          .repaired = std::make_shared<const Graph>(std::move(all))}}});
  }
  return suspects;
}

}  // namespace qc
