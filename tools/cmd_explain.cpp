// explain: why the quantized model lost accuracy, and what verifiably helps.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "ir/files.h"
#include "ir/visible.h"
#include "runtime/insight/explain.h"
#include "tools/beside_float.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/metric_flags.h"
#include "tools/report_flags.h"
#include "tools/seen_samples.h"
#include "tools/trial_flags.h"

namespace qc::tools {
namespace {

using nlohmann::json;

struct ExplainFlags {
  TrialFlags trial;
  MetricFlags metric;
  std::string quantized, writeRules;
  double leastGain = 0.5;
  bool json = false;
  ReportFlags report;
};

// What differs of two sets of rules, as --config takes it.
json difference(const QConfigMapping& before, const QConfigMapping& after) {
  const json a = json::parse(before.toJson()), b = json::parse(after.toJson());
  json delta = json::object();
  for (const auto& [key, value] : b.items()) {
    if (a.value(key, json()) == value) continue;
    if (!value.is_array()) {
      delta[key] = value;
      continue;
    }
    for (const json& each : value)
      if (const json known = a.value(key, json::array()); std::find(known.begin(), known.end(), each) == known.end())
        delta[key].push_back(each);
  }
  return delta;
}

json causeJson(const Cause& c) {
  json j = {{"kind", c.kind},
            {"layer", c.layer},
            {"evidence", c.evidence},
            {"remedy", c.remedy},
            {"fix", json::parse(c.rules.toJson())},
            {"rules_changed", c.rulesChanged},
            {"before_db", c.before},
            {"after_db", c.after},
            {"samples", c.samples},
            {"better_on", c.better},
            {"told_from_luck", c.told},
            {"before_ms", c.millisecondsBefore},
            {"after_ms", c.millisecondsAfter > 0 ? json(c.millisecondsAfter) : json()}};
  if (!c.samplesLeftOut.empty()) j["without_samples"] = c.samplesLeftOut;
  if (!c.source.empty()) j["source"] = c.source;
  if (c.dropBefore) j["before_drop"] = *c.dropBefore;
  if (c.dropAfter) j["after_drop"] = *c.dropAfter;
  return j;
}

void print(const Explanation& found, const QConfigMapping& rules, const std::string& on) {
  fmt::print("int8: {:.1f} dB at the outputs, on {}; {:.1f} dB on calibration samples; {:.3f} ms (float {:.3f})\n", found.decibels, on,
             found.inSample, found.milliseconds, found.floatMilliseconds);
  if (found.given) fmt::print("the quantized model as given: {:.1f} dB\n", *found.given);
  if (found.drop) fmt::print("{:.2f} points below the float model\n", *found.drop);
  if (found.causes.empty()) fmt::print("\nno cause was found whose fix helps: {} fixes were tried\n", found.tried);
  if (const std::string luck = found.uncertainty(); !luck.empty()) fmt::print("{}\n", luck);
  for (size_t i = 0; i < found.causes.size(); ++i) {
    const Cause& c = found.causes[i];
    fmt::print("\n{}. {}: {}\n   {}: {:.1f} -> {:.1f} dB", i + 1, c.kind, visible(c.evidence), visible(c.remedy), c.before, c.after);
    fmt::print(", nearer to float on {} of {} samples{}", c.better, c.samples, c.told ? "" : " (which may be luck)");
    if (c.dropBefore && c.dropAfter) fmt::print(", {:.2f} -> {:.2f} points lost", *c.dropBefore, *c.dropAfter);
    if (c.millisecondsAfter > 0) fmt::print(", {:.3f} -> {:.3f} ms", c.millisecondsBefore, c.millisecondsAfter);
    fmt::print("\n");
    if (c.rulesChanged) fmt::print("   {}\n", difference(rules, c.rules).dump(-1, ' ', false, json::error_handler_t::replace));
  }
}

// What cannot be said of this model and these samples, and how it could be.
std::vector<std::string> unsaid(const ExplainFlags& o, const TrialSetup& setup, const Model* quantized) {
  std::vector<std::string> notes;
  if (setup.check.kind == CheckSamples::Kind::calibration)
    notes.emplace_back(
        "no sample is left to measure on, so all figures are in-sample, and whether more samples would help is not known: give more with "
        "-d, "
        "or --check");
  if (quantized && !roundsByRanges(quantized->graph()))
    notes.push_back(
        fmt::format("'{}' rounds no activations by ranges of samples (its weights alone are integers, or ranges are found at run "
                    "time): its weights are held against the float ones, all other causes speak of the static model that these "
                    "rules make",
                    o.quantized));
  return notes;
}

Status writePage(const ExplainFlags& o, const TrialSetup& setup, const InputReport& inputs, const std::vector<std::string>& notes,
                 const Explanation& found) {
  if (!o.report) return {};
  ReportData page{.title = fmt::format("{}: why accuracy was lost", std::filesystem::path(o.trial.model.path).filename().string())};
  page.facts = {{"model", o.trial.model.path},
                {"calibration", fmt::format("{} samples", setup.calibration.size())},
                {"int8", fmt::format("{:.1f} dB at the outputs, {:.3f} ms", found.decibels, found.milliseconds)},
                {"float", fmt::format("{:.3f} ms", found.floatMilliseconds)},
                {"fixes tried", std::to_string(found.tried)}};
  if (!o.quantized.empty()) page.facts.emplace_back("quantized model", o.quantized);
  page.notes = notes;
  page.inputs = &inputs;
  page.explanation = &found;
  page.measuredOn = setup.check.str(found.samples);
  std::string command = fmt::format("qcompile quantize {}", shellWord(o.trial.model.path));
  for (const std::string& source : o.trial.data.sources) command += " -d " + shellWord(source);
  for (const Cause& c : found.causes) {
    if (!c.rulesChanged) continue;
    page.next.emplace_back(fmt::format("Quantize with the rules below, which are those of the fix '{}':", c.remedy),
                           command + " --config rules.json -o int8.onnx");
    page.rules = json::parse(c.rules.toJson()).dump(2);
    break;
  }
  if (!found.causes.empty() && !found.causes[0].source.empty())
    page.next.emplace_back("Prepare the calibration samples like this:", "-d " + shellWord(found.causes[0].source));
  return o.report.write(std::move(page));
}

Status runExplain(ExplainFlags& o, const CLI::App& verb) {
  if (!o.writeRules.empty()) QC_TRY(checkOutput(o.writeRules));
  if (o.report) QC_TRY(checkOutput(o.report.path));
  QC_ASSIGN(const TrialSetup setup, TrialSetup::open(o.trial, verb));
  QC_ASSIGN(const InputReport fed, setup.fed());
  warnOfInputs(fed);
  StagedProgress progress;
  QC_ASSIGN(const std::optional<Goal> goal, o.metric.goal(verb, setup.model));
  std::optional<Model> quantized;
  if (!o.quantized.empty()) {
    QC_ASSIGN(quantized, beside(o.trial.model, o.quantized).loadOfAnyShape(o.trial.data));
    if (!quantized->isQuantized())
      return fail(ErrorCode::kInvalidArgument, "'{}' is not quantized", o.quantized)
          .help("the float model comes first, then the quantized one");
  }
  const std::vector<std::string> notes = unsaid(o, setup, quantized ? &*quantized : nullptr);
  for (const std::string& note : notes) fmt::print(stderr, "note: {}\n", visible(note));
  ExplainOptions options;
  options.recover = o.trial.recovery.options(o.trial.threads, progress);
  if (setup.check.kind != CheckSamples::Kind::calibration) options.recover.check = &setup.check.samples;
  options.samples = std::max<int64_t>(1, o.trial.recovery.compare);
  options.goal = goal ? &*goal : nullptr;
  options.quantized = quantized ? &quantized->graph() : nullptr;
  options.leastGain = o.leastGain;
  options.open = [&](const std::string& source) { return openDataset({source}, setup.model); };
  options.progress = [&](const char* stage, int64_t done, int64_t total) { progress.update(stage, done, total); };
  QC_ASSIGN(const Explanation found, explain(setup.model, setup.rules, setup.calibration, setup.check.samples, options));
  if (!o.writeRules.empty()) {
    if (found.causes.empty())
      return fail(ErrorCode::kNotFound, "no cause was found whose fix helps, so there are no rules to write").help(found.uncertainty());
    QC_TRY(writeFileAtomically(o.writeRules, found.causes[0].rules.toJson() + "\n"));
  }
  QC_TRY(writePage(o, setup, fed, notes, found));
  if (o.json) {
    json causes = json::array();
    for (const Cause& cause : found.causes) causes.push_back(causeJson(cause));
    json j = {{"causes", causes},
              {"int8_db", found.decibels},
              {"in_sample_db", found.inSample},
              {"given_db", found.given ? json(*found.given) : json()},
              {"tried", found.tried},
              {"uncertain", found.uncertain},
              {"uncertainty", found.uncertainty()},
              {"fed", inputsJson(fed)},
              {"notes", notes},
              {"int8_ms", found.milliseconds},
              {"float_ms", found.floatMilliseconds},
              {"measured_on", {{"samples", found.samples}, {"kind", setup.check.name()}}}};
    if (found.drop) j["drop"] = *found.drop;
    printJson(j);
    return {};
  }
  print(found, setup.rules, setup.check.str(found.samples));
  return {};
}

}  // namespace

void addExplainCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<ExplainFlags>();
  CLI::App* verb = app.add_subcommand("explain", "why the quantized model lost accuracy, and which fixes help on held-out samples");
  verb->footer("qcompile explain m.onnx -d 'images:calib?size=224&resize=256'");
  o->trial.addTo(*verb);
  verb->add_option("INT8", o->quantized, "a quantized file of the model, whose weights are held against the float ones");
  o->metric.addTo(*verb);
  verb->add_option("--least-gain", o->leastGain, "dB that a fix has to win to be named")->check(CLI::Range(0.0, 120.0));
  verb->add_option("--write-rules", o->writeRules, "the rules of the first fix, for --config of quantize")->type_name("FILE");
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  o->report.addTo(*verb);
  verb->callback([o, verb, &exitCode] { exitCode = report(runExplain(*o, *verb)); });
}

}  // namespace qc::tools
