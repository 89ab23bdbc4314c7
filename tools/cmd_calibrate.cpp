// calibrate: ranges of all values into a .qcal file, in shards and with checkpoints.  merge: shards into one.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "ir/files.h"
#include "quantizer/modes.h"
#include "quantizer/observers/convergence.h"
#include "runtime/insight/idle_rules.h"
#include "runtime/workflow/calibrate.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/report_flags.h"
#include "tools/stop_request.h"

namespace qc::tools {
namespace {

struct CalibrateFlags {
  ModelOptions model;
  DataOptions data;
  RulesOptions rules;
  std::string output, shard = "0/1", memoryLimit;
  int64_t limit = -1;
  int threads = 1;
  double checkpointSeconds = 30;
  bool resume = false, json = false, all = false;
  ReportFlags report;
};

Result<Shard> parseShard(const std::string& text) {
  const size_t slash = text.find('/');
  const auto number = [&](std::string_view part) -> int64_t {
    const bool digits = !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == std::string_view::npos;
    return digits ? std::stoll(std::string(part)) : -1;
  };
  if (slash == std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a shard", text).help("write --shard I/N with I from 0 to N-1");
  const Shard s = {number(std::string_view(text).substr(0, slash)), number(std::string_view(text).substr(slash + 1))};
  if (s.index < 0 || s.count < 1 || s.index >= s.count)
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a shard", text).help("write --shard I/N with I from 0 to N-1");
  return s;
}

nlohmann::json verdictJson(const Convergence& c) {
  nlohmann::json rows = nlohmann::json::array(), influences = nlohmann::json::array();
  const auto extreme = [](const SampleTrace::Extreme& e) {
    return nlohmann::json{{"value", e.value}, {"sample", e.sample}, {"name", e.name}};
  };
  for (const auto& r : c.rows)
    rows.push_back({{"id", r.id},
                    {"value", r.name},
                    {"min", r.chosen.min},
                    {"max", r.chosen.max},
                    {"needed", r.needed},
                    {"lowest", extreme(r.lowest)},
                    {"highest", extreme(r.highest)},
                    {"non_finite", r.nonFinite}});
  for (const auto& i : c.influences) influences.push_back({{"sample", i.sample}, {"name", i.name}, {"ends", i.ends}});
  return {{"samples", c.samples},   {"enough", c.enough}, {"converged", c.converged}, {"verdict", c.verdict()},
          {"warnings", c.warnings}, {"ranges", rows},     {"influences", influences}};
}

void printVerdict(const Convergence& c, bool all) {
  if (all) {
    Table table({"needed", "min", "max", "lowest by", "highest by", "value"});
    for (const auto& r : c.rows)
      table.add({std::to_string(r.needed), fmt::format("{:.5g}", r.chosen.min), fmt::format("{:.5g}", r.chosen.max),
                 fmt::format("{} {}", r.lowest.sample, r.lowest.name), fmt::format("{} {}", r.highest.sample, r.highest.name), r.name});
    fmt::print("{}", table.str());
  }
  fmt::print("{}\n", c.verdict());
  std::string most;
  for (size_t i = 0; i < c.influences.size() && i < 3; ++i)
    if (c.influences[i].ends > 1)  // of one there are always many
      most += fmt::format("{}{} ({}) {}", most.empty() ? "" : ", ", c.influences[i].sample, c.influences[i].name, c.influences[i].ends);
  if (!most.empty()) fmt::print("samples that set most of the {} ends of ranges: {}\n", 2 * c.rows.size(), most);
  for (const std::string& w : c.warnings) fmt::print(stderr, "warning: {}\n", w);
}

Status printResult(const Ranges& ranges, const Graph* model, const InputReport& inputs, const std::string& output, bool json, bool all,
                   double seconds) {
  const Convergence verdict = assess(ranges, model);
  if (json) {
    nlohmann::json j = verdictJson(verdict);
    j.update({{"output", output}, {"observers", ranges.observers()}, {"seconds", seconds}, {"peak_bytes", peakResidentBytes()}});
    if (!inputs.sources.empty()) j["fed"] = inputsJson(inputs);
    printJson(j);
    return {};
  }
  printInputs(inputs);
  printVerdict(verdict, all);
  fmt::print("{}: {} observers, {} samples, {:.1f} s, peak memory {}\n", output, ranges.observers(), ranges.samples(), seconds,
             megabytes(peakResidentBytes()));
  return {};
}

// Of a model without observers: by the rules, or by its own ops.
std::string whyNothing(const QConfigMapping& rules) {
  const bool wantsRanges = std::any_of(rules.rules().begin(), rules.rules().end(),
                                       [](const QConfigMapping::Rule& r) { return r.entry && modeOf(*r.entry) == QuantMode::full; });
  if (!wantsRanges) return "the rules observe no values, so there are no ranges; quantize needs none with such rules";
  return "no op of this model becomes int8 by these rules, so there are no ranges; quantize lists why";
}

Status runCalibrate(const CalibrateFlags& o, const CLI::App& verb) {
  const double start = now();
  QC_TRY(refuseWithoutEffect(verb, {{"--guard-biases", false, "on ranges", "give it to quantize"}}));
  CalibrateOptions options;
  QC_ASSIGN(options.shard, parseShard(o.shard));
  QC_ASSIGN(options.memoryLimit, parseBytes(o.memoryLimit, "--memory-limit"));
  QC_ASSIGN(Model model, o.model.loadOfAnyShape(o.data));
  QC_ASSIGN(const QConfigMapping rules, o.rules.load());
  QC_ASSIGN(const Dataset samples, o.data.open(model));
  options.limit = o.limit;
  options.threads = o.threads;
  options.checkpoint = o.output + ".partial";
  options.checkpointSeconds = o.checkpointSeconds;
  options.resume = o.resume;
  std::vector<std::string> outputs{o.output, options.checkpoint};
  o.report.addTo(outputs);
  QC_TRY(checkOutputs(outputs));
  std::error_code none;
  if (o.resume && !std::filesystem::exists(options.checkpoint, none))
    fmt::print(stderr, "note: there is no '{}' to go on from; starting with the first sample\n", options.checkpoint);
  QC_ASSIGN(const PreparedModel prepared, prepareModel(model, rules));
  QC_ASSIGN(const std::vector<Remark> idle, idleRules(prepared));
  for (const Remark& r : idle) fmt::print(stderr, "warning: {}\n", r.message);
  Dataset used = samples;
  if (o.limit > 0) used.keepFirst(o.limit);
  QC_ASSIGN(const InputReport inputs, checkInputs(model, used));
  warnOfInputs(inputs);
  Progress progress("calibrate");
  options.progress = [&](int64_t done, int64_t total) { progress.update(done, total); };
  options.stop = stopOnSignals();
  QC_ASSIGN(const Ranges ranges, calibrate(prepared, samples, options));
  if (ranges.observers() == 0) fmt::print(stderr, "warning: {}\n", whyNothing(rules));
  QC_TRY(ranges.save(o.output));
  std::error_code error;
  std::filesystem::remove(options.checkpoint, error);
  if (o.report) {
    const Convergence verdict = assess(ranges, prepared.observed.get());
    ReportData page{.title = fmt::format("{}: calibration", std::filesystem::path(o.model.path).filename().string())};
    page.facts = {{"model", o.model.path},
                  {"ranges", o.output},
                  {"samples", std::to_string(ranges.samples())},
                  {"enough?", verdict.verdict()},
                  {"time", fmt::format("{:.1f} s", now() - start)}};
    page.warnings = verdict.warnings;
    page.inputs = &inputs;
    page.coverage = &prepared.coverage;
    page.ranges = &ranges;
    page.next = {{"Quantize with these ranges:",
                  fmt::format("qcompile quantize {} --ranges {} -o int8.onnx", shellWord(o.model.path), shellWord(o.output))}};
    QC_TRY(o.report.write(std::move(page)));
  }
  return printResult(ranges, prepared.observed.get(), inputs, o.output, o.json, o.all, now() - start);
}

struct MergeFlags {
  std::vector<std::string> inputs;
  std::string output;
  bool approximate = false, json = false, all = false;
};

Status runMerge(const MergeFlags& o) {
  const double start = now();
  QC_ASSIGN(Ranges merged, Ranges::load(o.inputs.front()));
  for (size_t i = 1; i < o.inputs.size(); ++i) {
    QC_ASSIGN(const Ranges next, Ranges::load(o.inputs[i]));
    if (Status s = merged.merge(next, o.approximate); !s)
      return fail(s.error().code(), "'{}' does not join '{}': {}", o.inputs[i], o.inputs.front(), s.error().message())
          .help(s.error().remedy());
  }
  QC_TRY(merged.save(o.output));
  return printResult(merged, nullptr, {}, o.output, o.json, o.all, now() - start);
}

}  // namespace

void addCalibrateCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<CalibrateFlags>();
  CLI::App* verb = app.add_subcommand("calibrate", "collect the ranges of all values into a file");
  verb->footer("qcompile calibrate m.onnx -d 'images:calib?size=224' -o m.qcal");
  o->model.addFloatTo(*verb);
  o->data.addTo(*verb, true);
  o->rules.addTo(*verb);
  verb->add_option("-o,--output", o->output, "ranges file (.qcal)")->type_name("FILE")->required();
  verb->add_option("--calibration-limit", o->limit, "at most so many samples of the whole set")->check(CLI::Range(1, 1 << 30));
  verb->add_option("--threads", o->threads, "threads of a run")->check(CLI::Range(1, 1024));
  verb->add_option("--shard", o->shard, "I/N: only part I (from 0) of N equal parts of the samples; join them with merge")
      ->type_name("I/N");
  verb->add_flag("--resume", o->resume, "go on from OUTPUT.partial, which an interrupted run left");
  verb->add_option("--checkpoint-seconds", o->checkpointSeconds, "how often OUTPUT.partial is written; 0: after every sample")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--memory-limit", o->memoryLimit, "stop, resumably, above so many bytes: 2G, 500M")->type_name("SIZE");
  verb->add_flag("--all", o->all, "every range, and which samples set it");
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  o->report.addTo(*verb);
  verb->callback([o, verb, &exitCode] { exitCode = report(runCalibrate(*o, *verb)); });
}

void addMergeCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<MergeFlags>();
  CLI::App* verb = app.add_subcommand("merge", "join the ranges files of shards; all shards of a set give the bytes of one run");
  verb->footer("qcompile merge part0.qcal part1.qcal -o m.qcal");
  verb->add_option("inputs", o->inputs, "ranges files of the same model and rules")->required();
  verb->add_option("-o,--output", o->output, "ranges file (.qcal)")->type_name("FILE")->required();
  verb->add_flag("--approximate", o->approximate,
                 "accept observers that depend on the order of samples (moving averages: weighted by batches)");
  verb->add_flag("--all", o->all, "every range, and which samples set it");
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  verb->callback([o, &exitCode] { exitCode = report(runMerge(*o)); });
}

}  // namespace qc::tools
