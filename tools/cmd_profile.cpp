// profile: where the time goes, layer by layer.
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "ir/files.h"
#include "passes/lower/bound_graph.h"
#include "runtime/insight/program_costs.h"
#include "runtime/profile.h"
#include "tools/beside_float.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/model_runs.h"
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
  if (!(s.seconds > 0) || s.bytes == 0) return "";
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

// At the sizes of the first sample, where there are any; and the inputs.
Result<Model> modelOn(const ProfileFlags& o, TensorMap& inputs) {
  if (o.data.sources.empty()) {
    QC_ASSIGN(Model model, o.model.load());
    inputs = madeInputs(model.graph());
    return model;
  }
  QC_ASSIGN(Model model, o.model.loadOfAnyShape(o.data));
  QC_ASSIGN(const Dataset data, o.data.open(model));
  QC_ASSIGN(inputs, data.sample(0));
  if (!hasFreeDims(model.graph())) return model;
  QC_ASSIGN(Graph bound, boundGraph(model.graph(), shapesOf(inputs)));
  return Model(std::move(bound), model.name());
}

Status runProfile(const ProfileFlags& o, const CLI::App& verb) {
  if (o.report) QC_TRY(checkOutput(o.report.path));
  TensorMap inputs;
  QC_ASSIGN(const Model model, modelOn(o, inputs));
  QC_TRY(refuseWithoutEffect(
      verb, {{"--sort", o.by == "layer" || o.sort == "time", "with --by", "leave it out: groups stand in the order of their time"}}));
  QC_ASSIGN(const Target target, Target::parse(o.engine.target));
  const bool predict = o.predict || isElsewhere(target);
  QC_TRY(
      refuseWithoutEffect(verb, {{"--runs", !predict, "where times are predicted", "leave it out"},
                                 {"--by", !predict && o.compare.with.empty(), "where times are predicted or compared", "leave it out"}}));
  if (predict || !o.compare.with.empty()) {
    // Of an int8 model the question is what float would cost there.
    CompareFlag beside = o.compare;
    if (beside.with.empty() && model.isQuantized()) beside.with = "float";
    std::optional<Model> other;
    if (!beside.with.empty()) {
      ModelOptions at = o.model;
      QC_ASSIGN(const LoadOptions asked, at.options());
      const auto& known = asked.shapes;
      for (const auto& [name, tensor] : o.data.sources.empty() ? TensorMap() : inputs)
        if (!tensor.sizes().empty() && !known.contains(name))
          at.shapes.push_back(fmt::format("{}={}", name, fmt::join(tensor.sizes(), "x")));
      QC_ASSIGN(other, beside.other(model, at));
    }
    return profileBeside(model, other ? &*other : nullptr, beside.with, inputs, o.engine, o.runs,
                         {.predict = predict,
                          .target = target,
                          .byTime = o.sort == "time",
                          .json = o.json,
                          .madeInputs = o.data.sources.empty(),
                          .report = o.report});
  }
  QC_ASSIGN(std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = o.engine.threads}));
  QC_ASSIGN(const BuildOptions build, o.engine.build());
  QC_ASSIGN(ModelRun run, modelRun(build, model, inputs, std::move(workspace)));
  if (o.data.sources.empty()) noteMadeInputs(run, model.graph());
  QC_ASSIGN(const std::vector<StepProfile> steps, profile(run, o.runs));
  std::vector<StepProfile> rows = grouped(steps, o.by);
  if (o.sort == "time" || o.by != "layer")
    std::sort(rows.begin(), rows.end(),
              [](const auto& a, const auto& b) { return std::tie(b.seconds, a.node) < std::tie(a.seconds, b.node); });
  double total = 0;
  for (const StepProfile& s : rows) total += s.seconds;
  if (o.report) {
    ReportData page{.title = fmt::format("{}: where the time goes", std::filesystem::path(o.model.path).filename().string())};
    page.facts = {{"model", o.model.path},
                  {"target", build.target.str()},
                  {"threads", std::to_string(o.engine.threads)},
                  {"runs", fmt::format("median of {}", o.runs)},
                  {"one run", fmt::format("{:.1f} us", total * 1e6)}};
    page.steps = &steps;
    page.graph = run.parts().size() == 1 ? &run.parts()[0].program.program().graph() : &model.graph();
    QC_TRY(o.report.write(std::move(page)));
  }
  if (o.json) {
    nlohmann::json j = {{"total_us", total * 1e6},
                        {"runs", o.runs},
                        {"threads", o.engine.threads},
                        {"target", build.target.str()},
                        {"layers", layersJson(rows)}};
    if (!run.decisions().empty()) j["decisions"] = decisionsJson(run);
    printJson(j);
    return {};
  }
  const bool branches = std::ranges::any_of(rows, [](const StepProfile& s) { return !s.where.empty(); });
  std::vector<std::string> header = {"us", "%", "rate", "op", "kernel", "result", "node"};
  if (branches) header.emplace_back("where");
  Table table(std::move(header));
  for (const StepProfile& s : rows) {
    std::vector<std::string> row = {
        fmt::format("{:.1f}", s.seconds * 1e6), fmt::format("{:.1f}", s.share * 100), rate(s), s.op, kernelOf(s), s.result, s.node};
    if (branches) row.push_back(s.where);
    table.add(std::move(row));
  }
  fmt::print("{}{:.1f} us in {} steps, {} thread(s), {}\n", table.str(), total * 1e6, steps.size(), o.engine.threads, build.target.str());
  if (!run.decisions().empty()) fmt::print("{} programs run: {}\n", run.parts().size(), decisionsText(run));
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
