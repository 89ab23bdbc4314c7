// Channels of unlike size under one scale: of activations, of weights, of values that share an observer.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "quantizer/observers/observer.h"
#include "quantizer/quantizer.h"
#include "runtime/insight/causes/cause.h"
#include "runtime/insight/median.h"

namespace qc {
namespace {

constexpr double kOutlier = 8, kUnlike = 4;  // times the median; times as wide
constexpr double kOutlierWeight = 64;        // times the median: half a step of it is what most weights are

// What moves differences between channels into weights, where it is not in use.
std::optional<Fix> channelsMoved(const Evidence& e) {
  Fix fix{.words = "what moves channels into weights switched on", .rules = e.rules};
  const RecoverOptions recovery = e.options.recover.under(e.rules);
  for (const Recipe& recipe : qc::recipes())
    if (recipe.movesChannels() && !recovery.uses(recipe)) fix.rules.recipe(std::string(recipe.name), std::string(recipe.byDefault));
  return fix.rules.recipes() == e.rules.recipes() ? std::nullopt : std::optional(std::move(fix));
}

// A fix with the nodes that only move a value in float, so that what reads it rounds it by itself.
Fix roundedApart(Fix fix, const std::vector<std::string>& movers) {
  for (const std::string& node : movers) fix.rules.name(node, keepFloat());
  return fix;
}

std::vector<double> rowMaxima(const Tensor& w) {
  const int64_t rows = w.sizes()[0], inner = rows ? w.numElements() / rows : 0;
  std::vector<double> largest(usize(rows));
  const auto x = w.as<float>();
  for (int64_t i = 0; i < w.numElements(); ++i) {
    double& m = nth(largest, i / inner);
    m = std::max(m, static_cast<double>(std::fabs(nth(x, i))));
  }
  return largest;
}

}  // namespace

Result<std::vector<Suspect>> outlierChannels(const Evidence& e) {
  std::vector<Suspect> suspects;
  const std::optional<Fix> moved = channelsMoved(e);
  for (const ValueFacts& v : e.values) {
    if (v.channels.size() < 2 || v.readers.empty()) continue;
    const auto largest = std::max_element(v.channels.begin(), v.channels.end());
    std::vector<double> others = v.channels;
    others.erase(others.begin() + (largest - v.channels.begin()));
    const double median = medianOf(others), ratio = *largest / std::max(median, 1e-30);
    if (!(median > 0) || ratio < kOutlier) continue;
    std::vector<std::string> nodes = v.readers;
    nodes.insert(nodes.end(), v.writers.begin(), v.writers.end());
    Suspect suspect{v.node,
                    fmt::format("outlier channel {} of {}: range {:.0f} times the median", largest - v.channels.begin(), v.node, ratio),
                    ratio,
                    {}};
    if (moved) suspect.fixes.push_back(*moved);
    for (Fix& fix : std::vector<Fix>{in16Bits(e, nodes), inFloat(e, v.readers), inFloat(e, nodes)}) suspect.fixes.push_back(std::move(fix));
    suspects.push_back(std::move(suspect));
  }
  return suspects;
}

Result<std::vector<Suspect>> perTensorWeights(const Evidence& e) {
  std::string worst;
  double most = 0;
  int64_t layers = 0, channel = 0;
  std::vector<std::string> named;
  // As the float model has them: recipes may have moved what one scale does not bear into activations.
  QC_ASSIGN(const PreparedModel plain, prepareModel(e.model, e.rules));
  for (const Node* layer : int8Layers(*plain.observed)) {
    const auto* spec = std::get_if<ObservedSpec>(&layer->annotation()->inputs[1]);
    const Tensor& w = *layer->operand("w")->constant();
    if (!spec || scalesOf(*spec) != ScalesPer::tensor || w.dtype() != DType::f32 || w.numElements() == 0) continue;
    ++layers;
    named.push_back(displayName(*layer));
    const std::vector<double> rows = rowMaxima(w);
    const double ratio = *std::max_element(rows.begin(), rows.end()) / std::max(1e-30, medianOf(rows));
    if (ratio < most) continue;
    most = ratio;
    worst = named.back();
    channel = std::max_element(rows.begin(), rows.end()) - rows.begin();
  }
  if (layers == 0) return std::vector<Suspect>();
  Fix fix{.words = "weights per channel", .rules = e.rules, .anew = e.trials.movedChannels()};
  const auto finer = [](QConfig& config) {
    if (scalesOf(config.weight) != ScalesPer::tensor) return false;
    config.weight.observer = "per_channel_minmax";
    config.weight.axis = 0;
    config.weight.observerArgs = {};
    return true;
  };
  for (QConfigMapping::Rule rule : e.rules.rules())
    if (rule.entry && roleOf(rule.entry->weight) == ObserverRole::range && finer(*rule.entry)) fix.rules.set(std::move(rule));
  return std::vector<Suspect>{{worst,
                               fmt::format("{} layers have one scale for all their weights; in {} channel {} is {:.0f} times the median",
                                           layers, worst, channel, most),
                               most,
                               {fix}}};
}

Result<std::vector<Suspect>> sharedScales(const Evidence& e) {
  std::vector<Suspect> suspects;
  const Graph& observed = *e.trials.model().observed;
  for (const Node* n = observed.front(); n; n = n->next()) {
    if (n->numOperands() < 2 || !n->annotation() || n->is("observe")) continue;
    std::vector<const ValueFacts*> together;
    for (const Value* v : n->operands()) {
      while (v && v->producer() && v->producer()->is("observe")) v = v->producer()->operand(0);
      const ValueFacts* facts = v ? e.valueOf(v->name()) : nullptr;
      if (facts && !facts->sharedWith.empty()) together.push_back(facts);
    }
    if (together.size() < 2) continue;
    // Of their typical channels as well: one loud channel alone is another cause.
    const auto width = [](const ValueFacts* v) { return v->seenHigh - v->seenLow; };
    const auto typical = [](const ValueFacts* v) { return v->channels.empty() ? 0.0 : medianOf(v->channels); };
    const auto [narrow, wide] =
        std::minmax_element(together.begin(), together.end(), [&](auto* a, auto* b) { return width(a) < width(b); });
    const double ratio = width(*wide) / std::max(1e-30, width(*narrow));
    if (!(ratio >= kUnlike) || !(typical(*wide) >= kUnlike * typical(*narrow))) continue;
    std::vector<Fix> fixes;
    if (const std::optional<Fix> moved = channelsMoved(e)) fixes.push_back(*moved);
    const std::string self = displayName(*n);
    Fix apart{.words = fmt::format("float for {}, so that each has its own scale", self), .rules = e.rules};
    apart.rules.name(self, keepFloat());
    fixes.push_back(std::move(apart));
    // What reads them together has one scale for them again, with more steps or none.
    if (const ValueFacts* joined = e.valueOf(n->result()->name())) {
      std::vector<std::string> movers = joined->movers;
      movers.push_back(self);
      for (Fix& fix : std::vector<Fix>{in16Bits(e, joined->readers), inFloat(e, joined->readers)}) {
        fix = roundedApart(std::move(fix), movers);
        fix.words += fmt::format(", float for {}", fmt::join(movers, ", "));
        fixes.push_back(std::move(fix));
      }
    }
    suspects.push_back(
        {self,
         fmt::format("scale shared by unlike ranges: {} is {:.4g} to {:.4g}, {} is {:.4g} to {:.4g}, {:.0f} times as wide", (*narrow)->node,
                     (*narrow)->seenLow, (*narrow)->seenHigh, (*wide)->node, (*wide)->seenLow, (*wide)->seenHigh, ratio),
         ratio, std::move(fixes)});
  }
  return suspects;
}

// One weight that sets the steps of all others of its channel.
Result<std::vector<Suspect>> outlierWeights(const Evidence& e) {
  std::vector<Suspect> suspects;
  const std::optional<Fix> channels = channelsMoved(e);
  for (const Node* layer : int8Layers(*e.trials.model().observed)) {
    const Tensor& w = *layer->operand("w")->constant();
    if (w.dtype() != DType::f32 || w.numElements() == 0) continue;
    const int64_t rows = w.sizes()[0], inner = w.numElements() / rows;
    const auto x = w.as<float>();
    double most = 0;
    int64_t channel = 0;
    for (int64_t r = 0; r < rows && inner > 2; ++r) {
      std::vector<double> sizes(usize(inner));
      for (int64_t i = 0; i < inner; ++i) nth(sizes, i) = std::fabs(nth(x, r * inner + i));
      const double largest = *std::max_element(sizes.begin(), sizes.end()), median = medianOf(std::move(sizes));
      if (median > 0 && largest / median > most) most = largest / median, channel = r;
    }
    if (most < kOutlierWeight) continue;
    const std::string name = displayName(*layer);
    Suspect suspect{
        name, fmt::format("one weight of channel {} of {} is {:.0f} times the median of that channel", channel, name, most), most, {}};
    if (channels) suspect.fixes.push_back(*channels);
    suspect.fixes.push_back(inFloat(e, {name}));
    suspects.push_back(std::move(suspect));
  }
  return suspects;
}

}  // namespace qc
