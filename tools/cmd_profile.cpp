// profile: where the time goes, layer by layer.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "ir/files.h"
#include "runtime/insight/program_costs.h"
#include "runtime/profile.h"
#include "tools/beside_float.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/report_flags.h"

namespace qc::tools {
namespace {

struct ProfileFlags {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  int runs = 50;
  std::string sort = "order", by = "layer";
  bool json = false;
  ReportFlags report;
  bool predict = false;
  CompareFlag compare;
};

// "83.2 GOP/s" for products, "12.1 GB/s" for the rest.
std::string rate(const StepProfile& s) {
  if (!(s.seconds > 0)) return "";
  const double amount = static_cast<double>(s.operations > 0 ? s.operations : s.bytes) / s.seconds / 1e9;
  return fmt::format("{:.1f} {}", amount, s.operations > 0 ? "GOP/s" : "GB/s");
}

std::string kernelOf(const StepProfile& s) { return s.kernel.empty() ? "reference" : s.kernel; }

// One row per op, or per kernel; the other column lists what is in it.
std::vector<StepProfile> grouped(const std::vector<StepProfile>& steps, const std::string& by) {
  if (by == "layer") return steps;
  std::map<std::string, StepProfile> groups;
  std::map<std::string, int> counts;
  std::map<std::string, std::set<std::string>> ops, kernels;
  for (const StepProfile& s : steps) {
    const std::string key = by == "op" ? s.op : kernelOf(s);
    ops[key].insert(s.op);
    kernels[key].insert(kernelOf(s));
    StepProfile& g = groups[key];
    g.op = fmt::format("{}", fmt::join(ops[key], ", "));
    g.kernel = fmt::format("{}", fmt::join(kernels[key], ", "));
    g.seconds += s.seconds;
    g.share += s.share;
    g.operations += s.operations;
    g.bytes += s.bytes;
    g.node = fmt::format("{} steps", ++counts[key]);
  }
  std::vector<StepProfile> rows;
  for (auto& [key, group] : groups) rows.push_back(std::move(group));
  return rows;
}

Status runProfile(const ProfileFlags& o, const CLI::App& verb) {
  if (o.report) QC_TRY(checkOutput(o.report.path));
  QC_ASSIGN(const Model model, o.model.load());
  QC_TRY(refuseWithoutEffect(
      verb, {{"--sort", o.by == "layer" || o.sort == "time", "with --by", "leave it out: groups stand in the order of their time"}}));
  QC_ASSIGN(const Target target, Target::parse(o.engine.target));
  const bool predict = o.predict || isElsewhere(target);
  QC_TRY(
      refuseWithoutEffect(verb, {{"--runs", !predict, "where times are predicted", "leave it out"},
                                 {"--data", !predict && o.compare.with.empty(), "where times are predicted or compared", "leave it out"},
                                 {"--by", !predict && o.compare.with.empty(), "where times are predicted or compared", "leave it out"}}));
  if (predict || !o.compare.with.empty()) {
    // Of an int8 model the question is what float would cost there.
    CompareFlag beside = o.compare;
    if (beside.with.empty() && model.isQuantized()) beside.with = "float";
    std::optional<Model> other;
    if (!beside.with.empty()) {
      QC_ASSIGN(other, beside.other(model, o.model));
    }
    return profileBeside(model, other ? &*other : nullptr, beside.with, o.engine, o.runs,
                         {.predict = predict, .target = target, .byTime = o.sort == "time", .json = o.json, .report = o.report});
  }
  QC_ASSIGN(const Executable exe, o.engine.compile(model));
  std::vector<Tensor> inputs;
  if (o.data.sources.empty()) {
    inputs = syntheticInputs(exe);
  } else {
    QC_ASSIGN(const Dataset data, o.data.open(model));
    QC_ASSIGN(const TensorMap sample, data.sample(0));
    for (const Port& p : exe.inputs()) inputs.push_back(sample.at(p.name));
  }
  QC_ASSIGN(const std::vector<StepProfile> steps, profile(exe, inputs, o.runs, {.threads = o.engine.threads}));
  std::vector<StepProfile> rows = grouped(steps, o.by);
  if (o.sort == "time" || o.by != "layer")
    std::sort(rows.begin(), rows.end(),
              [](const auto& a, const auto& b) { return std::tie(b.seconds, a.node) < std::tie(a.seconds, b.node); });
  double total = 0;
  for (const StepProfile& s : rows) total += s.seconds;
  if (o.report) {
    ReportData page{.title = fmt::format("{}: where the time goes", std::filesystem::path(o.model.path).filename().string())};
    page.facts = {{"model", o.model.path},
                  {"target", exe.program().target().str()},
                  {"threads", std::to_string(o.engine.threads)},
                  {"runs", fmt::format("median of {}", o.runs)},
                  {"one run", fmt::format("{:.1f} us", total * 1e6)}};
    page.steps = &steps;
    page.graph = &exe.program().graph();
    QC_TRY(o.report.write(std::move(page)));
  }
  if (o.json) {
    printJson({{"total_us", total * 1e6},
               {"runs", o.runs},
               {"threads", o.engine.threads},
               {"target", exe.program().target().str()},
               {"layers", layersJson(rows)}});
    return {};
  }
  Table table({"us", "%", "rate", "op", "kernel", "result", "node"});
  for (const StepProfile& s : rows)
    table.add({fmt::format("{:.1f}", s.seconds * 1e6), fmt::format("{:.1f}", s.share * 100), rate(s), s.op, kernelOf(s), s.result, s.node});
  fmt::print("{}{:.1f} us in {} steps, {} thread(s), {}\n", table.str(), total * 1e6, steps.size(), o.engine.threads,
             exe.program().target().str());
  return {};
}

}  // namespace

void addProfileCommand(CLI::App& app, int& exitCode) {
  auto o = std::make_shared<ProfileFlags>();
  CLI::App* verb = app.add_subcommand("profile", "time, share, kernel and rate of every layer");
  verb->footer("qcompile profile m.int8.onnx --sort time");
  o->model.addTo(*verb);
  o->engine.addTo(*verb);
  o->data.addTo(*verb, false);
  verb->add_option("--runs", o->runs, "median of so many runs")->check(CLI::Range(1, 1000000));
  verb->add_option("--sort", o->sort, "order (of execution) or time")->check(CLI::IsMember({"order", "time"}));
  verb->add_option("--by", o->by, "a line for each layer, op or kernel")->check(CLI::IsMember({"layer", "op", "kernel"}));
  o->compare.addTo(*verb);
  verb->add_flag("--predict", o->predict,
                 "times by the cost model in place of measured ones, those of float beside them; so too where --target names a CPU that is "
                 "not here (amx-int8, aarch64+dotprod)");
  verb->add_flag("--json", o->json, "one JSON object on stdout");
  o->report.addTo(*verb);
  verb->callback([o, verb, &exitCode] { exitCode = report(runProfile(*o, *verb)); });
}

}  // namespace qc::tools
