#include "tools/quantize_target.h"

#include <nlohmann/json.hpp>

namespace qc::tools {

void TargetFlags::addTo(CLI::App& verb) {
  verb.add_option(
          "--target-drop", drop,
          "as fast as is possible with at most so many points of --metric below the float model, on the samples that are measured on: "
          "layers become float, or something between, until that is met")
      ->check(CLI::Range(0.0, 1e6));
  verb.add_option("--target-sqnr", decibels, "the same with so many dB at the outputs, without labels")->check(CLI::Range(0.0, 120.0));
  verb.add_option("--budget-ms", milliseconds,
                  "the other way round: as accurate as is possible in so many milliseconds a run, on this machine")
      ->check(CLI::Range(1e-6, 1e9));
  metric.addTo(verb);
}

Status TargetFlags::check(const CLI::App& verb, bool isStatic, bool samples, bool ranges) const {
  const std::string_view none = "without --target-drop or --budget-ms";
  const bool uses = drop || milliseconds;
  std::vector<Condition> conditions;
  for (const std::string_view option : {"--labels", "--metric", "--metric-command", "--metric-output"})
    conditions.push_back({option, uses, none, "leave it out; `eval` measures a file"});
  QC_TRY(refuseWithoutEffect(verb, conditions));
  if (!given()) return {};
  const std::string_view flag = drop ? "--target-drop" : decibels ? "--target-sqnr" : "--budget-ms";
  if (!isStatic || !samples || ranges)
    return fail(ErrorCode::kInvalidArgument, "{} works on calibration samples", flag)
        .help(ranges ? "give samples with -d in place of --ranges" : "give samples with -d, in --mode static");
  if (milliseconds && (drop || decibels))
    return fail(ErrorCode::kInvalidArgument, "--budget-ms and {} exclude each other", flag).help("name the one that has to hold");
  if (drop && !metric.given(verb))
    return fail(ErrorCode::kInvalidArgument, "--target-drop is one of a metric").help("give --labels FILE or --metric-command CMD");
  return {};
}

Result<Reached> reachTarget(const TargetFlags& flags, const CLI::App& verb, const Model& model, const PreparedModel& prepared,
                            const Dataset& calibration, const CheckSamples& check, const QuantizeOptions& options,
                            StagedProgress& progress) {
  constexpr double kSilence = 1;  // seconds; searches that are over by then need no words
  double said = now();
  std::string stage = "float model";
  int64_t mixtures = 0;
  const auto onSamples = [&](int64_t done, int64_t total) {
    if (now() - said >= kSilence) progress.update(stage, done, total);
  };
  const Dataset& measured = check.samples.size() > 0 ? check.samples : calibration;
  RecoverOptions recover = options.recover;
  QC_ASSIGN(const std::optional<Goal> goal, flags.metric.goal(verb, model));
  QC_ASSIGN(Trials trials, Trials::open(prepared, calibration, recover));
  const int64_t few = std::max<int64_t>(1, options.compareSamples);
  QC_ASSIGN(const Judge quick, Judge::open(*trials.model().observed, measured, {.samples = few, .threads = recover.threads}));
  QC_ASSIGN(const Judge judge, Judge::open(*trials.model().observed, measured,
                                           {.samples = goal ? measured.size() : few, .threads = recover.threads, .progress = onSamples}));
  stage = "mixture 1";
  MixtureOptions how;
  how.progress = [&](const char* part, int64_t done, int64_t total) { progress.update(part, done, total); };
  how.measured = [&](const MixtureStep& s) {
    ++mixtures;
    stage = fmt::format("mixture {}", mixtures + 1);
    if (now() - said < kSilence) return;
    fmt::print(stderr, "mixture {}: {}: {:.3f} ms, {:.1f} dB{}{}\n", mixtures, s.what, s.milliseconds, s.decibels,
               s.drop ? fmt::format(", {:.2f} points below float", *s.drop) : "", s.meets ? ", as asked" : "");
    said = now();
  };
  const MixtureTarget target{flags.decibels, flags.drop, flags.milliseconds, goal ? &*goal : nullptr};
  QC_ASSIGN(Mixture mixture, findMixture(trials, quick, judge, target, how));
  // Once more as `quantize` does it, on channels that are moved already: the same bits, with ranges, integer ends and a table of noise.
  QC_ASSIGN(const PreparedModel mixed, trials.prepared(mixture.rules));
  QuantizeOptions last = options;
  for (const Recipe& recipe : recipes())
    if (recipe.movesChannels()) last.recover.choose(std::string(recipe.name), std::string(recipe.off));
  last.samples = nullptr;
  CalibrateOptions once{.threads = recover.threads};
  once.progress = [&](int64_t done, int64_t total) { progress.update("calibrate", done, total); };
  QC_ASSIGN(QuantizedModel made, calibrateAndQuantize(mixed, calibration, last, once));
  return Reached{std::move(mixture), std::move(made)};
}

void printPath(const Mixture& mixture, const TargetFlags& flags, const std::string& on) {
  const bool goal = mixture.floatGoal.has_value();
  Table table(goal ? std::vector<std::string>{"ms", "dB", "drop", "met", "step"} : std::vector<std::string>{"ms", "dB", "met", "step"});
  for (const MixtureStep& step : mixture.path) {
    std::vector<std::string> row{fmt::format("{:.3f}", step.milliseconds), fmt::format("{:.1f}", step.decibels)};
    if (goal) row.push_back(fmt::format("{:.2f}", *step.drop));
    row.insert(row.end(), {step.meets ? "yes" : "no", step.what});
    table.add(std::move(row));
  }
  fmt::print("\nto {}, on {}:\n{}", flags.milliseconds ? "the budget" : "the target", on, table.str());
  const MixtureStep& r = mixture.result;
  fmt::print("chosen: {} layers changed; {:.1f} dB{}, {:.3f} ms (all int8 {:.3f}, float {:.3f})\n", r.changed, r.decibels,
             r.drop ? fmt::format(", {:.2f} points below float", *r.drop) : "", r.milliseconds, mixture.int8Milliseconds,
             mixture.floatMilliseconds);
  for (const auto& [layer, choice] : mixture.changed) fmt::print("  {}: {}\n", choice, layer);
  for (const UnseenUnit& u : mixture.unseen) fmt::print("  not looked at, {}: {}\n", u.why, u.unit.name);
}

nlohmann::json pathJson(const Mixture& mixture) {
  const auto stepJson = [](const MixtureStep& s) {
    nlohmann::json j = {{"step", s.what}, {"changed", s.changed}, {"sqnr_db", s.decibels}, {"ms", s.milliseconds}, {"met", s.meets}};
    if (s.goal) j["metric"] = *s.goal;
    if (s.drop) j["drop"] = *s.drop;
    return j;
  };
  nlohmann::json path = nlohmann::json::array(), changed = nlohmann::json::array();
  for (const MixtureStep& s : mixture.path) path.push_back(stepJson(s));
  for (const auto& [layer, choice] : mixture.changed) changed.push_back({{"layer", layer}, {"choice", choice}});
  nlohmann::json unseen = nlohmann::json::array();
  for (const UnseenUnit& u : mixture.unseen) unseen.push_back({{"layer", u.unit.name}, {"why", u.why}});
  nlohmann::json j = {{"path", path},     {"chosen", stepJson(mixture.result)},  {"layers", changed},
                      {"unseen", unseen}, {"int8_ms", mixture.int8Milliseconds}, {"float_ms", mixture.floatMilliseconds}};
  if (mixture.floatGoal) j["float_metric"] = *mixture.floatGoal;
  return j;
}

}  // namespace qc::tools
