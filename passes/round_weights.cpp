// round-weights: on a graph with observers, picks the integers of each int8 weight so that the layer's result moves least on the
// calibration data, instead of each integer being the nearest.  With H = sum of x x^T over the layer's inputs, the squared change of an
// output channel is d^T H d, where d = s * q - w.  Starting from the nearest integers, one integer after the other moves to where this is
// least given all others, until none moves: the problem that GPTQ and AdaRound approximate, by coordinate descent.  Each channel does so
// under several scales, at most as many as the option `scales` says, and takes the best.
// The weight becomes what its integers stand for, and its spec the fixed parameters, so that convert finds the same integers.
// H comes from cx.provide(StatisticsByLayer); layers without one are left alone.  The option `correlation` stands in for data: H_ij =
// correlation ^ |i - j|.  Tests: tests/golden/round_weights.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ir/qmath.h"
#include "passes/passes.h"
#include "quantizer/layer_statistics.h"
#include "quantizer/multiversion.h"
#include "quantizer/observer.h"

namespace qc {
namespace {

// Few positions say little about how inputs go together: H is drawn towards its diagonal by the weight of this many positions per input.
constexpr double kPrior = 0.5;
constexpr double kDamping = 1e-3;  // of the mean diagonal, added to it
constexpr int kMostSweeps = 30;
// Scales tried for a channel, around the one that just holds its largest weight: some make the errors of its weights cancel out better.
// Short sums gain most, having the fewest integers to balance; for long ones each trial costs most.
constexpr float kNarrowest = 0.9f, kWidest = 1.1f;
constexpr int64_t kScaleBudget = 1024;
int64_t scalesTried(int64_t depth, int64_t most) { return std::clamp<int64_t>(kScaleBudget / std::max<int64_t>(1, depth), 1, most); }

QC_MULTIVERSION void addScaled(const float* row, float factor, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; ++i) sum[i] += factor * row[i];
}

std::vector<float> regularized(const float* gram, int64_t depth, int64_t positions) {
  std::vector<float> h(gram, gram + depth * depth);
  double trace = 0;
  for (int64_t i = 0; i < depth; ++i) trace += h[static_cast<size_t>(i * depth + i)];
  const auto damping = static_cast<float>(trace / static_cast<double>(depth) * kDamping);
  const auto keep =
      static_cast<float>(static_cast<double>(positions) / (static_cast<double>(positions) + kPrior * static_cast<double>(depth)));
  for (int64_t i = 0; i < depth; ++i)
    for (int64_t j = 0; j < depth; ++j)
      h[static_cast<size_t>(i * depth + j)] = h[static_cast<size_t>(i * depth + j)] * (i == j ? 1 : keep) + (i == j ? damping : 0);
  return h;
}

// One output channel: integers in q, as floats.  Returns how many moved, and the squared change that is left.
struct Descent {
  int64_t moved = 0;
  double change = 0;
};
Descent descend(const std::vector<float>& h, int64_t depth, const float* w, float scale, float low, float high, float* q) {
  std::vector<float> gradient(static_cast<size_t>(depth), 0.0f);  // H d
  int64_t changed = 0;
  for (int64_t j = 0; j < depth; ++j)
    if (const float d = scale * q[j] - w[j]; d != 0) addScaled(h.data() + j * depth, d, depth, gradient.data());
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    int64_t moved = 0;
    for (int64_t j = 0; j < depth; ++j) {
      const float curvature = h[static_cast<size_t>(j * depth + j)];
      if (!(curvature > 0)) continue;
      const float next = std::clamp(q[j] - std::nearbyint(gradient[static_cast<size_t>(j)] / (curvature * scale)), low, high);
      if (next == q[j] || !std::isfinite(next)) continue;
      addScaled(h.data() + j * depth, (next - q[j]) * scale, depth, gradient.data());
      q[j] = next;
      ++moved;
    }
    changed += moved;
    if (!moved) break;
  }
  double change = 0;
  for (int64_t j = 0; j < depth; ++j) change += static_cast<double>(scale * q[j] - w[j]) * gradient[static_cast<size_t>(j)];
  return {changed, change};
}

LayerStatistics standIn(const Node& layer, const Tensor& weight, double correlation) {
  LayerStatistics t;
  t.groups = layer.is("conv") ? layer.integer("group") : 1;
  t.depth = weight.numElements() / weight.sizes()[0];
  t.positions = int64_t{1} << 40;
  for (int64_t g = 0; g < t.groups; ++g)
    for (int64_t i = 0; i < t.depth; ++i)
      for (int64_t j = 0; j < t.depth; ++j) t.gram.push_back(static_cast<float>(std::pow(correlation, std::abs(i - j))));
  return t;
}

// The weight that its best integers stand for.
Tensor roundedWeight(const Tensor& weight, QuantParams& params, const LayerStatistics& t, int64_t mostScales, int64_t& moved) {
  Tensor out(DType::f32, weight.sizes());
  const auto low = static_cast<int32_t>(params.qmin), high = static_cast<int32_t>(params.qmax);
  const int64_t channels = weight.sizes()[0], perGroup = channels / t.groups;
  std::vector<float> h, q(static_cast<size_t>(t.depth)), attempt(q);
  for (int64_t c = 0; c < channels; ++c) {
    if (c % perGroup == 0) h = regularized(t.gram.data() + c / perGroup * t.depth * t.depth, t.depth, t.positions);
    const float* w = weight.as<float>().data() + c * t.depth;
    const float observed = params.scale(c);
    const int64_t candidates = params.perChannel() ? scalesTried(t.depth, mostScales) : 1;
    double least = std::numeric_limits<double>::infinity();
    float scale = observed;
    int64_t movedHere = 0;
    for (int64_t k = 0; k < candidates; ++k) {
      const float step = (kWidest - kNarrowest) / static_cast<float>(candidates);
      const float tried = k == 0 ? observed : observed * (kWidest - step * static_cast<float>(k - 1));
      for (int64_t i = 0; i < t.depth; ++i)
        attempt[static_cast<size_t>(i)] = static_cast<float>(qmath::quantize(w[i], tried, 0, low, high));
      const Descent d = descend(h, t.depth, w, tried, static_cast<float>(low), static_cast<float>(high), attempt.data());
      if (k > 0 && !(d.change < least)) continue;
      least = d.change;
      scale = tried;
      movedHere = d.moved;
      q = attempt;
    }
    moved += movedHere;
    if (params.perChannel()) params.scales[static_cast<size_t>(c)] = scale;
    for (int64_t i = 0; i < t.depth; ++i) out.mutableAs<float>()[static_cast<size_t>(c * t.depth + i)] = scale * q[static_cast<size_t>(i)];
  }
  return out;
}

bool roundable(const QuantParams& params) {
  return std::all_of(params.zeroPoints.begin(), params.zeroPoints.end(), [](int32_t z) { return z == 0; }) &&
         (params.axis == 0 || params.axis < 0) && !params.scales.empty();
}

}  // namespace

Status roundWeights(Graph& graph, PassContext& cx) {
  const double correlation = cx.options.real("correlation");
  const int64_t mostScales = std::max<int64_t>(1, cx.options.integer("scales"));
  const auto* known = cx.get<StatisticsByLayer>();
  int layers = 0;
  for (Node* node : graph.nodes()) {
    auto& annotation = node->annotation();
    if (!annotation || annotation->inputs.size() < 2 || !(node->is("conv") || node->is("linear"))) continue;
    const auto* spec = std::get_if<ObservedSpec>(&annotation->inputs[1]);
    const Tensor* weight = node->operand(1)->constant();
    // A weight that others read keeps one set of integers, the nearest.
    if (!spec || !weight || weight->dtype() != DType::f32 || !node->operand(1)->hasOneUse() || weight->numElements() == 0) continue;
    LayerStatistics replacement;
    const LayerStatistics* statistics = nullptr;
    if (correlation > 0) {
      replacement = standIn(*node, *weight, correlation);
      statistics = &replacement;
    } else if (known) {
      if (const auto it = known->find(node->result()->name()); it != known->end()) statistics = &it->second;
    }
    if (!statistics || statistics->gram.empty() || statistics->positions == 0) continue;
    if (weight->sizes()[0] % statistics->groups || weight->numElements() != weight->sizes()[0] * statistics->depth) continue;
    QC_ASSIGN(QuantParams params, observeConstant(*weight, *spec));
    if (!roundable(params)) continue;
    int64_t moved = 0;
    Tensor rounded = roundedWeight(*weight, params, *statistics, mostScales, moved);
    Builder b(graph);
    b.before(node);
    Value* constant = b.constant(node->operand(1)->name() + "_rounded", std::move(rounded));
    node->setOperand(1, constant);
    annotation->inputs[1] = FixedSpec{std::move(params)};
    ++layers;
    cx.countHits({{"moved", static_cast<int>(moved)}});
  }
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
