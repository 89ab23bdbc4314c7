// Calibration samples that are too few, or not prepared like those that the model is used with.
#include <fmt/ranges.h>

#include <cmath>

#include "runtime/insight/causes/cause.h"
#include "runtime/insight/input_check.h"
#include "runtime/insight/sensitivity.h"

namespace qc {
namespace {

constexpr double kFlattered = 1.5;  // dB of samples that were seen above those that were not
constexpr int64_t kFew = 8;
constexpr double kMuchOfIt = 3;  // dB above the whole loss

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

// Settings in words of a source, those of which samples are taken aside; with other mean and std, where they are given.
std::string sourceText(const std::string& source, const Preprocessing& how, const InputReport::Source::Unit& unit = {}) {
  std::string text;
  for (auto [name, value] : how.settings) {
    for (const auto& [which, list] : {std::pair("mean", &unit.mean), std::pair("std", &unit.std)})
      if (name == which && !list->empty()) value = fmt::format("{:.6g}", fmt::join(*list, ","));
    if (name == "skip" || name == "limit" || value.find(' ') != std::string::npos) continue;
    text += fmt::format("{}{}={}", text.empty() ? "?" : "&", name, value);
  }
  return source + text;
}

// Samples whose mean and std are in the other unit than their elements, whatever the others are like: as they should be read, measured on
// samples that are read so as well.
Result<std::vector<Suspect>> inOtherUnits(const Evidence& e) {
  std::vector<Suspect> suspects;
  if (!e.options.open) return suspects;
  QC_ASSIGN(const InputReport own, checkInputs(e.model, e.calibration));
  QC_ASSIGN(const InputReport other, checkInputs(e.model, e.heldOut));
  if (own.sources.size() != 1 || !own.sources[0].unit) return suspects;
  const auto opened = [&](const InputReport::Source& source) {
    return e.options.open(sourceText(source.how.source, source.how, source.unit.value_or(InputReport::Source::Unit{})));
  };
  const std::string text = sourceText(own.sources[0].how.source, own.sources[0].how, *own.sources[0].unit);
  Result<Dataset> calibration = opened(own.sources[0]);
  if (!calibration || calibration->size() < 2) return suspects;
  Dataset judged;
  if (other.sources.size() == 1 && other.sources[0].how.source != own.sources[0].how.source) {
    QC_ASSIGN(judged, opened(other.sources[0]));
  } else {
    judged = calibration->leaveOut();
  }
  calibration->keepFirst(e.calibration.size());
  suspects.push_back({own.sources[0].how.source,
                      own.warnings.empty() ? std::string() : own.warnings[0],
                      1e9,
                      {{.words = "samples read with -d '" + text + "', and measured on samples that are read so",
                        .rules = e.rules,
                        .calibration = *calibration,
                        .source = text,
                        .judged = judged}}});
  return suspects;
}

}  // namespace

Result<std::vector<Suspect>> fewSamples(const Evidence& e) {
  const int64_t count = e.calibration.size(), held = e.heldOut.size();
  if (held < 2 || (e.inSample - e.decibels < kFlattered && count > kFew)) return std::vector<Suspect>();
  std::vector<std::pair<bool, int64_t>> more, judged;
  for (int64_t i = 0; i < count; ++i) more.emplace_back(true, i);
  for (int64_t i = 0; i < held; ++i) (i % 4 == 3 || i + 1 == held ? judged : more).emplace_back(false, i);
  Fix fix{.words = fmt::format("{} more samples, of those that are measured on; measured on the other {}",
                               static_cast<int64_t>(more.size()) - count, judged.size()),
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
  QC_ASSIGN(std::vector<Suspect> suspects, inOtherUnits(e));
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
  SensitivityOptions options{.top = kMeasured};
  options.progress = [&](int64_t done, int64_t total) {
    if (e.options.progress) e.options.progress("layers", done, total);
  };
  QC_ASSIGN(const Sensitivity found, sensitivity(e.trials, judge, e.rules, options));
  std::vector<Suspect> suspects;
  for (const SensitivityRow& row : found.rows) {
    if (!row.aloneFloat) continue;
    // What it loses may have been rounded away by those in front of it already.
    std::vector<std::string> together{row.unit.name};
    together.insert(together.end(), row.unit.inputs.begin(), row.unit.inputs.end());
    const bool alone = *row.aloneFloat >= e.decibels + e.options.leastGain;
    if (!alone && (together.size() == 1 || row.lossDecibels() > e.decibels + kMuchOfIt)) continue;
    Suspect suspect{row.unit.name,
                    fmt::format("alone in int8 it leaves {:.1f} dB at the outputs, without it the rest leaves {:.1f}", row.lossDecibels(),
                                *row.aloneFloat),
                    -row.lossDecibels(),
                    {in16Bits(e, {row.unit.name}), inFloat(e, {row.unit.name})}};
    if (together.size() > 1) {
      suspect.fixes.push_back(in16Bits(e, together));
      suspect.fixes.push_back(inFloat(e, together));
    }
    suspects.push_back(std::move(suspect));
  }
  return suspects;
}

}  // namespace qc
