// quantize: the main job.
#include <algorithm>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "frontend/onnx/import.h"
#include "ir/files.h"
#include "quantizer/observers/convergence.h"
#include "runtime/workflow/idle_rules.h"
#include "runtime/workflow/quantize.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/require_int8.h"

namespace qc::tools {
namespace {

// What is done against the loss of accuracy, one option for each recipe, and shown of it.
struct RecoveryFlags {
  std::map<std::string_view, std::string> choices;  // by recipe: of flags, else of the rules, else the default
  std::set<std::string_view> chosen;                // by a flag
  int64_t samples = 128, compare = 16;
  // A flag that the user gave: one that works on samples; one that moves channels; one that has an effect without samples.
  std::string given, movesChannels, dynamic;

  void addTo(CLI::App& verb) {
    for (const Recipe& recipe : recipes()) {
      std::string& choice = choices[recipe.name] = recipe.byDefault;
      verb.add_option(fmt::format("--{}", recipe.name), choice, std::string(recipe.help))
          ->check(CLI::IsMember(std::vector<std::string>(recipe.choices.begin(), recipe.choices.end())));
    }
    verb.add_option("--recovery-samples", samples, "calibration samples that these use, at most")->check(CLI::Range(1, 1 << 30));
    verb.add_option(
            "--compare-samples", compare,
            "samples that run through both models to tell the noise of each layer, at most: those of --check, or left out of calibration")
        ->check(CLI::Range(0, 1 << 30));
  }
  void noteGiven(const CLI::App& verb) {
    for (const char* flag : {"--recovery-samples", "--compare-samples"})
      if (verb.count(flag) > 0) given = flag;
    for (const Recipe& recipe : recipes()) {
      const std::string flag = fmt::format("--{}", recipe.name);
      if (verb.count(flag) == 0) continue;
      chosen.insert(recipe.name);
      (recipe.helpsDynamic ? dynamic : given) = flag;
      if (recipe.movesChannels() && choices.at(recipe.name) != recipe.off) movesChannels = flag;
    }
  }
  Status follow(const QConfigMapping& rules) {
    QC_TRY(RecoverOptions().under(rules).checkChoices());
    for (const auto& [recipe, choice] : rules.recipes())
      if (!chosen.contains(recipe)) choices.find(recipe)->second = choice;
    return {};
  }
  // The rules with what was chosen.
  QConfigMapping resolved(QConfigMapping rules) const {
    for (const auto& [recipe, choice] : choices) rules.recipe(std::string(recipe), choice);
    return rules;
  }
  bool any() const {
    return std::any_of(recipes().begin(), recipes().end(), [&](const Recipe& r) { return choices.at(r.name) != r.off; });
  }
  RecoverOptions options(int threads, StagedProgress& progress) const {
    RecoverOptions o;
    o.progress = [&](const char* stage, int64_t done, int64_t total) { progress.update(stage, done, total); };
    for (const auto& [recipe, choice] : choices) o.choose(std::string(recipe), choice);
    o.samples = samples;
    o.threads = threads;
    return o;
  }
};

struct QuantizeFlags {
  ModelOptions model;
  DataOptions data;
  std::vector<std::string> check, requireInt8;
  RulesOptions rules;
  std::string ranges, output, writeRules, mode = "static";
  int64_t weightBits = 8, groupSize = -1;
  bool perToken = false, perTensor = false;
  int64_t limit = -1;
  int threads = 1;
  bool json = false, all = false, timePasses = false;
  RecoveryFlags recovery;
};

Result<QConfigMapping> rulesFor(const QuantizeFlags& o) {
  if (o.mode == "static") return o.rules.load();
  QC_ASSIGN(const Backend backend, parseBackend(o.rules.hasTable() ? "x86" : o.rules.backend));
  std::optional<BackendConfig> table;
  if (o.rules.hasTable()) {
    QC_ASSIGN(table, BackendConfig::load(o.rules.backend));
  }
  const auto rules = [&](QConfigMapping mapping) { return o.rules.guarded(table ? mapping.backendConfig(table) : std::move(mapping)); };
  const auto all = [&](const QConfig& config) { return rules(QConfigMapping().global(config)); };
  if (o.mode == "dynamic")
    return o.perToken || o.perTensor ? all(dynamicQConfig(backend, o.perToken)) : rules(dynamicQConfigMapping(backend));
  if (o.mode == "weight-only") {
    const int64_t groupSize = o.groupSize >= 0 ? o.groupSize : o.weightBits == 4 ? 32 : 0;
    return rules(weightOnlyQConfigMapping(backend, static_cast<int>(o.weightBits), groupSize));
  }
  return all(halfWeightsQConfig());
}

// Options that would have no effect are refused.
Status checkMode(const QuantizeFlags& o) {
  const bool isStatic = o.mode == "static";
  if (!isStatic && !o.ranges.empty())
    return fail(ErrorCode::kInvalidArgument, "--ranges is for --mode static").help("the other modes need no ranges");
  if (!o.recovery.given.empty() && (!isStatic || o.data.sources.empty()))
    return fail(ErrorCode::kInvalidArgument, "{} works on calibration samples", o.recovery.given)
        .help(isStatic ? "give samples with -d" : "it is for --mode static, with samples");
  if (!o.recovery.movesChannels.empty() && !o.ranges.empty())
    return fail(ErrorCode::kInvalidArgument, "{} changes the ranges that were saved", o.recovery.movesChannels)
        .help("leave out --ranges, or the flag: with --ranges, samples serve to round weights and to correct biases");
  if (!o.recovery.dynamic.empty() && (o.mode == "weight-only" || o.mode == "fp16-weights" || (!o.ranges.empty() && o.data.sources.empty())))
    return fail(ErrorCode::kInvalidArgument, "{} has no effect here", o.recovery.dynamic)
        .help("it is for --mode static with samples and dynamic");
  if (isStatic && o.data.sources.empty() && o.ranges.empty() && o.rules.config.empty())
    return fail(ErrorCode::kInvalidArgument, "no calibration data")
        .help("give samples with -d, saved ranges with --ranges, or a --mode that needs neither");
  if (!isStatic && !o.rules.config.empty())
    return fail(ErrorCode::kInvalidArgument, "--mode and --config exclude each other").help("name the mode in the rules");
  if (!isStatic && !o.rules.observer.empty())
    return fail(ErrorCode::kInvalidArgument, "--observer is for --mode static").help("the other modes observe no activations");
  if ((o.perToken || o.perTensor) && o.mode != "dynamic")
    return fail(ErrorCode::kInvalidArgument, "--per-{} is for --mode dynamic", o.perToken ? "token" : "tensor");
  if (o.perTensor && o.rules.backend != "x86")
    return fail(ErrorCode::kInvalidArgument, "--per-tensor is what --backend {} does anyway", o.rules.backend).help("leave it out");
  if (o.mode != "weight-only" && (o.weightBits != 8 || o.groupSize >= 0))
    return fail(ErrorCode::kInvalidArgument, "{} is for weights that are quantized alone",
                o.groupSize >= 0 ? "--group-size" : "--weight-bits")
        .help("add --mode weight-only");
  return {};
}

Status checkEffects(const QuantizeFlags& o, const CLI::App& verb) {
  const bool isStatic = o.mode == "static", samples = !o.data.sources.empty(), decides = o.recovery.any() && o.ranges.empty();
  const std::string_view leaveOut = "leave it out";
  return refuseWithoutEffect(verb, {{"--calibration-limit", samples, "without samples", "give them with -d, or leave it out"},
                                    {"--threads", samples || !o.check.empty(), "without samples", "give them with -d, or leave it out"},
                                    {"--guard-masked-scores", isStatic, "where no activation is observed", leaveOut},
                                    {"--guard-biases", isStatic, "where biases stay float", leaveOut},
                                    {"--recovery-samples", o.recovery.any(), "where nothing that uses them is on", leaveOut},
                                    {"--check", o.recovery.compare > 0 || decides, "where nothing is compared or decided on it",
                                     "leave it out, or allow --compare-samples"}});
}

bool observes(const PreparedModel& prepared) {
  for (const Node* n = prepared.observed->front(); n; n = n->next())
    if (n->is("observe")) return true;
  return false;
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

// From saved ranges, or those of the samples.  check: what is decided and measured on; null: a part of the samples, and nothing.
Result<QuantizedModel> quantized(const QuantizeFlags& o, const PreparedModel& model, const Dataset& samples, const Dataset* check,
                                 StagedProgress& progress) {
  QuantizeOptions options;
  options.recover = o.recovery.options(o.threads, progress);
  options.recover.check = check;
  options.compareSamples = o.recovery.compare;
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

// How the quantized ones are, where that is not the static default: "weights s8 per channel, input u8 at run time per tensor".
void printHow(const CoverageReport& coverage) {
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const CoverageRow& row : coverage.rows)
    if (row.quantized && (row.reason.starts_with("weights ") || row.reason.starts_with("rows "))) ++counts[{row.op, row.reason}];
  if (counts.empty()) return;
  fmt::print("\n");
  Table table({"op", "count", "how"});
  for (const auto& [key, count] : counts) table.add({key.first, std::to_string(count), key.second});
  fmt::print("{}", table.str());
}

// One line per op type and verdict, then the reasons of what stayed float.
void printCoverage(const CoverageReport& coverage, bool all) {
  struct Count {
    int int8 = 0, kept = 0;
  };
  std::map<std::string, Count> byOp;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> reasons;
  int int8 = 0;
  for (const CoverageRow& row : coverage.rows) {
    ++(row.quantized ? byOp[row.op].int8 : byOp[row.op].kept);
    int8 += row.quantized;
    if (!row.quantized) reasons[{row.op, row.reason}].push_back(row.node);
  }
  Table table({"op", "quantized", "float"});
  for (const auto& [op, count] : byOp) table.add({op, std::to_string(count.int8), std::to_string(count.kept)});
  fmt::print("{}{} of {} ops quantized\n", table.str(), int8, coverage.rows.size());
  printHow(coverage);
  if (reasons.empty()) return;
  fmt::print("\nstayed float:\n");
  Table why({"op", "count", "why", "nodes"});
  for (const auto& [key, nodes] : reasons) {
    std::string names;
    const size_t shown = all ? nodes.size() : std::min<size_t>(nodes.size(), 2);
    for (size_t i = 0; i < shown; ++i) names += (i ? ", " : "") + nodes[i];
    if (shown < nodes.size()) names += ", ...";
    why.add({key.first, std::to_string(nodes.size()), key.second, names});
  }
  fmt::print("{}", why.str());
}

// The layers whose results differ most from the float model's; the rounding of their own result alone beside it.
void printNoise(const std::vector<LayerNoise>& layers, const std::string& on, bool all) {
  constexpr size_t kShown = 5;
  if (layers.empty()) return;
  std::vector<LayerNoise> worst;
  for (const LayerNoise& layer : layers)
    if (layer.op != "output") worst.push_back(layer);
  if (!all)
    std::sort(worst.begin(), worst.end(),
              [](const LayerNoise& a, const LayerNoise& b) { return std::tie(a.total, a.node) < std::tie(b.total, b.node); });
  const size_t shown = all ? worst.size() : std::min(kShown, worst.size());
  Table table({"op", "SQNR dB", "own rounding", "layer"});
  for (size_t i = 0; i < shown; ++i)
    table.add({worst[i].op, fmt::format("{:.1f}", worst[i].total), fmt::format("{:.1f}", worst[i].own), worst[i].node});
  for (const LayerNoise& layer : layers)
    if (layer.op == "output") table.add({layer.op, fmt::format("{:.1f}", layer.total), "", layer.node});
  fmt::print("\nfloat against int8, on {}{}:\n{}", on, all ? "" : "; the noisiest layers", table.str());
}

int64_t fileSize(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<int64_t>(size);
}

// What makes integers of it all the same, as --config takes it.
nlohmann::json ruleJson(const CoverageRow& row) {
  if (!row.remedy) return nullptr;
  nlohmann::json rule = {{"name", row.remedy->name}, {"qconfig", row.remedy->qconfig}};
  if (row.remedy->force) rule["force"] = true;
  return rule;
}

// One for each reason, of its first node.
void printRemedies(const CoverageReport& coverage, bool all) {
  constexpr size_t kShown = 3;
  std::set<std::tuple<std::string, std::string, bool>> known;
  std::vector<std::string> rules;
  for (const CoverageRow& row : coverage.rows)
    if (row.remedy && (all || known.emplace(row.op, row.remedy->qconfig, row.quantized).second))
      rules.push_back(ruleJson(row).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  if (rules.empty()) return;
  if (!all && rules.size() > kShown) rules.resize(kShown);
  fmt::print("\na rule makes them integers all the same, in {{\"rules\": [..]}} of --config:\n");
  for (const std::string& rule : rules) fmt::print("  {}\n", rule);
}

nlohmann::json reportJson(const QuantizedModel& quantized, const QConfigMapping& rules) {
  nlohmann::json rows = nlohmann::json::array();
  for (const CoverageRow& row : quantized.coverage.rows)
    rows.push_back({{"node", row.node}, {"op", row.op}, {"int8", row.quantized}, {"reason", row.reason}, {"rule", ruleJson(row)}});
  nlohmann::json noise = nlohmann::json::array();
  for (const LayerNoise& l : quantized.layers)
    noise.push_back({{"node", l.node}, {"op", l.op}, {"sqnr_db", l.total}, {"own_sqnr_db", l.own}});
  return {{"coverage", rows}, {"layers", noise}, {"rules", nlohmann::json::parse(rules.toJson())}};
}

nlohmann::json remarksJson(const std::vector<Remark>& remarks) {
  nlohmann::json list = nlohmann::json::array();
  for (const Remark& r : remarks) list.push_back(r.message);
  return list;
}

// What the noise of layers and the decisions of recovery are measured on: other samples than those of calibration, where there are enough.
struct CheckSamples {
  enum class Kind { none, calibration, leftOut, given };
  Kind kind = Kind::none;
  Dataset samples = {};

  std::string_view name() const {  // as in JSON
    constexpr std::string_view kNames[] = {"none", "calibration", "left_out", "check"};
    return nth(kNames, kind);
  }
  bool usedAfterwards = false;  // left out for the measurement alone
  std::string str(int64_t count) const {
    switch (kind) {
      case Kind::given: return fmt::format("{} samples of --check", count);
      case Kind::leftOut:
        return fmt::format("{} samples left out of calibration{}", count, usedAfterwards ? " (the file was then calibrated with all)" : "");
      default: return fmt::format("{} of the calibration samples, which flatters: --check names others", count);
    }
  }
};

// With --calibration-limit what it leaves over comes first; else a fifth of the samples.
Result<CheckSamples> checkSamples(const QuantizeFlags& o, const Model& model, Dataset& calibration) {
  using Kind = CheckSamples::Kind;
  Dataset rest = calibration;
  if (o.limit > 0) calibration.keepFirst(o.limit);
  if (!o.check.empty()) {
    QC_ASSIGN(Dataset given, DataOptions{o.check}.open(model));
    return CheckSamples{Kind::given, std::move(given)};
  }
  // Saved ranges have likely seen the samples.
  if (calibration.size() < 2 || !o.ranges.empty()) return CheckSamples{calibration.size() > 0 ? Kind::calibration : Kind::none};
  rest.forgetFirst(calibration.size());
  if (rest.size() > 0 && rest.size() >= calibration.size() / 5) return CheckSamples{Kind::leftOut, std::move(rest)};
  return CheckSamples{Kind::leftOut, calibration.leaveOut()};
}

constexpr int64_t kFew = 128;  // calibration samples, of which a fifth is missed

// Why there is no table of noise; empty: there is one, or it was not wanted.
std::string whyUnmeasured(const QuantizeFlags& o, const QuantizedModel& result, const Dataset& samples) {
  if (result.compared > 0 || o.recovery.compare == 0 || o.mode != "static" || result.coverage.quantizedCount() == 0) return {};
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
  std::move(more.sources.begin(), more.sources.end(), std::back_inserter(report.sources));
  std::move(more.warnings.begin(), more.warnings.end(), std::back_inserter(report.warnings));
  return report;
}

Status runQuantize(QuantizeFlags o, const CLI::App& verb) {
  const double start = now();
  QC_TRY(checkMode(o));
  std::vector<std::string> outputs{o.output};
  if (!o.writeRules.empty()) outputs.push_back(o.writeRules);
  QC_TRY(checkOutputs(outputs));
  QC_ASSIGN(const QConfigMapping rules, rulesFor(o));
  QC_TRY(o.recovery.follow(rules));
  QC_TRY(checkEffects(o, verb));
  QC_ASSIGN(const Model model, o.model.loadOfAnyShape());
  Dataset samples;
  if (!o.data.sources.empty()) {
    QC_ASSIGN(samples, o.data.open(model));
  }
  InputReport inputs;
  if (samples.size() > 0) {
    QC_ASSIGN(inputs, fedInputs(o, model, samples));
    warnOfInputs(inputs);
  }
  StagedProgress progress;
  Dataset seen = samples;
  QC_ASSIGN(CheckSamples check, checkSamples(o, model, seen));
  QC_TRY(checkOutputs(outputs));  // once more, before the long work: now it is known what is read
  QC_ASSIGN(const PreparedModel prepared, prepareModel(model, rules));
  QC_ASSIGN(const std::vector<Remark> idle, idleRules(prepared));
  for (const Remark& r : idle) fmt::print(stderr, "warning: {}\n", r.message);
  QC_TRY(checkRanges(o, prepared));
  if (observes(prepared)) QC_TRY(refuseEmpty(samples, inputs));
  QC_ASSIGN(QuantizedModel result, quantized(o, prepared, seen, check.samples.size() > 0 ? &check.samples : nullptr, progress));
  const int64_t asked = o.limit > 0 ? std::min(o.limit, samples.size()) : samples.size();
  if (check.kind == CheckSamples::Kind::leftOut && seen.size() < asked && asked <= kFew) {
    // So few that those left out are missed: measured without them, made with all.
    check.usedAfterwards = true;
    samples.keepFirst(asked);
    QuantizeFlags whole = o;
    whole.recovery.compare = 0;
    QC_ASSIGN(QuantizedModel withAll, quantized(whole, prepared, samples, nullptr, progress));
    withAll.layers = std::move(result.layers);
    withAll.compared = result.compared;
    result = std::move(withAll);
  }
  if (o.ranges.empty() && samples.size() > 0)
    for (const std::string& warning : assess(result.ranges).warnings) fmt::print(stderr, "warning: {}\n", warning);
  QC_TRY(requireInt8(result.coverage, o.requireInt8));
  if (const std::string warning = nothingQuantized(result.coverage); !warning.empty()) fmt::print(stderr, "warning: {}\n", warning);
  const std::string unmeasured = whyUnmeasured(o, result, check.samples.size() > 0 ? check.samples : samples);
  if (o.timePasses) printTimings(result.timings);
  QC_TRY(save(result.model, o.output));
  if (!o.writeRules.empty()) QC_TRY(writeFileAtomically(o.writeRules, o.recovery.resolved(rules).toJson() + "\n"));
  // Of a model that is read, the weights beside its file belong to it; what is written is one file.
  const auto read = o.model.path.ends_with(".onnx") ? modelBytes(o.model.path) : Result<int64_t>(fileSize(o.model.path));
  const int64_t before = read ? *read : fileSize(o.model.path), after = fileSize(o.output);
  if (o.json) {
    nlohmann::json report = reportJson(result, o.recovery.resolved(rules));
    report.update(
        {{"output", o.output},
         {"samples", result.ranges.samples()},
         {"measured_on",
          {{"samples", result.compared}, {"kind", result.compared > 0 ? check.name() : "none"}, {"used_afterwards", check.usedAfterwards}}},
         {"unmeasured", unmeasured},
         {"fed", inputsJson(inputs)},
         {"idle_rules", remarksJson(idle)},
         {"seconds", now() - start},
         {"bytes_before", before},
         {"bytes_after", after}});
    printJson(report);
    return {};
  }
  printCoverage(result.coverage, o.all);
  printRemedies(result.coverage, o.all);
  printNoise(result.layers, check.str(result.compared), o.all);
  for (const Remark& r : result.remarks) fmt::print("note: {}{}\n", r.node.empty() ? "" : r.node + ": ", r.message);
  if (!unmeasured.empty()) fmt::print("note: {}\n", unmeasured);
  if (!inputs.sources.empty()) fmt::print("\n");
  printInputs(inputs);
  fmt::print("\n{} -> {}: {} -> {}, {} calibration samples, {:.1f} s\n", o.model.path, o.output, megabytes(before), megabytes(after),
             result.ranges.samples(), now() - start);
  return {};
}

void addShared(QuantizeFlags& o, CLI::App& verb) {
  o.model.addTo(verb);
  o.rules.addTo(verb);
  verb.add_option("--calibration-limit", o.limit, "at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb.add_option("--threads", o.threads, "threads of a calibration run")->check(CLI::Range(1, 1024));
}

}  // namespace

void addQuantizeCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<QuantizeFlags>();
  CLI::App* verb = app.add_subcommand("quantize", "from a float model and samples to an int8 model");
  verb->footer("qcompile quantize m.onnx -d 'images:calib?size=224&resize=256' -o m.int8.onnx");
  addShared(*options, *verb);
  options->data.addTo(*verb, false);
  verb->add_option("--check", options->check, "samples to measure on, a SOURCE as of -d; else a fifth of those of -d is left out for that")
      ->take_all();
  verb->add_option("--require-int8", options->requireInt8,
                   "fail, and write nothing, unless this is quantized: a share of the ops (0.9, 90%) or nodes by regular expression")
      ->take_all();
  verb->add_option("--mode", options->mode, "static (with samples); without: dynamic, weight-only, fp16-weights")
      ->check(CLI::IsMember({"static", "dynamic", "weight-only", "fp16-weights"}));
  CLI::Option* perToken =
      verb->add_flag("--per-token", options->perToken,
                     "dynamic: parameters for every row of a layer's input; default for linear layers with --backend x86");
  verb->add_flag("--per-tensor", options->perTensor, "dynamic: one pair for the whole input of a layer, as DynamicQuantizeLinear has it")
      ->excludes(perToken);
  verb->add_option("--weight-bits", options->weightBits, "weight-only: 8 or 4, of linear layers and embeddings; others have 8")
      ->check(CLI::IsMember({8, 4}));
  verb->add_option("--group-size", options->groupSize, "weight-only: weights that share a scale; 0: a whole channel; default 32 for 4 bits")
      ->check(CLI::Range(0, 1 << 20));
  verb->add_option("--ranges", options->ranges, "ranges of an earlier calibrate run, in place of samples")->type_name("FILE");
  verb->add_option("-o,--output", options->output, "QDQ ONNX, or .qir")->type_name("FILE")->required();
  verb->add_option("--write-rules", options->writeRules, "the rules as they were applied, every setting spelled out, for --config")
      ->type_name("FILE");
  options->recovery.addTo(*verb);
  verb->add_flag("--all", options->all, "name every node that stayed float, and the noise of every layer");
  verb->add_flag("--time-passes", options->timePasses, "print the time of each pass over the model's graph (stderr)");
  verb->add_flag("--json", options->json, "one JSON object on stdout");
  verb->callback([options, verb, &exitCode] {
    options->recovery.noteGiven(*verb);
    exitCode = report(runQuantize(*options, *verb));
  });
}

}  // namespace qc::tools
