#include "tools/quantize_flags.h"

#include "quantizer/rules/weight_bits.h"

namespace qc::tools {

void RecoveryFlags::addTo(CLI::App& verb) {
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

void RecoveryFlags::noteGiven(const CLI::App& verb) {
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

Status RecoveryFlags::follow(const QConfigMapping& rules) {
  QC_TRY(RecoverOptions().under(rules).checkChoices());
  for (const auto& [recipe, choice] : rules.recipes())
    if (!chosen.contains(recipe)) choices.find(recipe)->second = choice;
  return {};
}

QConfigMapping RecoveryFlags::resolved(QConfigMapping rules) const {
  for (const auto& [recipe, choice] : choices) rules.recipe(std::string(recipe), choice);
  return rules;
}

bool RecoveryFlags::any() const {
  return std::any_of(recipes().begin(), recipes().end(), [&](const Recipe& r) { return choices.at(r.name) != r.off; });
}

RecoverOptions RecoveryFlags::options(int threads, StagedProgress& progress) const {
  RecoverOptions o;
  o.progress = [&](const char* stage, int64_t done, int64_t total) { progress.update(stage, done, total); };
  for (const auto& [recipe, choice] : choices) o.choose(std::string(recipe), choice);
  o.samples = samples;
  o.threads = threads;
  return o;
}

void QuantizeFlags::addTo(CLI::App& verb) {
  model.addFloatTo(verb);
  rules.addTo(verb);
  verb.add_option("--calibration-limit", limit, "at most so many samples")->check(CLI::Range(1, 1 << 30));
  verb.add_option("--threads", threads, "threads of a calibration run")->check(CLI::Range(1, 1024));
  data.addTo(verb, false);
  verb.add_option("--check", check, "samples to measure on, a SOURCE as of -d; else a fifth of those of -d is left out for that")
      ->take_all();
  verb.add_option("--require-int8", requireInt8,
                  "fail, and write nothing, unless this is quantized: a share of the ops (0.9, 90%) or nodes by regular expression")
      ->take_all();
  verb.add_option("--mode", mode, "static (with samples); without: dynamic, weight-only, fp16-weights")
      ->check(CLI::IsMember({"static", "dynamic", "weight-only", "fp16-weights"}));
  CLI::Option* rowwise = verb.add_flag(
      "--per-token", perToken, "dynamic: parameters for every row of a layer's input; default for linear layers with --backend x86");
  verb.add_flag("--per-tensor", perTensor, "dynamic: one pair for the whole input of a layer, as DynamicQuantizeLinear has it")
      ->excludes(rowwise);
  verb.add_option("--weight-bits", weightBits,
                  "8, 4 or 2; default 8, or what the rules say. static: of the layers that no rule names; weight-only: 8 or 4, of linear "
                  "layers and embeddings, others have 8")
      ->check(CLI::IsMember({8, 4, 2}));
  verb.add_option("--group-size", groupSize, "weight-only: weights that share a scale; 0: a whole channel; default 32 for 4 bits")
      ->check(CLI::Range(0, 1 << 20));
  verb.add_option("--ranges", ranges, "ranges of an earlier calibrate run, in place of samples")->type_name("FILE");
  verb.add_option("-o,--output", output, "QDQ ONNX, or .qir")->type_name("FILE")->required();
  verb.add_option("--write-rules", writeRules, "the rules as they were applied, every setting spelled out, for --config")
      ->type_name("FILE");
  recovery.addTo(verb);
  target.addTo(verb);
  ledger.addTo(verb);
  verb.add_flag("--free-batch", freeBatch,
                "a model that is made for one sample at a time: write it for any number of them, each computed as if it were alone");
  verb.add_flag("--all", all, "name every node that stayed float, and the noise of every layer");
  verb.add_flag("--time-passes", timePasses, "print the time of each pass over the model's graph (stderr)");
  verb.add_flag("--json", json, "one JSON object on stdout");
  report.addTo(verb);
}

Result<QConfigMapping> withBitsOf(const std::optional<int64_t>& weightBits, const QConfigMapping& rules) {
  if (!weightBits) return rules;
  if (bitsOfWeights(rules) == 0)
    return fail(ErrorCode::kInvalidArgument, "--weight-bits has no effect: the global rule leaves weights in float")
        .help("write the integers into the rules of the layers, as {\"weight\": {\"dtype\": \"s4\"}}, or leave it out");
  return withWeightBits(rules, static_cast<int>(*weightBits));
}

Result<QConfigMapping> rulesFor(const QuantizeFlags& o) {
  if (o.mode == "static") {
    QC_ASSIGN(const QConfigMapping given, o.rules.load());
    return withBitsOf(o.weightBits, given);
  }
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
    const auto bits = static_cast<int>(o.weightBits.value_or(8));
    return rules(weightOnlyQConfigMapping(backend, bits, o.groupSize >= 0 ? o.groupSize : bits == 4 ? 32 : 0));
  }
  return all(halfWeightsQConfig());
}

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
  if (o.mode != "weight-only" && o.groupSize >= 0)
    return fail(ErrorCode::kInvalidArgument, "--group-size is for weights that are quantized alone").help("add --mode weight-only");
  if (!isStatic && o.mode != "weight-only" && o.weightBits.value_or(8) != 8)
    return fail(ErrorCode::kInvalidArgument, "--weight-bits is for --mode static and weight-only").help("leave it out");
  if (!isStatic && o.weightBits == 2)
    return fail(ErrorCode::kInvalidArgument, "--weight-bits 2 is for --mode static").help("with --mode weight-only they are 8 or 4");
  return {};
}

Status checkEffects(const QuantizeFlags& o, const CLI::App& verb) {
  const bool isStatic = o.mode == "static", samples = !o.data.sources.empty(), decides = o.recovery.any() && o.ranges.empty();
  const std::string_view leaveOut = "leave it out";
  QC_TRY(o.target.check(verb, isStatic, samples, !o.ranges.empty()));
  QC_TRY(o.ledger.check(verb, isStatic, samples, !o.ranges.empty(), o.target.given()));
  return refuseWithoutEffect(verb, {{"--calibration-limit", samples, "without samples", "give them with -d, or leave it out"},
                                    {"--threads", samples || !o.check.empty(), "without samples", "give them with -d, or leave it out"},
                                    {"--guard-masked-scores", isStatic, "where no activation is observed", leaveOut},
                                    {"--guard-biases", isStatic, "where biases stay float", leaveOut},
                                    {"--recovery-samples", o.recovery.any(), "where nothing that uses them is on", leaveOut},
                                    {"--check", o.recovery.compare > 0 || decides, "where nothing is compared or decided on it",
                                     "leave it out, or allow --compare-samples"}});
}

}  // namespace qc::tools
