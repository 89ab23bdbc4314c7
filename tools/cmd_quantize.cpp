// quantize: the main job.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "frontend/onnx/import.h"
#include "ir/files.h"
#include "quantizer/observers/convergence.h"
#include "runtime/any_batch.h"
#include "runtime/insight/idle_rules.h"
#include "runtime/workflow/quantize.h"
#include "tools/check_samples.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/quantize_flags.h"
#include "tools/quantize_report.h"
#include "tools/require_int8.h"

namespace qc::tools {
namespace {

bool observes(const PreparedModel& prepared) {
  for (const Node* n = prepared.observed->front(); n; n = n->next())
    if (n->is("observe")) return true;
  return false;
}

// Whether anything of the result depends on samples: ranges, or what recipes do to layers that read integers.
bool asksSamples(const QuantizeFlags& o, const PreparedModel& prepared) {
  return observes(prepared) || (o.recovery.any() && !int8Layers(*prepared.observed).empty());
}

// Before recipes run: samples that give no range of anything.
Status refuseEmpty(const Dataset& samples, const InputReport& fed) {
  for (const InputReport::Source& source : fed.sources)
    for (const FedInput& input : source.inputs)
      if (input.elements > 0) return {};
  if (fed.sources.empty() || fed.sources[0].inputs.empty()) return {};
  return fail(ErrorCode::kInvalidData, "sample '{}' holds no elements, nor does any of the others give a value to calibrate with",
              samples.sampleName(0))
      .on(fed.sources[0].inputs[0].name)
      .help("prepare the data again");
}

// What works on the ranges of values, where the rules ask for none.
Status checkRanges(const QuantizeFlags& o, const PreparedModel& prepared) {
  if (observes(prepared)) return {};
  if (!o.ranges.empty())
    return fail(ErrorCode::kInvalidArgument, "--ranges has no effect: the rules observe no values").help("leave it out");
  if (!o.recovery.given.empty() && o.mode == "static" && o.recovery.given != "--compare-samples")
    fmt::print(stderr, "warning: {} has no effect: no layer has integer inputs with saved parameters\n", o.recovery.given);
  return {};
}

// check: what is decided and measured on; null: a part of the samples, and nothing.
QuantizeOptions optionsOf(const QuantizeFlags& o, const Dataset* check, StagedProgress& progress) {
  QuantizeOptions options;
  options.recover = o.recovery.options(o.threads, progress);
  options.recover.check = check;
  options.compareSamples = o.recovery.compare;
  return options;
}

// From saved ranges, or those of the samples.
Result<QuantizedModel> quantized(const QuantizeFlags& o, const PreparedModel& model, const Dataset& samples, const Dataset* check,
                                 StagedProgress& progress) {
  QuantizeOptions options = optionsOf(o, check, progress);
  if (samples.size() > 0) options.samples = &samples;
  if (!o.ranges.empty()) {
    QC_ASSIGN(const Ranges ranges, Ranges::load(o.ranges));
    return quantize(model, ranges, options);
  }
  if (samples.size() == 0) return quantize(model, options);
  CalibrateOptions calibration{.threads = o.threads};
  calibration.progress = [&](int64_t done, int64_t total) { progress.update("calibrate", done, total); };
  return calibrateAndQuantize(model, samples, options, calibration);
}

int64_t fileSize(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

// Why there is no table of noise; empty: there is one, or it was not wanted.
std::string whyUnmeasured(const QuantizeFlags& o, const QuantizedModel& result, const Dataset& samples) {
  if (result.compared > 0 || o.recovery.compare == 0 || result.coverage.quantizedCount() == 0) return {};
  if (o.mode != "static")
    return fmt::format("no samples are needed, and nothing is measured: `qcompile debug {} {} -d SOURCE` tells the noise of every layer",
                       o.model.path, o.output);
  if (samples.size() == 0)
    return "without samples weights are rounded to the nearest, biases are not corrected and nothing is measured; add -d SOURCE for all of "
           "that";
  return "no layer was compared with the float model's: there is none that rounds its result";
}

// Those of -d as far as they are used, then those of --check.
Result<InputReport> fedInputs(const QuantizeFlags& o, const Model& model, Dataset samples) {
  if (o.limit > 0) samples.keepFirst(o.limit);
  Ranges saved;
  if (!o.ranges.empty()) {
    QC_ASSIGN(saved, Ranges::load(o.ranges));
  }
  QC_ASSIGN(InputReport report, checkInputs(model, samples, o.ranges.empty() ? nullptr : &saved));
  if (o.check.empty()) return report;
  QC_ASSIGN(const Dataset check, openDataset(o.check, model));
  QC_ASSIGN(InputReport more, checkInputs(model, check, o.ranges.empty() ? nullptr : &saved));
  report.add(std::move(more));
  return report;
}

// What the page of --report says beside the result: of the whole run.
struct Told {
  const InputReport& inputs;
  const CheckSamples& check;
  const Mixture* mixture;
  const Ledger* ledger;
  std::vector<std::string> warnings, notes;
  int64_t before, after;  // bytes
  double seconds;
  int64_t calibrating;  // samples
};

Status writePage(const QuantizeFlags& o, const QuantizedModel& result, const QConfigMapping& applied, const Told& told) {
  if (!o.report) return {};
  QC_ASSIGN(const Graph graph, graphForReport(result.model));
  ReportData page{.title = fmt::format("{}: from float to int8", std::filesystem::path(o.model.path).filename().string())};
  page.facts = {{"model", o.model.path},
                {"result", o.output},
                {"size", fmt::format("{} to {}", megabytes(told.before), megabytes(told.after))},
                {"mode", fmt::format("{}, backend {}", o.mode, o.rules.backend)},
                {"coverage", fmt::format("{} of {} ops quantized", result.coverage.quantizedCount(), result.coverage.rows.size())},
                {"calibration", fmt::format("{} samples", told.calibrating)},
                {"time", fmt::format("{:.1f} s", told.seconds)}};
  constexpr size_t kOutputs = 8;
  size_t outputs = 0;
  for (const LayerNoise& layer : result.layers)
    if (layer.op == "output" && outputs++ < kOutputs)
      page.facts.emplace_back(fmt::format("output {}", layer.node), fmt::format("{:.1f} dB", layer.total));
  page.warnings = told.warnings;
  page.notes = told.notes;
  page.inputs = &told.inputs;
  page.coverage = &result.coverage;
  page.graph = &graph;
  page.noise = &result.layers;
  page.measuredOn = told.check.str(result.compared);
  page.ranges = &result.ranges;
  page.weights = &result.model.graph();
  page.mixture = told.mixture;
  page.ledger = told.ledger;
  page.rules = nlohmann::json::parse(applied.toJson()).dump(2);
  for (const std::string& rule : remedyRules(result.coverage, false))
    page.next.emplace_back("A rule makes integers of what stayed float all the same, in {\"rules\": [..]} of --config:", rule);
  std::string samples;
  for (const std::string& source : o.data.sources) samples += " -d " + shellWord(source);
  if (!samples.empty() && result.coverage.quantizedCount() > 0) {
    page.next.emplace_back("See where the two models part, layer by layer:",
                           fmt::format("qcompile debug {} {}{}", shellWord(o.model.path), shellWord(o.output), samples));
    page.next.emplace_back("See which layers lose the accuracy:",
                           fmt::format("qcompile sensitivity {}{} --top 10", shellWord(o.model.path), samples));
  }
  page.next.emplace_back("See where the time goes:", fmt::format("qcompile profile {} --report time.html", shellWord(o.output)));
  return o.report.write(std::move(page));
}

Status runQuantize(QuantizeFlags o, const CLI::App& verb) {
  const double start = now();
  QC_TRY(checkMode(o));
  std::vector<std::string> outputs{o.output};
  if (!o.writeRules.empty()) outputs.push_back(o.writeRules);
  o.report.addTo(outputs);
  QC_TRY(checkOutputs(outputs));
  QC_ASSIGN(const QConfigMapping rules, rulesFor(o));
  QC_TRY(o.recovery.follow(rules));
  QC_TRY(checkEffects(o, verb));
  QC_TRY(checkHeldOut(o.data.sources, o.check, "--check"));
  QC_ASSIGN(Model loaded, o.model.loadOfAnyShape(o.data));
  if (o.freeBatch) {
    QC_ASSIGN(loaded, withFreeBatch(loaded));
    noteBatch(loaded, o.model.path);
  }
  Dataset samples;
  if (!o.data.sources.empty()) {
    QC_ASSIGN(samples, o.data.open(loaded));
  }
  const Model model = std::move(loaded);
  InputReport inputs;
  if (samples.size() > 0 || !o.check.empty()) {
    QC_ASSIGN(inputs, fedInputs(o, model, samples));
    warnOfInputs(inputs);
  }
  StagedProgress progress;
  Dataset seen = samples;
  QC_ASSIGN(CheckSamples check, checkSamples(o.check, o.limit, !o.ranges.empty(), model, seen));
  QC_TRY(checkOutputs(outputs));  // once more, before the long work: now it is known what is read
  QC_TRY(checkModelName(o.output));
  QC_ASSIGN(PreparedModel prepared, prepareModel(model, rules));
  QC_ASSIGN(const std::vector<Remark> idle, idleRules(prepared));
  for (const Remark& r : idle) fmt::print(stderr, "warning: {}\n", r.message);
  QC_TRY(checkRanges(o, prepared));
  const bool asks = asksSamples(o, prepared);
  if (!asks && samples.size() > 0) {
    check.calibrates = false;
    if (check.kind != CheckSamples::Kind::given) {  // nothing has seen any of them
      seen = samples;
      if (o.limit > 0) seen.keepFirst(o.limit);
      check.kind = CheckSamples::Kind::leftOut;
      check.samples = seen;
    }
  }
  if (observes(prepared) && samples.size() > 0) QC_TRY(refuseEmpty(samples, inputs));
  const Dataset* unseen = check.samples.size() > 0 ? &check.samples : nullptr;
  std::optional<Ledger> ledger;
  if (o.ledger.neverSlower && prepared.coverage.quantizedCount() > 0) {  // else a warning says that there is nothing
    QC_ASSIGN(ledger, weighed(o.ledger, prepared, seen, o.threads, progress));
    // From here on as with these rules in a file.
    if (!ledger->madeFloat.empty()) {
      QC_ASSIGN(prepared, prepareModel(model, ledger->rules));
    }
  }
  std::optional<Mixture> mixture;
  const auto made = [&]() -> Result<QuantizedModel> {
    if (!o.target.given()) return quantized(o, prepared, seen, unseen, progress);
    QC_ASSIGN(Reached reached, reachTarget(o.target, verb, model, prepared, seen, check, optionsOf(o, unseen, progress), progress));
    mixture = std::move(reached.mixture);
    return std::move(reached.model);
  };
  QC_ASSIGN(QuantizedModel result, made());
  const QConfigMapping applied = o.recovery.resolved(mixture ? mixture->rules : ledger ? ledger->rules : rules);
  const int64_t asked = o.limit > 0 ? std::min(o.limit, samples.size()) : samples.size();
  if (!mixture && check.kind == CheckSamples::Kind::leftOut && seen.size() < asked && asked <= kFewSamples) {
    // Measured without those left out, made with all.
    check.usedAfterwards = true;
    samples.keepFirst(asked);
    QuantizeFlags whole = o;
    whole.recovery.compare = 0;
    QC_ASSIGN(QuantizedModel withAll, quantized(whole, prepared, samples, nullptr, progress));
    withAll.layers = std::move(result.layers);
    withAll.compared = result.compared;
    result = std::move(withAll);
  }
  std::vector<std::string> warnings;
  if (!o.ranges.empty()) {
    warnings = missingShards(result.ranges);
  } else if (samples.size() > 0) {
    warnings = assess(result.ranges, prepared.observed.get()).warnings;
  }
  QC_TRY(requireInt8(result.coverage, o.requireInt8));
  if (const std::string warning = nothingQuantized(result.coverage, model.graph()); !warning.empty()) warnings.push_back(warning);
  for (const std::string& warning : warnings) fmt::print(stderr, "warning: {}\n", warning);
  const int64_t calibrating = asks ? result.ranges.samples() : 0;
  const std::string unmeasured = whyUnmeasured(o, result, check.samples.size() > 0 ? check.samples : samples);
  if (o.timePasses) printTimings(result.timings);
  QC_TRY(save(result.model, o.output));
  if (!o.writeRules.empty()) QC_TRY(writeFileAtomically(o.writeRules, applied.toJson() + "\n"));
  // Of a model that is read, the weights beside its file belong to it; what is written is one file.
  const auto read = o.model.path.ends_with(".onnx") ? modelBytes(o.model.path) : Result<int64_t>(fileSize(o.model.path));
  const int64_t before = read ? *read : fileSize(o.model.path), after = fileSize(o.output);
  std::vector<std::string> notes;
  for (const Remark& r : result.remarks) notes.push_back(r.node.empty() ? r.message : r.node + ": " + r.message);
  if (!unmeasured.empty()) notes.push_back(unmeasured);
  for (const Remark& r : idle) warnings.push_back(r.message);
  QC_TRY(writePage(o, result, applied,
                   {inputs, check, mixture ? &*mixture : nullptr, ledger ? &*ledger : nullptr, warnings, notes, before, after,
                    now() - start, calibrating}));
  if (o.json) {
    nlohmann::json report = reportJson(result, applied);
    report.update(
        {{"output", o.output},
         {"samples", calibrating},
         {"warnings", warnings},
         {"notes", notes},
         {"measured_on",
          {{"samples", result.compared}, {"kind", result.compared > 0 ? check.name() : "none"}, {"used_afterwards", check.usedAfterwards}}},
         {"unmeasured", unmeasured},
         {"fed", inputsJson(inputs)},
         {"idle_rules", remarksJson(idle)},
         {"seconds", now() - start},
         {"bytes_before", before},
         {"bytes_after", after}});
    if (mixture) report["target"] = pathJson(*mixture);
    if (ledger) report["ledger"] = ledgerJson(*ledger);
    printJson(report);
    return {};
  }
  printCoverage(result.coverage, o.all);
  printRemedies(result.coverage, o.all);
  printNoise(result.layers, check.str(result.compared), o.all);
  if (mixture) printPath(*mixture, o.target, check.str(o.target.metric.given(verb) && unseen ? unseen->size() : result.compared));
  if (ledger) printLedger(*ledger);
  for (const std::string& note : notes) fmt::print("note: {}\n", note);
  if (!inputs.sources.empty()) fmt::print("\n");
  printInputs(inputs);
  fmt::print("\n{} -> {}: {} -> {}, {} calibration samples, {:.1f} s\n", o.model.path, o.output, megabytes(before), megabytes(after),
             calibrating, now() - start);
  return {};
}

}  // namespace

void addQuantizeCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<QuantizeFlags>();
  CLI::App* verb = app.add_subcommand("quantize", "from a float model and samples to an int8 model");
  verb->footer("qcompile quantize m.onnx -d 'images:calib?size=224&resize=256' -o m.int8.onnx");
  options->addTo(*verb);
  verb->callback([options, verb, &exitCode] {
    options->recovery.noteGiven(*verb);
    exitCode = report(runQuantize(*options, *verb));
  });
}

}  // namespace qc::tools
