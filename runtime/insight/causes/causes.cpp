#include "runtime/insight/causes/cause.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace qc {
namespace {

constexpr CauseRow kCauses[] = {
    {"input-units", "calibration samples are prepared unlike those that the model is used with", inputUnits},
    {"broken-weight", "a weight of the quantized file is not the float one's", brokenWeights, 5, false, false, true},
    {"masked-scores", "the large negative constants of attention masks set ranges", maskedScores},
    {"exploding-bias", "a bias is beyond what int32 holds in steps of its layer's weights", explodingBiases},
    {"per-tensor-weights", "one scale for weights whose channels are of unlike size", perTensorWeights},
    {"wrong-observer", "an observer makes ranges that are far wider or narrower than the values", wrongObservers},
    {"clipped-range", "values beyond the end of a range are cut off", clippedRanges, 4},
    {"one-sample", "one calibration sample alone sets ranges", oneSample},
    {"shared-scale", "values of unlike range share a scale", sharedScales, 4},
    {"outlier-channel", "one channel is far larger than the rest", outlierChannels, 4},
    {"outlier-weight", "one weight is far larger than the others of its channel", outlierWeights},
    {"harmful-recipe", "what is to win accuracy back costs some", harmfulRecipes, 8, false, true},
    {"few-samples", "there are too few calibration samples", fewSamples},
    {"sensitive-layer", "int8 has too few steps for a layer", sensitiveLayers, 3, true, true},
};

}  // namespace

std::span<const CauseRow> causeTable() { return kCauses; }

std::vector<CauseKind> causeKinds() {
  std::vector<CauseKind> kinds;
  for (const CauseRow& row : kCauses) kinds.push_back({row.kind, row.what});
  return kinds;
}

const LayerUnit* Evidence::unitOf(std::string_view node) const {
  for (const LayerUnit& unit : units)
    if (std::find(unit.nodes.begin(), unit.nodes.end(), node) != unit.nodes.end()) return &unit;
  return nullptr;
}

const ValueFacts* Evidence::valueOf(std::string_view name) const {
  for (const ValueFacts& value : values)
    if (value.name == name) return &value;
  return nullptr;
}

std::vector<std::string> withoutRepeats(std::vector<std::string> names) {
  std::set<std::string> seen;
  std::erase_if(names, [&](const std::string& name) { return name.empty() || !seen.insert(name).second; });
  return names;
}

QConfigMapping withActivations(QConfigMapping rules, const Evidence& e, const std::vector<std::string>& nodes,
                               const std::function<void(ObservedSpec&)>& change) {
  for (const std::string& node : withoutRepeats(nodes)) {
    const LayerUnit* unit = e.unitOf(node);
    if (!unit || !unit->config) continue;
    QConfig config = *unit->config;
    change(config.activation);
    for (const std::string& member : unit->nodes) rules.name(member, config).force();
  }
  return rules;
}

Fix inFloat(const Evidence& e, const std::vector<std::string>& nodes) {
  Fix fix{.words = {}, .rules = e.rules, .finer = true};
  std::vector<std::string> names;
  for (const std::string& node : withoutRepeats(nodes)) {
    const LayerUnit* unit = e.unitOf(node);
    if (!unit) continue;
    names.push_back(unit->name);
    for (const std::string& member : unit->nodes) fix.rules.name(member, keepFloat());
  }
  fix.words = fmt::format("float for {}", fmt::join(withoutRepeats(names), ", "));
  return fix;
}

Fix in16Bits(const Evidence& e, const std::vector<std::string>& nodes) {
  Fix fix{.words = {}, .rules = e.rules, .finer = true};
  fix.rules = withActivations(e.rules, e, nodes, [](ObservedSpec& spec) {
    spec.dtype = spec.dtype == DType::s8 ? DType::s16 : DType::u16;
    const auto range = rangeOf(spec.dtype);
    spec.qmin = range.min, spec.qmax = range.max;
  });
  fix.words = fmt::format("16-bit activations for {}", fmt::join(withoutRepeats(nodes), ", "));
  return fix;
}

}  // namespace qc
