// equalize-weights: for weights that have one scale a layer.  Between two layers with only a relu or a pool in the middle, channels are
// divided by a factor each in the first and multiplied by it in the second, so that the largest weight of each channel is the same in both:
// no channel is rounded to a few steps of a scale that another one needs (cross-layer equalization, Nagel et al. 2019, section 4.1).
// The value in between gets channels of other sizes, which is why this has to prove itself on samples (runtime/workflow).
// Tests: tests/golden/equalize_weights.
#include <algorithm>
#include <cmath>
#include <map>

#include "passes/graph_util.h"
#include "passes/passes.h"
#include "passes/quantize/channel_noise.h"
#include "passes/quantize/layer_pairs.h"

namespace qc {
namespace {

constexpr int kMaxChainSweeps = 40;  // pairs of a chain unsettle each other less and less
constexpr double kSettled = 1.01;    // a factor that is hardly one
constexpr double kMaxFactor = 1e3;   // of all sweeps together

// Absolute values of weights, with the factors by now.
using Weights = std::map<const Node*, std::vector<double>>;

std::vector<double>& weightsOf(Weights& all, const Node* layer) {
  const auto [it, isNew] = all.try_emplace(layer);
  if (isNew)
    for (const float w : floatConstant(layer->operand("w"))->as<float>()) it->second.push_back(std::fabs(static_cast<double>(w)));
  return it->second;
}

// Makes the largest weights of each channel equal on both sides of the pair.  Returns the greatest factor that this takes, up or down.
double settle(const FactorPair& pair, std::vector<double>& factors, Weights& all) {
  std::vector<double>& first = weightsOf(all, pair.producer);
  const size_t perOutput = first.size() / factors.size();
  std::vector<double> left(factors.size(), 0.0), right = left, change(factors.size(), 1.0);
  for (size_t i = 0; i < first.size(); ++i) left[i / perOutput] = std::max(left[i / perOutput], first[i]);
  for (const Node* reader : pair.readers) {
    const std::vector<double>& w = weightsOf(all, reader);
    InputChannels(*reader).each([&](size_t i, size_t c) { right[c] = std::max(right[c], w[i]); });
  }
  double greatest = 1;
  for (size_t c = 0; c < factors.size(); ++c) {
    if (!(left[c] > 0 && right[c] > 0 && std::isfinite(left[c]) && std::isfinite(right[c]))) continue;
    const double wanted = std::clamp(factors[c] * std::sqrt(left[c] / right[c]), 1 / kMaxFactor, kMaxFactor);
    change[c] = wanted / factors[c];
    factors[c] = wanted;
    greatest = std::max({greatest, change[c], 1 / change[c]});
  }
  for (size_t i = 0; i < first.size(); ++i) first[i] /= change[i / perOutput];
  for (const Node* reader : pair.readers) {
    std::vector<double>& w = weightsOf(all, reader);
    InputChannels(*reader).each([&](size_t i, size_t c) { w[i] *= change[c]; });
  }
  return greatest;
}

}  // namespace

Status equalizeWeights(Graph& graph, PassContext& cx) {
  const auto* looked = cx.get<ChannelsByValue>();  // who leaves a value out of these wants it to stay
  std::vector<FactorPair> pairs;
  for (Node* node : graph.nodes())
    if (std::optional<FactorPair> pair = pairAt(*node); pair && (!looked || looked->contains(pair->value->name())))
      pairs.push_back(std::move(*pair));
  std::vector<std::vector<double>> factors;
  for (const FactorPair& pair : pairs) factors.emplace_back(usize(pair.channels), 1.0);
  Weights weights;
  double greatest = kSettled;
  for (int sweep = 0; sweep < kMaxChainSweeps && greatest >= kSettled; ++sweep) {
    greatest = 1;
    for (size_t p = 0; p < pairs.size(); ++p) greatest = std::max(greatest, settle(pairs[p], factors[p], weights));
  }
  Moves moves("equalize_weights");
  int moved = 0;
  for (size_t p = 0; p < pairs.size(); ++p) {
    for (double& each : factors[p]) each = static_cast<double>(static_cast<float>(each));  // as the file has them
    if (std::ranges::all_of(factors[p], [](double each) { return each < kSettled && each > 1 / kSettled; })) continue;
    moveFactors(graph, pairs[p], factors[p], moves);
    ++moved;
  }
  moves.addTo(graph);
  cx.countHits({{"pairs", moved}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
