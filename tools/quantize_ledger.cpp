#include "tools/quantize_ledger.h"

#include <nlohmann/json.hpp>

#include "runtime/insight/ways.h"

namespace qc::tools {

void LedgerFlags::addTo(CLI::App& verb) {
  verb.add_flag("--never-slower", neverSlower,
                "stretches of integers that, with the quantize and dequantize at their borders, do not win against float stay float: "
                "measured here, with --threads; a table says what was weighed");
  verb.add_option("--keep-int8", keepInt8, "with --never-slower: nodes that become integers whatever they cost, by regular expression")
      ->take_all();
  verb.add_option("--target", target,
                  "with --never-slower: for this target by the cost model in place of measuring, the same on every machine: avx2, "
                  "avx512vnni, aarch64+dotprod, ...")
      ->type_name("TARGET");
}

Status LedgerFlags::check(const CLI::App& verb, bool isStatic, bool samples, bool ranges, bool toTarget) const {
  for (const std::string_view option : {"--keep-int8", "--target"})
    QC_TRY(refuseWithoutEffect(verb, {{option, neverSlower, "without --never-slower", "add it, or leave this out"}}));
  if (!neverSlower) return {};
  if (!isStatic || !samples || ranges)
    return fail(ErrorCode::kInvalidArgument, "--never-slower works on calibration samples")
        .help(ranges ? "give samples with -d in place of --ranges" : "give samples with -d, in --mode static");
  if (toTarget)
    return fail(ErrorCode::kInvalidArgument, "--never-slower excludes --target-drop, --target-sqnr and --budget-ms")
        .help("write the rules of one run with --write-rules, and give them to the other with --config");
  return {};
}

Result<Ledger> weighed(const LedgerFlags& flags, const PreparedModel& prepared, const Dataset& calibration, int threads,
                       StagedProgress& progress) {
  // Values decide nothing of the time but which branch is taken: one sample of each gives every range that is needed, and no recipe has to
  // be tried.
  constexpr int64_t kLookedAt = 64;
  QC_ASSIGN(const std::vector<Way> ways, waysOf(*prepared.simplified, calibration, kLookedAt, threads));
  std::vector<int64_t> which;
  for (const Way& way : ways) which.push_back(way.sample);
  const Dataset few = calibration.chosen(which);
  RecoverOptions none;
  none.threads = threads;
  for (const Recipe& recipe : recipes()) none.choose(std::string(recipe.name), std::string(recipe.off));
  QC_ASSIGN(Trials trials, Trials::open(prepared, few, none));
  std::vector<TimedInputs> inputs;
  for (const Way& way : ways) {
    QC_ASSIGN(TensorMap sample, calibration.sample(way.sample));
    inputs.push_back({std::move(sample), way.share});
  }
  std::unique_ptr<CostSource> costs;
  if (flags.target.empty()) {
    MeasureOptions how{.threads = threads};
    how.build.compile.cacheFolder = kernelFolder();
    costs = measuredCosts(std::move(inputs), std::move(how));
  } else {
    QC_ASSIGN(const Target target, Target::parse(flags.target));
    costs = modelledCosts(target, std::move(inputs), threads);
  }
  LedgerOptions options{.keepInt8 = flags.keepInt8};
  options.progress = [&](const char* stage, int64_t done, int64_t total) {
    if (total > 0) progress.update(stage, done, total);
  };
  return neverSlower(trials, *costs, options);
}

void printLedger(const Ledger& ledger) {
  const auto ms = [](double value) { return fmt::format("{:.4f}", value); };
  fmt::print("\nregions of integers beside float, {} ({} thread(s)):\n",
             ledger.measured ? "measured in turns, minima, on " + ledger.target : "by the cost model for " + ledger.target, ledger.threads);
  Table table({"int8 ms", "float ms", "gain", "borders", "became", "region", "reason"});
  for (const LedgerRow& row : ledger.rows)
    table.add({ms(row.int8Milliseconds), ms(row.floatMilliseconds), ms(row.gain()), std::to_string(row.borders), row.becameWord(),
               row.region, row.reason});
  fmt::print("{}", table.str());
  Table whole({"ms", "int8 layers", "whole model"});
  whole.add({ms(ledger.floatMilliseconds), "0", "float"});
  for (const LedgerStep& step : ledger.path) whole.add({ms(step.milliseconds), std::to_string(step.int8Layers), step.what});
  fmt::print("{}chosen: {}, {} ms (all int8 {}, float {})\n", whole.str(), ledger.path[ledger.chosen].what, ms(ledger.milliseconds()),
             ms(ledger.int8Milliseconds()), ms(ledger.floatMilliseconds));
}

nlohmann::json ledgerJson(const Ledger& ledger) {
  nlohmann::json rows = nlohmann::json::array(), path = nlohmann::json::array();
  for (const LedgerRow& row : ledger.rows)
    rows.push_back({{"region", row.region},
                    {"nodes", row.nodes},
                    {"borders", row.borders},
                    {"int8_ms", row.int8Milliseconds},
                    {"float_ms", row.floatMilliseconds},
                    {"gain_ms", row.gain()},
                    {"became", row.becameWord()},
                    {"reason", row.reason}});
  for (const LedgerStep& step : ledger.path)
    path.push_back({{"what", step.what}, {"ms", step.milliseconds}, {"int8_layers", step.int8Layers}});
  return {{"regions", rows},
          {"path", path},
          {"chosen", ledger.chosen},
          {"ms", ledger.milliseconds()},
          {"int8_ms", ledger.int8Milliseconds()},
          {"float_ms", ledger.floatMilliseconds},
          {"made_float", ledger.madeFloat},
          {"measured", ledger.measured},
          {"target", ledger.target},
          {"threads", ledger.threads}};
}

}  // namespace qc::tools
