// Weights of a quantized file that are not those of the float model, whatever quantized them.
#include <algorithm>
#include <cmath>
#include <map>

#include "ir/qmath.h"
#include "quantizer/quantizer.h"
#include "runtime/insight/causes/cause.h"

namespace qc {
namespace {

// Against the noise of rounding to the nearest in the file's own steps: rounding by calibration data makes more of it, but not so much.
constexpr double kBeyondRounding = 8;

struct QuantizedWeight {
  const Node* layer = nullptr;
  const Value* integers = nullptr;
};

std::map<std::string, QuantizedWeight> weightsOf(const Graph& quantized) {
  std::map<std::string, QuantizedWeight> found;
  for (const Node* n = quantized.front(); n; n = n->next()) {
    if (n->numOperands() < 2 || n->numResults() != 1 || !(n->is("conv") || n->is("linear"))) continue;
    const Node* dequantize = n->operand(1) ? n->operand(1)->producer() : nullptr;
    if (!dequantize || !dequantize->is("dequantize") || !dequantize->operand(0)->constant()) continue;
    const auto& q = dequantize->operand(0)->type().quant;
    if (q && (q->axis == 0 || !q->perChannel()) && q->blockSize == 0)
      found.emplace(displayName(*n), QuantizedWeight{n, dequantize->operand(0)});
  }
  return found;
}

std::map<std::string, const Tensor*> floatWeights(const Graph& graph) {
  std::map<std::string, const Tensor*> found;
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->numOperands() < 2 || !(n->is("conv") || n->is("linear"))) continue;
    const Value* w = n->operand(1);
    if (w && w->constant() && w->type().dtype == DType::f32) found.emplace(displayName(*n), w->constant());
  }
  return found;
}

struct Difference {
  double noise = 0, expected = 0;
  int64_t channel = 0;  // with most of it
  double share = 0;     // that it has
};

Difference differenceOf(const Tensor& w, const Tensor& integers, const QuantParams& q) {
  Difference d;
  const auto x = w.as<float>();
  const int64_t rows = w.sizes()[0], inner = w.numElements() / std::max<int64_t>(1, rows);
  double most = 0;
  for (int64_t c = 0; c < rows; ++c) {
    const double s = q.scale(c);
    double row = 0;
    for (int64_t i = c * inner; i < (c + 1) * inner; ++i) row += std::pow(s * (integers.at(i) - q.zeroPoint(c)) - nth(x, i), 2);
    d.noise += row;
    d.expected += s * s / 12 * static_cast<double>(inner);
    if (row >= most) most = row, d.channel = c;
  }
  d.share = d.noise > 0 ? most / d.noise : 0;
  return d;
}

// The file's model with this weight made again from the float one, in the same type.
Graph repaired(const Graph& quantized, const QuantizedWeight& broken, const Tensor& w) {
  Graph graph = quantized.clone();
  Node* layer = graph.findValue(broken.layer->result()->name())->producer();
  Node* dequantize = layer->operand(1)->producer();
  QuantParams q = *broken.integers->type().quant;
  const auto x = w.as<float>();
  const int64_t rows = w.sizes()[0], inner = w.numElements() / std::max<int64_t>(1, rows);
  std::vector<float> largest(q.scales.size());
  for (int64_t i = 0; i < w.numElements(); ++i) {
    float& m = largest[q.perChannel() ? usize(i / inner) : 0];
    m = std::max(m, std::fabs(nth(x, i)));
  }
  for (size_t c = 0; c < largest.size(); ++c)
    if (q.zeroPoints[std::min(c, q.zeroPoints.size() - 1)] == 0 && largest[c] > 0) q.scales[c] = largest[c] / static_cast<float>(q.qmax);
  Tensor integers(q.storage, w.sizes());
  void* data = integers.mutableData();
  for (int64_t i = 0; i < w.numElements(); ++i) {
    const int64_t c = i / inner;
    storeElement(q.storage, data, i,
                 qmath::quantize(nth(x, i), q.scale(c), q.zeroPoint(c), static_cast<int32_t>(q.qmin), static_cast<int32_t>(q.qmax)));
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
  // As the float model has them, and as they are once channels were moved.
  const auto asGiven = floatWeights(*plain.simplified), moved = floatWeights(*e.trials.model().simplified);
  for (const auto& [name, weight] : weightsOf(*e.options.quantized)) {
    const Tensor& integers = *weight.integers->constant();
    const QuantParams& q = *weight.integers->type().quant;
    std::vector<const Tensor*> originals;
    for (const auto* all : {&asGiven, &moved})
      if (const auto it = all->find(name); it != all->end() && it->second->sizes() == integers.sizes()) originals.push_back(it->second);
    if (originals.empty() || integers.numElements() == 0) continue;
    std::optional<Difference> least;
    for (const Tensor* w : originals)
      if (const Difference d = differenceOf(*w, integers, q); !least || d.noise < least->noise) least = d;
    const double ratio = least->noise / std::max(1e-30, least->expected);
    if (ratio < kBeyondRounding) continue;
    Suspect suspect{name,
                    fmt::format("the quantized weight of {} is not the float one: {:.0f} times the noise of rounding, {:.0f}% of it in "
                                "channel {}",
                                name, ratio, least->share * 100, least->channel),
                    least->noise,
                    {}};
    for (const Tensor* w : originals)
      suspect.fixes.push_back({.words = "this weight quantized again from the float model",
                               .rules = e.rules,
                               .repaired = std::make_shared<const Graph>(repaired(*e.options.quantized, weight, *w))});
    suspects.push_back(std::move(suspect));
  }
  return suspects;
}

}  // namespace qc
