// Calibration samples that are too few, or not prepared like those that the model is used with.
#include <cmath>

#include "runtime/insight/causes/cause.h"
#include "runtime/insight/sensitivity.h"

namespace qc {
namespace {

constexpr double kFlattered = 1.5;  // dB of samples that were seen above those that were not
constexpr int64_t kFew = 8;

Result<Dataset> picked(const Evidence& e, const std::vector<std::pair<bool, int64_t>>& which, const std::string& label) {
  const Dataset own = e.calibration, other = e.heldOut;
  return callbackDataset(
      static_cast<int64_t>(which.size()),
      [own, other, which](int64_t i) {
        const auto& [isOwn, index] = nth(which, i);
        return (isOwn ? own : other).sample(index);
      },
      e.model, label);
}

// Settings in words of a source, those of which samples are taken aside.
std::string sourceText(const std::string& source, const Preprocessing& how) {
  std::string text;
  for (const auto& [name, value] : how.settings) {
    if (name == "skip" || name == "limit" || value.find(' ') != std::string::npos) continue;
    text += fmt::format("{}{}={}", text.empty() ? "?" : "&", name, value);
  }
  return source + text;
}

}  // namespace

Result<std::vector<Suspect>> fewSamples(const Evidence& e) {
  const int64_t count = e.calibration.size(), held = e.heldOut.size();
  if (held < 2 || (e.inSample - e.decibels < kFlattered && count > kFew)) return std::vector<Suspect>();
  std::vector<std::pair<bool, int64_t>> more, judged;
  for (int64_t i = 0; i < count; ++i) more.emplace_back(true, i);
  for (int64_t i = 0; i < held; ++i) (i % 4 == 3 || i + 1 == held ? judged : more).emplace_back(false, i);
  Fix fix{.words = fmt::format("{} more samples of the kind that is measured on", static_cast<int64_t>(more.size()) - count),
          .rules = e.rules};
  QC_ASSIGN(fix.calibration, picked(e, more, "more"));
  QC_ASSIGN(fix.judged, picked(e, judged, "rest"));
  return std::vector<Suspect>{
      {"calibration samples",
       fmt::format("few calibration samples ({}): held-out SQNR {:.1f} dB below in-sample", count, std::max(0.0, e.inSample - e.decibels)),
       1,
       {fix}}};
}

Result<std::vector<Suspect>> inputUnits(const Evidence& e) {
  std::vector<Suspect> suspects;
  const auto own = e.calibration.parts(), other = e.heldOut.parts();
  for (const InputFacts& seen : e.seenInputs)
    for (const InputFacts& held : e.heldInputs) {
      if (seen.name != held.name || !(seen.deviation > 0) || !(held.deviation > 0)) continue;
      const double ratio = held.deviation / seen.deviation, shift = std::fabs(held.mean - seen.mean) / held.deviation;
      if (ratio > 0.67 && ratio < 1.5 && shift < 0.5) continue;
      Suspect suspect{seen.name,
                      fmt::format("input '{}' has mean {:.4g} and deviation {:.4g} in calibration, {:.4g} and {:.4g} where it is measured",
                                  seen.name, seen.mean, seen.deviation, held.mean, held.deviation),
                      std::max({ratio, 1 / ratio, shift}),
                      {}};
      if (e.options.open && own.size() == 1 && other.size() == 1 && own[0].how.settings != other[0].how.settings) {
        const std::string text = sourceText(own[0].how.source, other[0].how);
        if (auto opened = e.options.open(text); opened && opened->size() > 0) {
          opened->keepFirst(e.calibration.size());
          suspect.fixes.push_back({.words = "calibration samples prepared like those that are measured on: -d '" + text + "'",
                                   .rules = e.rules,
                                   .calibration = *opened,
                                   .source = text});
        }
      }
      const double offset = seen.mean - held.mean / ratio;
      const Dataset all = e.calibration;
      const std::string name = seen.name;
      QC_ASSIGN(Dataset shifted, callbackDataset(
                                     all.size(),
                                     [all, name, offset, ratio](int64_t i) -> Result<Sample> {
                                       QC_ASSIGN(Sample sample, all.sample(i));
                                       if (const auto it = sample.find(name); it != sample.end())
                                         for (float& x : it->second.mutableAs<float>())
                                           x = static_cast<float>((static_cast<double>(x) - offset) * ratio);
                                       return sample;
                                     },
                                     e.model, "in other units"));
      suspect.fixes.push_back(
          {.words = fmt::format("calibration samples as (x - {:.4g}) / {:.4g}, which gives them the mean and deviation of "
                                "those that are measured on",
                                offset, 1 / ratio),
           .rules = e.rules,
           .calibration = shifted});
      suspects.push_back(std::move(suspect));
    }
  return suspects;
}

Result<std::vector<Suspect>> sensitiveLayers(const Evidence& e) {
  constexpr int64_t kMeasured = 6;
  QC_ASSIGN(const Judge judge, Judge::open(*e.trials.model().observed, e.heldOut, {.samples = e.options.samples}));
  QC_ASSIGN(const Sensitivity found, sensitivity(e.trials, judge, e.rules, {.top = kMeasured}));
  std::vector<Suspect> suspects;
  for (const SensitivityRow& row : found.rows) {
    if (!row.aloneFloat || *row.aloneFloat < e.decibels + e.options.leastGain) continue;
    suspects.push_back({row.unit.name,
                        fmt::format("alone in int8 it leaves {:.1f} dB at the outputs, without it the rest leaves {:.1f}",
                                    row.lossDecibels(), *row.aloneFloat),
                        *row.aloneFloat,
                        {in16Bits(e, {row.unit.name}), inFloat(e, {row.unit.name})}});
  }
  return suspects;
}

}  // namespace qc
