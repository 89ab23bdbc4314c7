// Observers and samples that make ranges which do not fit the values.
#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/insight/causes/cause.h"

namespace qc {
namespace {

constexpr double kClippedNoise = 1e-5;  // -50 dB of a value's own signal
constexpr double kWider = 2;            // than without that sample

// What the integers hold, and what there is.
std::string fit(const ValueFacts& v) {
  const double width = v.high - v.low;
  const double used = width > 0 ? std::max(0.0, std::min(v.seenHigh, v.high) - std::max(v.seenLow, v.low)) / width : 0;
  std::string text =
      fmt::format("{} holds {:.4g} to {:.4g}, calibration saw {:.4g} to {:.4g}", v.node, v.low, v.high, v.seenLow, v.seenHigh);
  if (v.clipped > 0) text += fmt::format(", {:.2g}% of held-out values are clipped", v.clipped * 100);
  if (used < 0.5) text += fmt::format(", {:.1f}% of the steps are used", used * 100);
  return text;
}

// How badly a range fits: noise of clipping, or steps that are not used.
double misfit(const ValueFacts& v) {
  const double seen = std::max(1e-30, v.seenHigh - v.seenLow);
  return std::max(v.clippedNoise, std::pow((v.high - v.low) / seen, 2) / 12 / 65536);
}

std::string nameOf(const ObservedSpec& spec) {
  std::string text = toString(QuantSpec(spec));
  const size_t dot = text.find('.');
  return dot == std::string::npos ? text : text.substr(dot + 1);
}

}  // namespace

Result<std::vector<Suspect>> wrongObservers(const Evidence& e) {
  const ObservedSpec usual = defaultQConfig(Backend::x86).activation;
  std::map<std::string, std::vector<const ValueFacts*>> byObserver;
  for (const ValueFacts& v : e.values)
    if (v.spec.observer != usual.observer || !(v.spec.observerArgs == usual.observerArgs)) byObserver[nameOf(v.spec)].push_back(&v);
  std::vector<Suspect> suspects;
  for (const auto& [name, values] : byObserver) {
    const ValueFacts& worst = **std::max_element(values.begin(), values.end(), [](auto* a, auto* b) { return misfit(*a) < misfit(*b); });
    if (worst.spec.observer == "fixed" && worst.clippedNoise > kClippedNoise) continue;  // a range that clips, whoever chose it
    Fix fix{.words = fmt::format("the {} observer in its place", usual.observer), .rules = e.rules};
    for (QConfigMapping::Rule rule : e.rules.rules()) {
      if (!rule.entry || nameOf(rule.entry->activation) != name) continue;
      rule.entry->activation.observer = usual.observer;
      rule.entry->activation.observerArgs = usual.observerArgs;
      fix.rules.set(std::move(rule));
    }
    suspects.push_back(
        {worst.node, fmt::format("{} sets the ranges of {} values: {}", name, values.size(), fit(worst)), misfit(worst), {fix}});
  }
  return suspects;
}

Result<std::vector<Suspect>> clippedRanges(const Evidence& e) {
  std::vector<Suspect> suspects;
  const auto whole = [](ObservedSpec& spec) {
    spec.observer = "minmax";
    spec.observerArgs = {};
  };
  std::vector<std::string> all;
  const ValueFacts* worst = nullptr;
  for (const ValueFacts& v : e.values) {
    if (v.clippedNoise < kClippedNoise || v.spec.observer == "minmax") continue;
    const std::vector<std::string>& nodes = v.writers.empty() ? v.readers : v.writers;
    if (nodes.empty()) continue;
    all.insert(all.end(), nodes.begin(), nodes.end());
    if (!worst || v.clippedNoise > worst->clippedNoise) worst = &v;
    Fix fix{.words = "the whole range (minmax) there", .rules = withActivations(e.rules, e, nodes, whole)};
    suspects.push_back({v.node, fit(v), v.clippedNoise, {fix}});
  }
  if (suspects.size() > 1)
    suspects.push_back({worst->node,
                        fmt::format("{} ranges are clipped; {}", suspects.size(), fit(*worst)),
                        worst->clippedNoise * 2,
                        {{.words = "the whole range (minmax) for all of them", .rules = withActivations(e.rules, e, all, whole)}}});
  return suspects;
}

Result<std::vector<Suspect>> oneSample(const Evidence& e) {
  const int64_t count = e.calibration.size();
  if (count < 3) return std::vector<Suspect>();
  std::vector<Suspect> suspects;
  for (int64_t s = 0; s < count; ++s) {
    int64_t ends = 0;
    double most = 0;
    const ValueFacts* widest = nullptr;
    for (const ValueFacts& v : e.values) {
      double low = HUGE_VAL, high = -HUGE_VAL;
      for (int64_t i = 0; i < count; ++i)
        if (i != s) low = std::min(low, nth(v.bySample, i).first), high = std::max(high, nth(v.bySample, i).second);
      const double ratio = (v.seenHigh - v.seenLow) / std::max(1e-30, high - low);
      if (!(ratio >= kWider)) continue;
      ++ends;
      if (ratio > most) most = ratio, widest = &v;
    }
    if (!widest) continue;
    const std::string name = e.calibration.sampleName(s);
    std::vector<int64_t> others;
    for (int64_t i = 0; i < count; ++i)
      if (i != s) others.push_back(i);
    const Dataset all = e.calibration;
    QC_ASSIGN(Dataset rest,
              callbackDataset(count - 1, [all, others](int64_t i) { return all.sample(nth(others, i)); }, e.model, "without " + name));
    suspects.push_back(
        {name,
         fmt::format("sample '{}' alone makes the ranges of {} of {} values wider, that of {} {:.1f} times", name, ends, e.values.size(),
                     widest->node, most),
         static_cast<double>(ends) * std::min(most, 10.0),
         {{.words = fmt::format("calibration without '{}'", name), .rules = e.rules, .calibration = rest, .leftOut = {name}}}});
  }
  return suspects;
}

}  // namespace qc
