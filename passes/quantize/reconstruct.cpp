// reconstruct: on a graph with observers, picks integers and bias of layers so that their results come nearest to what they should be, on
// what the layers read where the model before them is quantized already: what that lacks is made up for, and not only their own rounding.
// With inputs x and wanted results y, both less their means, the squared error of an output channel with the weights v is
//   sum (v x - y)^2 = d^T H d - 2 d^T m + const,    d = v - w,  H = sum x x^T,  m = sum (y - w x) x
// so that no gradient has to be run: integers descend on it one by one (passes/quantize/integer_descent.h), and the bias takes the means.
// x and y come from cx.provide(ResponseByLayer); layers without are left alone.  The option `correlation` stands in for them: inputs that
// go together so, and results that are those of the weights; with `shift`, more than that by so much.  Tests: tests/golden/reconstruct.
#include <algorithm>
#include <cmath>
#include <limits>

#include "passes/passes.h"
#include "passes/quantize/integer_descent.h"
#include "passes/quantize/reconstructed_layers.h"

namespace qc {
namespace {

constexpr int64_t kScales = 64;

LayerResponse standIn(const Node& layer, double correlation, double shift) {
  const Tensor& w = *layer.operand("w")->constant();
  LayerResponse r{correlatedInputs(layer, correlation), {}, {}};
  r.inputs.sum.assign(usize(r.inputs.groups * r.inputs.depth), 0.0);
  const int64_t channels = w.sizes()[0], depth = r.inputs.depth, perGroup = channels / r.inputs.groups;
  for (int64_t c = 0; c < channels; ++c) {
    const float* gram = r.inputs.gram.data() + c / perGroup * depth * depth;
    for (int64_t i = 0; i < depth; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < depth; ++j) sum += static_cast<double>(nth(w.as<float>(), c * depth + j)) * gram[j * depth + i];
      r.cross.push_back(static_cast<float>(sum));
    }
    r.sum.push_back(shift * static_cast<double>(r.inputs.positions));
  }
  return r;
}

// The same sums of inputs and results less their means.
void takeOffMeans(LayerResponse& r) {
  LayerStatistics& t = r.inputs;
  const int64_t depth = t.depth, channels = static_cast<int64_t>(r.sum.size()), perGroup = channels / t.groups;
  const auto positions = static_cast<double>(t.positions);
  for (int64_t g = 0; g < t.groups; ++g)
    for (int64_t i = 0; i < depth; ++i)
      for (int64_t j = 0; j < depth; ++j) {
        float& product = nth(t.gram, (g * depth + i) * depth + j);
        product = static_cast<float>(static_cast<double>(product) - nth(t.sum, g * depth + i) * nth(t.sum, g * depth + j) / positions);
      }
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < depth; ++i) {
      float& product = nth(r.cross, c * depth + i);
      product = static_cast<float>(static_cast<double>(product) - nth(r.sum, c) * nth(t.sum, c / perGroup * depth + i) / positions);
    }
}

// m: what results lack with the weights as they are.
std::vector<float> missing(const LayerResponse& r, const Tensor& w) {
  const LayerStatistics& t = r.inputs;
  const int64_t depth = t.depth, channels = w.sizes()[0], perGroup = channels / t.groups;
  const double keep = t.trustOfProducts();
  std::vector<float> m(usize(channels * depth));
  std::vector<double> made(usize(depth), 0.0);
  for (int64_t c = 0; c < channels; ++c) {
    std::fill(made.begin(), made.end(), 0.0);
    const float* gram = t.gram.data() + c / perGroup * depth * depth;
    for (int64_t j = 0; j < depth; ++j) {
      const auto weight = static_cast<double>(nth(w.as<float>(), c * depth + j));
      for (int64_t i = 0; i < depth; ++i) nth(made, i) += weight * static_cast<double>(gram[j * depth + i]);
    }
    for (int64_t i = 0; i < depth; ++i)
      nth(m, c * depth + i) = static_cast<float>(keep * (static_cast<double>(nth(r.cross, c * depth + i)) - nth(made, i)));
  }
  return m;
}

// The bias by which results with these weights have the wanted means; what is added to the old one is drawn towards nothing by the weight
// of one sample.
Tensor meanBias(const LayerResponse& r, const Tensor& w, const Tensor* old) {
  const LayerStatistics& t = r.inputs;
  const int64_t channels = w.sizes()[0], perGroup = channels / t.groups;
  Tensor bias(DType::f32, old ? old->sizes() : std::vector<int64_t>{channels});
  for (int64_t c = 0; c < channels; ++c) {
    double mean = nth(r.sum, c) / static_cast<double>(t.positions);
    for (int64_t i = 0; i < t.depth; ++i)
      mean -= static_cast<double>(nth(w.as<float>(), c * t.depth + i)) * t.mean(c / perGroup * t.depth + i);
    const double before = old ? static_cast<double>(nth(old->as<float>(), c)) : 0.0;
    const auto drawn = static_cast<float>(before + (mean - before) * t.trust());
    nth(bias.mutableAs<float>(), c) = std::isfinite(drawn) ? drawn : static_cast<float>(before);
  }
  return bias;
}

bool fits(const LayerResponse& r, const Node& node) {
  const Tensor& w = *node.operand("w")->constant();
  const LayerStatistics& t = r.inputs;
  const Value* bias = node.operand("bias");
  return t.positions > 0 && t.depth > 0 && w.numElements() == w.sizes()[0] * t.depth && w.sizes()[0] % t.groups == 0 &&
         static_cast<int64_t>(t.gram.size()) == t.groups * t.depth * t.depth && static_cast<int64_t>(r.cross.size()) == w.numElements() &&
         static_cast<int64_t>(r.sum.size()) == w.sizes()[0] && static_cast<int64_t>(t.sum.size()) == t.groups * t.depth &&
         (!bias || (bias->constant() && bias->constant()->dtype() == DType::f32 && bias->constant()->numElements() == w.sizes()[0]));
}

}  // namespace

namespace {

constexpr int64_t kStepsOf7Bits = 127, kStepsOf4Bits = 15;

int64_t stepsOfWeight(const Node& layer) {
  const QuantSpec& spec = layer.annotation()->inputs[1];
  if (const auto* observed = std::get_if<ObservedSpec>(&spec)) return observed->qmax - observed->qmin;
  const auto* fixed = std::get_if<FixedSpec>(&spec);
  return fixed ? fixed->params.qmax - fixed->params.qmin : std::numeric_limits<int64_t>::max();
}

bool readsFewBits(const Node& layer) {
  const Node* observe = layer.operand(0)->producer();
  const auto* spec =
      observe && observe->is("observe") && observe->annotation() ? std::get_if<ObservedSpec>(&observe->annotation()->output) : nullptr;
  return spec && spec->qmax - spec->qmin < kStepsOf7Bits;
}

}  // namespace

bool reconstructs(std::string_view choice, const Node& layer) {
  return choice == "auto" ? stepsOfWeight(layer) < kStepsOf7Bits || readsFewBits(layer) : choice != "off";
}

bool reconstructsTogether(std::string_view choice, const std::vector<const Node*>& layers) {
  if (choice != "auto") return choice == "on";
  return std::any_of(layers.begin(), layers.end(),
                     [](const Node* layer) { return stepsOfWeight(*layer) < kStepsOf4Bits - 1 || readsFewBits(*layer); });
}

Status reconstruct(Graph& graph, PassContext& cx) {
  const double correlation = cx.options.real("correlation"), shift = cx.options.real("shift");
  const auto* known = cx.get<ResponseByLayer>();
  ReconstructedLayers done;
  if (const auto* before = cx.get<ReconstructedLayers>()) done = *before;
  int layers = 0;
  for (Node* node : graph.nodes()) {
    if (!isRoundable(*node)) continue;
    LayerResponse response;
    if (correlation > 0) {
      response = standIn(*node, correlation, shift);
    } else if (const auto it = known ? known->find(node->result()->name()) : ResponseByLayer::const_iterator();
               known && it != known->end()) {
      response = it->second;
    } else {
      continue;
    }
    if (!fits(response, *node)) continue;
    LayerResponse centred = response;
    takeOffMeans(centred);
    int64_t moved = 0;
    const std::vector<float> lacks = missing(centred, *node->operand("w")->constant());
    QC_ASSIGN(const bool rounded, roundLayer(graph, node, centred.inputs, lacks, kScales, moved));
    if (!rounded) continue;
    const Value* old = node->operand("bias");
    Builder b(graph);
    b.before(node);
    Value* bias = b.constant((old ? old->name() : node->result()->name() + "_bias") + "_reconstructed",
                             meanBias(response, *node->operand("w")->constant(), old ? old->constant() : nullptr));
    while (node->numOperands() < 3) node->addOperand(nullptr);
    node->setOperand("bias", bias);
    auto& inputs = node->annotation()->inputs;
    if (inputs.size() < 3) inputs.resize(3);
    inputs[2] = DerivedSpec{{{node->result()->name(), 0}, {node->result()->name(), 1}}, "bias", DType::s32};
    done.names.insert(node->result()->name());
    ++layers;
    cx.countHits({{"moved", static_cast<int>(moved)}});
  }
  cx.countHits({{"layers", layers}});
  cx.provide(std::move(done));
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
