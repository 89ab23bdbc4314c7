// sensitivity: which layers the quantized model loses its accuracy in.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "ir/files.h"
#include "runtime/insight/sensitivity.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/metric_flags.h"
#include "tools/report_flags.h"
#include "tools/trial_flags.h"

namespace qc::tools {
namespace {

struct SensitivityFlags {
  TrialFlags trial;
  MetricFlags metric;
  int64_t top = -1;
  std::string state, by = "layer";
  bool json = false, all = false;
  ReportFlags report;
};

// In points below the float model.
std::optional<double> drop(const Goal* goal, const std::optional<double>& ofFloat, const std::optional<double>& value) {
  return goal && ofFloat && value ? std::optional(goal->drop(*ofFloat, *value)) : std::nullopt;
}

nlohmann::json rowJson(const SensitivityRow& row, const Goal* goal, const std::optional<double>& floatGoal) {
  const auto figure = [](const std::optional<double>& v) { return v ? nlohmann::json(*v) : nlohmann::json(); };
  return {{"layer", row.unit.name},
          {"op", row.unit.op},
          {"nodes", row.unit.nodes},
          {"estimated_db", row.estimated},
          {"alone_int8_db", figure(row.aloneQuantized)},
          {"alone_float_db", figure(row.aloneFloat)},
          {"alone_int8_drop", figure(drop(goal, floatGoal, row.goalQuantized))},
          {"alone_float_drop", figure(drop(goal, floatGoal, row.goalFloat))}};
}

// What --resume holds a state against.
Result<std::string> goalKey(const MetricFlags& metric) {
  std::string labels;
  if (!metric.labels.empty()) {
    QC_ASSIGN(labels, readFile(metric.labels));
  }
  return nlohmann::json({metric.command, metric.output, labels}).dump(-1, ' ', false, nlohmann::json::error_handler_t::ignore);
}

std::string decibelText(const std::optional<double>& v) { return v ? fmt::format("{:.1f}", *v) : ""; }

Status runSensitivity(SensitivityFlags& o, const CLI::App& verb) {
  if (!o.state.empty()) QC_TRY(checkOutput(o.state));
  if (o.report) QC_TRY(checkOutput(o.report.path));
  QC_ASSIGN(const TrialSetup setup, TrialSetup::open(o.trial, verb));
  QC_ASSIGN(const InputReport fed, setup.fed());
  warnOfInputs(fed);
  StagedProgress progress;
  QC_ASSIGN(Trials trials, setup.trials(o.trial, progress));
  QC_ASSIGN(const std::optional<Goal> metric, o.metric.goal(verb, setup.model));
  const Goal* goal = metric ? &*metric : nullptr;
  QC_ASSIGN(const Judge judge, setup.judge(o.trial, goal ? setup.check.samples.size() : std::max<int64_t>(1, o.trial.recovery.compare)));
  SensitivityOptions options{.top = o.top, .modules = o.by == "module", .goal = goal, .state = o.state};
  if (goal && !o.state.empty()) {
    QC_ASSIGN(options.goalKey, goalKey(o.metric));
  }
  options.progress = [&](int64_t done, int64_t total) { progress.update("layers", done, total); };
  QC_ASSIGN(const Sensitivity found, sensitivity(trials, judge, options));
  if (o.report) {
    ReportData page{.title =
                        fmt::format("{}: which layers lose the accuracy", std::filesystem::path(o.trial.model.path).filename().string())};
    page.facts = {{"model", o.trial.model.path}, {"all int8", fmt::format("{:.1f} dB at the outputs", found.allQuantized)}};
    page.warnings = fed.warnings;
    page.inputs = &fed;
    page.measuredOn = setup.check.str(found.samples);
    page.sensitivity = &found;
    QC_TRY(o.report.write(std::move(page)));
  }
  if (o.json) {
    nlohmann::json rows = nlohmann::json::array();
    for (const SensitivityRow& row : found.rows) rows.push_back(rowJson(row, goal, found.goalFloat));
    nlohmann::json unseen = nlohmann::json::array();
    for (const UnseenUnit& u : found.unseen)
      unseen.push_back({{"layer", u.unit.name}, {"op", u.unit.op}, {"nodes", u.unit.nodes}, {"why", u.why}});
    const auto all = drop(goal, found.goalFloat, found.goalAll);
    printJson({{"all_int8_db", found.allQuantized},
               {"all_int8_drop", all ? nlohmann::json(*all) : nlohmann::json()},
               {"layers", rows},
               {"unseen", unseen},
               {"measured", found.measured},
               {"resumed", found.resumed},
               {"added_noise", found.added},
               {"measured_on", {{"samples", found.samples}, {"kind", setup.check.name()}}},
               {"fed", inputsJson(fed)}});
    return {};
  }
  constexpr size_t kShown = 15;
  const size_t shown = o.all ? found.rows.size() : std::min(kShown, found.rows.size());
  std::vector<std::string> header{"op", "alone int8, dB", "all but it int8, dB", "estimated"};
  if (goal) header.insert(header.end(), {"drop alone", "drop of the rest"});
  header.emplace_back("layer");
  Table table(header);
  for (size_t i = 0; i < shown; ++i) {
    const SensitivityRow& row = found.rows[i];
    std::vector<std::string> cells{row.unit.op, decibelText(row.aloneQuantized), decibelText(row.aloneFloat),
                                   fmt::format("{:.1f}", row.estimated)};
    if (goal)
      for (const auto& value : {row.goalQuantized, row.goalFloat}) {
        const auto points = drop(goal, found.goalFloat, value);
        cells.push_back(points ? fmt::format("{:.2f}", *points) : "");
      }
    cells.push_back(row.unit.name);
    table.add(std::move(cells));
  }
  fmt::print("{}", table.str());
  if (shown < found.rows.size()) fmt::print("and {} more (--all)\n", found.rows.size() - shown);
  if (!found.unseen.empty()) fmt::print("\nnot measured, as there is nothing to measure:\n");
  for (const UnseenUnit& u : found.unseen) fmt::print("  {}: {}\n", u.unit.name, u.why);
  fmt::print("\n");
  printInputs(fed);
  fmt::print("\nall int8: {:.1f} dB at the outputs, on {}\n", found.allQuantized, setup.check.str(found.samples));
  if (const auto all = drop(goal, found.goalFloat, found.goalAll))
    fmt::print("{}: {:.2f} points below the float model with all int8\n", goal->name, *all);
  if (found.measured > 0)
    fmt::print("the noise of {} measured layers, each alone and with its input rounded, adds up to {:.0f}% of that{}\n", found.measured,
               found.added * 100, found.resumed > 0 ? fmt::format("; {} of them from {}", found.resumed, o.state) : "");
  return {};
}

}  // namespace

void addSensitivityCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<SensitivityFlags>();
  CLI::App* verb = app.add_subcommand("sensitivity", "which layers lose the accuracy of the quantized model");
  verb->footer("qcompile sensitivity m.onnx -d 'images:calib?size=224&resize=256' --top 10");
  o->trial.addTo(*verb);
  o->metric.addTo(*verb);
  verb->add_option("--top", o->top, "measure so many layers, the worst by their estimates; default all")->check(CLI::Range(0, 1 << 30));
  verb->add_option("--by", o->by, "a line for each layer, or for each module that encloses layers")
      ->check(CLI::IsMember({"layer", "module"}));
  verb->add_option("--resume", o->state, "keeps what was measured; a run that was ended goes on from it")->type_name("FILE");
  verb->add_flag("--all", o->all, "print every layer");
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  o->report.addTo(*verb);
  verb->callback([o, verb, &exitCode] { exitCode = report(runSensitivity(*o, *verb)); });
}

}  // namespace qc::tools
