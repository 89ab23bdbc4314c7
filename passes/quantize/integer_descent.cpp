#include "passes/quantize/integer_descent.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "quantizer/observers/multiversion.h"
#include "quantizer/observers/observer.h"

namespace qc {
namespace {

constexpr double kDamping = 1e-3;  // of the mean diagonal, added to it
constexpr int kMaxSweeps = 30;
// Scales tried for a channel, around the one that just holds its largest weight: some make the errors of its weights cancel out better.
// Short sums gain most, having the fewest integers to balance; for long ones each trial costs most.
constexpr float kNarrowest = 0.9f, kWidest = 1.1f;
constexpr int64_t kScaleBudget = 1024;
int64_t scalesTried(int64_t depth, int64_t maxScales) {
  return std::clamp<int64_t>(kScaleBudget / std::max<int64_t>(1, depth), 1, maxScales);
}

constexpr int64_t kLanes = 16;
constexpr int64_t kBatch = 8;  // candidates that share a pass over H

QC_MULTIVERSION void addScaled(const float* row, float factor, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; ++i) sum[i] += factor * row[i];
}

// The nearest integers; what is not a number becomes 0.
QC_MULTIVERSION void roundToNearest(const float* w, int64_t n, float scale, float low, float high, float* q) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = w[i] / scale;
    q[i] = std::clamp(std::nearbyint(v == v ? v : 0.0f), low, high) + 0.0f;  // no -0
  }
}

// The products H * d for kBatch candidates, each summed in order: kLanes columns of H at a time, the d of the candidates interleaved.
QC_MULTIVERSION void multiply(const float* panels, const float* d, int64_t depth, int64_t padded, float* product) {
  using Lanes [[gnu::vector_size(kLanes * sizeof(float))]] = float;
  for (int64_t first = 0; first < depth; first += kLanes, panels += depth * kLanes) {
    Lanes sum[kBatch] = {}, column;
    for (int64_t j = 0; j < depth; ++j) {
      std::memcpy(&column, panels + j * kLanes, sizeof(column));
#pragma GCC unroll 8
      for (int64_t a = 0; a < kBatch; ++a) sum[a] += d[j * kBatch + a] * column;
    }
    for (int64_t a = 0; a < kBatch; ++a) std::memcpy(product + a * padded + first, &sum[a], sizeof(sum[a]));
  }
}

// The integers of an output channel and what is known of them: lists of `padded` elements, a multiple of kLanes, with curvatures of 0 at
// their ends.
struct Weighed {
  const float *gradient, *curvature, *q;
  int64_t padded;
  float scale, low, high;
};

// The first integer from `j` on that has a better neighbour, given all others, and that neighbour; `padded` when there is none.
QC_MULTIVERSION int64_t nextMove(const Weighed& w, int64_t j, float& next) {
  const float *gradient = w.gradient, *curvature = w.curvature, *q = w.q;
  const float scale = w.scale, low = w.low, high = w.high;
  const int64_t padded = w.padded;
  float to[kLanes];
  int32_t moves[kLanes];
  for (int64_t first = j / kLanes * kLanes; first < padded; first += kLanes) {
    int32_t any = 0;
    for (int64_t i = 0; i < kLanes; ++i) {
      to[i] = std::clamp(q[first + i] - std::nearbyint(gradient[first + i] / (curvature[first + i] * scale)), low, high);
      moves[i] = (curvature[first + i] > 0) & (to[i] != q[first + i]) & (std::fabs(to[i]) <= std::numeric_limits<float>::max());
      any |= moves[i];
    }
    for (int64_t i = std::max<int64_t>(0, j - first); any && i < kLanes; ++i) {
      if (!moves[i]) continue;
      next = to[i];
      return first + i;
    }
  }
  return padded;
}

std::vector<float> regularized(const float* gram, const LayerStatistics& t) {
  const int64_t depth = t.depth;
  std::vector<float> h(gram, gram + depth * depth);
  double trace = 0;
  for (int64_t i = 0; i < depth; ++i) trace += nth(h, i * depth + i);
  const auto damping = static_cast<float>(trace / static_cast<double>(depth) * kDamping);
  const auto keep = static_cast<float>(t.trustOfProducts());  // H is drawn towards its diagonal
  for (int64_t i = 0; i < depth; ++i)
    for (int64_t j = 0; j < depth; ++j) nth(h, i * depth + j) = nth(h, i * depth + j) * (i == j ? 1 : keep) + (i == j ? damping : 0);
  return h;
}

// H of a group of channels, in the forms that its readers want.
struct Curvature {
  int64_t depth = 0, padded = 0;           // to whole vectors
  std::vector<float> h, diagonal, panels;  // [depth, depth]; [padded]; [padded / kLanes, depth, kLanes]; zeros beyond
};

Curvature curvatureOf(const float* gram, const LayerStatistics& t) {
  const int64_t depth = t.depth;
  const int64_t padded = (depth + kLanes - 1) / kLanes * kLanes;
  Curvature c{depth, padded, regularized(gram, t), {}, {}};
  c.diagonal.assign(usize(padded), 0.0f);
  c.panels.assign(usize(padded * depth), 0.0f);
  for (int64_t j = 0; j < depth; ++j) {
    const float* row = c.h.data() + j * depth;
    nth(c.diagonal, j) = row[j];
    for (int64_t i = 0; i < depth; i += kLanes)
      std::copy_n(row + i, std::min(kLanes, depth - i), c.panels.data() + (i / kLanes * depth + j) * kLanes);
  }
  return c;
}

// One output channel under one scale: the integers, as floats, how many of them moved, and the squared change that is left.
struct Candidate {
  const float *w = nullptr, *missing = nullptr;  // missing: null: nothing
  float scale = 1;
  std::vector<float> q = {};
  int64_t moved = 0;
  double change = 0;
};

void descend(const Curvature& c, float low, float high, float* gradient, Candidate& a) {
  const Weighed weighed{gradient, c.diagonal.data(), a.q.data(), c.padded, a.scale, low, high};
  float next = 0;
  for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
    const int64_t before = a.moved;
    const auto from = [&](int64_t j) { return nextMove(weighed, j, next); };
    for (int64_t j = from(0); j < c.padded; j = from(j + 1)) {
      addScaled(c.h.data() + j * c.depth, (next - nth(a.q, j)) * a.scale, c.depth, gradient);
      nth(a.q, j) = next;
      ++a.moved;
    }
    if (a.moved == before) break;
  }
  for (int64_t j = 0; j < c.depth; ++j)
    a.change += static_cast<double>(a.scale * nth(a.q, j) - a.w[j]) * (a.missing ? gradient[j] - a.missing[j] : gradient[j]);
}

// At most kBatch of them.
void descendBatch(const Curvature& c, float low, float high, std::span<Candidate> candidates) {
  std::vector<float> d(usize(c.depth * kBatch)), gradients(usize(c.padded * kBatch));
  for (size_t k = 0; k < candidates.size(); ++k) {
    Candidate& a = candidates[k];
    a.q.assign(usize(c.padded), 0.0f);
    roundToNearest(a.w, c.depth, a.scale, low, high, a.q.data());
    for (int64_t j = 0; j < c.depth; ++j) d[usize(j * kBatch) + k] = a.scale * nth(a.q, j) - a.w[j];
  }
  multiply(c.panels.data(), d.data(), c.depth, c.padded, gradients.data());
  for (size_t k = 0; k < candidates.size(); ++k) {
    float* gradient = gradients.data() + static_cast<int64_t>(k) * c.padded;
    for (int64_t j = 0; candidates[k].missing && j < c.depth; ++j) gradient[j] -= candidates[k].missing[j];
    descend(c, low, high, gradient, candidates[k]);
  }
}

// Few levels leave large weights little room: scales that cut them are tried too, those that are best without regard to how errors of
// inputs go together.
constexpr int64_t kFewLevels = 16;
constexpr float kNarrowestOfFew = 0.4f;
constexpr int kGridOfFew = 48, kBestOfFew = 6;

std::vector<float> scalesOfFew(const QuantParams& params, float observed, const Candidate& channel, const Curvature& c) {
  std::vector<std::pair<double, float>> found;
  std::vector<float> q(usize(c.depth));
  for (int k = 0; k < kGridOfFew; ++k) {
    const float scale =
        observed * (kNarrowestOfFew + (kWidest - kNarrowestOfFew) * static_cast<float>(k) / static_cast<float>(kGridOfFew - 1));
    if (!(scale > 0)) continue;
    roundToNearest(channel.w, c.depth, scale, static_cast<float>(params.qmin), static_cast<float>(params.qmax), q.data());
    double error = 0;
    for (int64_t j = 0; j < c.depth; ++j) {
      const auto d = static_cast<double>(scale * nth(q, j) - channel.w[j]);
      error += d * d * static_cast<double>(nth(c.diagonal, j));
    }
    found.emplace_back(error, scale);
  }
  std::sort(found.begin(), found.end());
  std::vector<float> scales{observed};
  for (size_t k = 0; k < found.size() && k < kBestOfFew; ++k) scales.push_back(found[k].second);
  return scales;
}

// The scales that a channel is tried under, the observed one first.
std::vector<float> scalesFor(const QuantParams& params, int64_t channel, const Candidate& of, const Curvature& c, int64_t maxScales) {
  const float observed = params.scale(channel);
  const int64_t depth = c.depth;
  if (params.perChannel() && maxScales > 1 && params.qmax - params.qmin < kFewLevels) return scalesOfFew(params, observed, of, c);
  std::vector<float> scales{observed};
  const int64_t candidates = params.perChannel() ? scalesTried(depth, maxScales) : 1;
  const float step = (kWidest - kNarrowest) / static_cast<float>(candidates);
  for (int64_t k = 1; k < candidates; ++k) scales.push_back(observed * (kWidest - step * static_cast<float>(k - 1)));
  return scales;
}

// The weight that its best integers stand for.
Tensor roundedWeight(const Tensor& weight, QuantParams& params, const LayerStatistics& t, std::span<const float> missing, int64_t maxScales,
                     int64_t& moved) {
  Tensor out(DType::f32, weight.sizes());
  const auto low = static_cast<float>(params.qmin), high = static_cast<float>(params.qmax);
  const int64_t channels = weight.sizes()[0], perGroup = channels / t.groups;
  for (int64_t g = 0; g < t.groups; ++g) {
    const Curvature curvature = curvatureOf(t.gram.data() + g * t.depth * t.depth, t);
    std::vector<Candidate> candidates, best(usize(perGroup));
    const auto finish = [&] {
      descendBatch(curvature, low, high, candidates);
      for (Candidate& a : candidates) {
        Candidate& b = nth(best, (a.w - weight.as<float>().data()) / t.depth - g * perGroup);
        if (!b.w || a.change < b.change) b = std::move(a);
      }
      candidates.clear();
    };
    for (int64_t c = g * perGroup; c < (g + 1) * perGroup; ++c) {
      const Candidate channel{weight.as<float>().data() + c * t.depth, missing.empty() ? nullptr : missing.data() + c * t.depth};
      for (const float scale : scalesFor(params, c, channel, curvature, maxScales)) {
        candidates.push_back(channel);
        candidates.back().scale = scale;
        if (candidates.size() == kBatch) finish();
      }
    }
    finish();
    for (int64_t c = 0; c < perGroup; ++c) {
      const Candidate& b = nth(best, c);
      const auto channel = usize(g * perGroup + c);
      moved += b.moved;
      if (params.perChannel()) params.scales[channel] = b.scale;
      float* to = out.mutableAs<float>().data() + (g * perGroup + c) * t.depth;
      for (int64_t i = 0; i < t.depth; ++i) to[i] = b.scale * nth(b.q, i);
    }
  }
  return out;
}

bool roundable(const QuantParams& params) {
  return std::all_of(params.zeroPoints.begin(), params.zeroPoints.end(), [](int32_t z) { return z == 0; }) &&
         (params.axis == 0 || params.axis < 0) && params.blockSize == 0 && !params.scales.empty();
}

}  // namespace

Result<bool> roundLayer(Graph& graph, Node* node, const LayerStatistics& statistics, std::span<const float> missing, int64_t maxScales,
                        int64_t& moved) {
  auto& annotation = node->annotation();
  const auto* spec = std::get_if<ObservedSpec>(&annotation->inputs[1]);
  const Tensor* weight = node->operand("w")->constant();
  if (statistics.gram.empty() || statistics.positions == 0 || !statistics.isFinite() || !allFinite(missing)) return false;
  if (weight->sizes()[0] % statistics.groups || weight->numElements() != weight->sizes()[0] * statistics.depth) return false;
  QC_ASSIGN(QuantParams params, observeConstant(*weight, *spec));
  if (!roundable(params)) return false;
  Tensor rounded = roundedWeight(*weight, params, statistics, missing, maxScales, moved);
  Builder b(graph);
  b.before(node);
  Value* constant = b.constant(node->operand("w")->name() + "_rounded", std::move(rounded));
  node->setOperand("w", constant);
  annotation->inputs[1] = FixedSpec{std::move(params)};
  return true;
}

bool isRoundable(const Node& node) {
  const auto& annotation = node.annotation();
  if (!annotation || annotation->inputs.size() < 2 || !(node.is("conv") || node.is("linear"))) return false;
  const Tensor* weight = node.operand("w")->constant();
  return std::holds_alternative<ObservedSpec>(annotation->inputs[1]) && weight && weight->dtype() == DType::f32 &&
         node.operand("w")->hasOneUse() && weight->numElements() > 0;
}

LayerStatistics correlatedInputs(const Node& layer, double correlation) {
  const Tensor& weight = *layer.operand("w")->constant();
  LayerStatistics t;
  t.groups = layer.is("conv") ? layer.integer("group") : 1;
  t.depth = weight.numElements() / weight.sizes()[0];
  t.positions = t.samples = int64_t{1} << 40;
  for (int64_t g = 0; g < t.groups; ++g)
    for (int64_t i = 0; i < t.depth; ++i)
      for (int64_t j = 0; j < t.depth; ++j) t.gram.push_back(static_cast<float>(std::pow(correlation, std::abs(i - j))));
  return t;
}

}  // namespace qc
