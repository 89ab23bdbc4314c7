// Channels of unlike size under one scale: of activations, of weights, of values that share an observer.
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
  QConfigMapping recipes = e.rules;
  bool more = false;
  for (const Recipe& recipe : qc::recipes()) {
    const RecoverOptions recovery = e.options.recover.under(e.rules);
    if (!recipe.movesChannels() || recovery.uses(recipe)) continue;
    recipes.recipe(std::string(recipe.name), std::string(recipe.byDefault));
    more = true;
  }
  for (const ValueFacts& v : e.values) {
    if (v.channels.size() < 4 || v.readers.empty()) continue;
    const auto largest = std::max_element(v.channels.begin(), v.channels.end());
    const double median = medianOf(v.channels), ratio = *largest / std::max(median, 1e-30);
    if (!(median > 0) || ratio < kOutlier) continue;
    std::vector<std::string> nodes = v.readers;
    nodes.insert(nodes.end(), v.writers.begin(), v.writers.end());
    Suspect suspect{v.node,
                    fmt::format("outlier channel {} of {}: range {:.0f} times the median", largest - v.channels.begin(), v.node, ratio),
                    ratio,
                    {in16Bits(e, nodes), inFloat(e, v.readers), inFloat(e, nodes)}};
    if (more) suspect.fixes.insert(suspect.fixes.begin(), Fix{.words = "what moves channels into weights switched on", .rules = recipes});
    suspects.push_back(std::move(suspect));
  }
  return suspects;
}

Result<std::vector<Suspect>> perTensorWeights(const Evidence& e) {
  std::string worst;
  double most = 0;
  int64_t layers = 0, channel = 0;
  std::vector<std::string> named;
  for (const Node* layer : int8Layers(*e.trials.model().observed)) {
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
  Fix fix{.words = "weights per channel", .rules = e.rules};
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
    const auto width = [](const ValueFacts* v) { return v->seenHigh - v->seenLow; };
    const auto [narrow, wide] =
        std::minmax_element(together.begin(), together.end(), [&](auto* a, auto* b) { return width(a) < width(b); });
    const double ratio = width(*wide) / std::max(1e-30, width(*narrow));
    if (!(ratio >= kUnlike)) continue;
    Fix fix{.words = fmt::format("float for {}, so that each has its own scale", displayName(*n)), .rules = e.rules, .finer = false};
    fix.rules.name(displayName(*n), keepFloat());
    suspects.push_back(
        {displayName(*n),
         fmt::format("scale shared by unlike ranges: {} is {:.4g} to {:.4g}, {} is {:.4g} to {:.4g}, {:.0f} times as wide", (*narrow)->node,
                     (*narrow)->seenLow, (*narrow)->seenHigh, (*wide)->node, (*wide)->seenLow, (*wide)->seenHigh, ratio),
         ratio,
         {fix}});
  }
  return suspects;
}

}  // namespace qc
