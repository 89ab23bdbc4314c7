#include "tools/beside_float.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "ir/quantized.h"
#include "runtime/insight/float_form.h"
#include "runtime/insight/layer_costs.h"
#include "runtime/insight/program_costs.h"
#include "tools/model_runs.h"

namespace qc::tools {
namespace {

struct Latency {
  double min = 0, p50 = 0, p90 = 0, p99 = 0, perSecond = 0;
};

Latency latencyOf(std::vector<double> runs) {
  std::sort(runs.begin(), runs.end());
  double total = 0;
  for (const double r : runs) total += r;
  const auto at = [&](size_t percent) { return runs[(runs.size() * percent + 99) / 100 - 1] * 1e3; };
  return {runs[0] * 1e3, at(50), at(90), at(99), static_cast<double>(runs.size()) / total};
}

nlohmann::json latencyJson(const std::string& name, const Latency& l) {
  return {{"model", name},   {"min_ms", l.min}, {"median_ms", l.p50},       {"p50_ms", l.p50},
          {"p90_ms", l.p90}, {"p99_ms", l.p99}, {"runs_per_s", l.perSecond}};
}

struct InTurns {
  std::vector<TimedModel> timed;
  std::vector<ModelRun> runs;
};

// Both on the same inputs.
Result<InTurns> inTurns(const Model& model, const Model& other, const TensorMap& inputs, const BuildOptions& build, int threads,
                        const TurnOptions& turns) {
  const std::vector<Port> ports = model.inputs();
  for (const Port& port : other.inputs()) {
    const auto it = std::ranges::find(ports, port.name, &Port::name);
    if (it == ports.end() || it->type.sizes() != port.type.sizes() || it->type.dtype != port.type.dtype)
      return fail(ErrorCode::kInvalidArgument, "the models do not have the same inputs: one takes {}", port.type.str())
          .on(port.name)
          .help("compare two files of one model, at one --shape");
  }
  InTurns both;
  QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = threads}));
  for (const Model* m : {&model, &other}) {
    TensorMap own;
    for (const Port& port : m->inputs()) own.insert(*inputs.find(port.name));
    QC_ASSIGN(ModelRun run, modelRun(build, *m, own, workspace));
    both.runs.push_back(std::move(run));
  }
  QC_ASSIGN(both.timed, profileInTurns(both.runs, turns));
  return both;
}

// Data may decide otherwise in the other.
std::string decisionsOfBoth(const std::vector<ModelRun>& runs, const std::string& other) {
  const std::string text = decisionsText(runs[0]), its = decisionsText(runs[1]);
  if (text.empty() && its.empty()) return "";
  return text == its ? text + "\n" : fmt::format("{}\n{}: {}\n", text, other, its);
}

}  // namespace

ModelOptions beside(const ModelOptions& options, const std::string& other) {
  ModelOptions its = options;
  its.path = other;
  if (its.shapes.empty() && its.values.empty()) return its;
  const auto asItIs = load(other, {.freeDims = true});
  if (!asItIs) return its;  // it cannot be had without them
  std::set<std::string> known;
  for (const Port& p : asItIs->inputs()) {
    known.insert(p.name);
    for (const Dim& dim : p.type.shape)
      if (!dim.isStatic()) known.merge(dim.expr().symbols());
  }
  const auto lacks = [&](const std::string& text) { return !known.contains(text.substr(0, text.rfind('='))); };
  std::erase_if(its.shapes, lacks);
  std::erase_if(its.values, lacks);
  return its;
}

CLI::Option* CompareFlag::addTo(CLI::App& verb) {
  return verb
      .add_option("--compare", with, "beside it, in turns: 'float', the model without its quantize and dequantize, or another file of it")
      ->type_name("float|FILE");
}

Result<Model> CompareFlag::other(const Model& model, const ModelOptions& options) const {
  if (with != "float") return beside(options, with).load();
  if (!model.isQuantized())
    return fail(ErrorCode::kInvalidArgument, "--compare float: {} holds no integers", options.path)
        .help("give the quantized file, or another file to compare with");
  QC_ASSIGN(Graph graph, floatForm(model.graph()));
  if (isQuantized(graph))
    return fail(ErrorCode::kUnsupported,
                "--compare float: layers of {} compute on integers whose parameters are found at run time, so its "
                "float model is not known",
                options.path)
        .help("name the file of the float model in its place");
  return Model(std::move(graph), model.name());
}

Status benchBeside(const Model& model, const Model& other, const std::string& otherName, const EngineOptions& engine, double seconds,
                   bool json) {
  QC_ASSIGN(const BuildOptions build, engine.build());
  QC_ASSIGN(const InTurns both, inTurns(model, other, madeInputs(model.graph()), build, engine.threads, {.seconds = 2 * seconds}));
  const std::vector<TimedModel>& timed = both.timed;
  noteMadeInputs(both.runs[0], model.graph());
  const Latency first = latencyOf(timed[0].runs), second = latencyOf(timed[1].runs);
  if (json) {
    nlohmann::json rows = {latencyJson(model.name(), first), latencyJson(otherName, second)};
    for (size_t k = 0; k < both.runs.size(); ++k)
      if (!both.runs[k].decisions().empty()) rows[k]["decisions"] = decisionsJson(both.runs[k]);
    printJson({{"models", rows},
               {"ratio_min", first.min / second.min},
               {"ratio_p50", first.p50 / second.p50},
               {"iterations", timed[0].runs.size()},
               {"threads", engine.threads},
               {"target", build.target.str()}});
    return {};
  }
  Table table({"min ms", "p50", "p90", "p99", "runs/s", "model"});
  for (const auto& [name, l] : {std::pair(model.name(), first), std::pair(otherName, second)})
    table.add({fmt::format("{:.3f}", l.min), fmt::format("{:.3f}", l.p50), fmt::format("{:.3f}", l.p90), fmt::format("{:.3f}", l.p99),
               fmt::format("{:.1f}", l.perSecond), name});
  fmt::print("{}{} takes {:.2f} times as long as {} (minima), {:.2f} (p50); {} runs of each in turns, {} thread(s), {}\n", table.str(),
             model.name(), first.min / second.min, otherName, first.p50 / second.p50, timed[0].runs.size(), engine.threads,
             build.target.str());
  fmt::print("{}", decisionsOfBoth(both.runs, otherName));
  return {};
}

Status profileBeside(const Model& model, const Model* other, const std::string& otherName, const TensorMap& inputs,
                     const EngineOptions& engine, int runs, const BesideProfile& how) {
  std::vector<StepProfile> steps, otherSteps;
  std::string target, basis;
  nlohmann::json json = {{"threads", engine.threads}, {"predicted", how.predict}, {"compared_with", otherName}};
  if (how.predict) {
    const auto costs = modelledCosts(how.target, {{inputs}}, engine.threads);
    std::vector<const Graph*> graphs{&model.graph()};
    if (other) graphs.push_back(&other->graph());
    QC_ASSIGN(const std::vector<ProgramCost> found, costs->of(graphs));
    steps = found[0].steps, otherSteps = found.back().steps;
    target = costs->target();
    const ModelBasis ours = basisOf(found[0].parts), theirs = basisOf(found.back().parts);
    std::vector<std::string> origins = ours.origins, uncounted = ours.uncounted;
    for (const std::string& o : theirs.origins)
      if (std::find(origins.begin(), origins.end(), o) == origins.end()) origins.push_back(o);
    if (other) uncounted.insert(uncounted.end(), theirs.uncounted.begin(), theirs.uncounted.end());
    const double error = std::max(ours.error, theirs.error), documented = std::max(ours.documented, theirs.documented);
    json["model"] = {{"kernel_error", error}, {"documented_share", documented}, {"origins", origins}, {"uncounted", uncounted}};
    basis = fmt::format("predicted for {} from constants of {}; kernels were within {:.0f}% of their measured times there (median)\n",
                        target, fmt::join(origins, "; "), error * 100);
    if (documented > 0)
      basis += fmt::format("{:.0f}% of the time stands on constants from documents, which nobody measured\n", documented * 100);
    if (!uncounted.empty())
      basis += fmt::format("not counted, as no kernel computes it there: '{}'{}\n", uncounted[0],
                           uncounted.size() > 1 ? fmt::format(" and {} more", uncounted.size() - 1) : "");
  } else {
    QC_ASSIGN(const BuildOptions build, engine.build());
    QC_ASSIGN(InTurns both, inTurns(model, *other, inputs, build, engine.threads, {.seconds = 0, .rounds = runs, .steps = true}));
    if (how.madeInputs) noteMadeInputs(both.runs[0], model.graph());
    steps = std::move(both.timed[0].steps), otherSteps = std::move(both.timed[1].steps);
    target = build.target.str();
    basis = fmt::format("minima of {} runs in turns, {} thread(s), {}\n{}", runs, engine.threads, target,
                        decisionsOfBoth(both.runs, otherName));
  }
  json["target"] = target;
  std::vector<LayerCost> layers = layerCosts(steps, otherSteps);
  double total = 0, otherTotal = 0, lost = 0;
  int losers = 0;
  for (const LayerCost& l : layers) {
    total += l.seconds, otherTotal += l.floatSeconds;
    if (l.loses()) ++losers, lost += l.seconds - l.floatSeconds;
  }
  if (how.byTime)
    std::stable_sort(layers.begin(), layers.end(), [](const LayerCost& a, const LayerCost& b) { return a.seconds > b.seconds; });
  ReportData page{.title = fmt::format("{}: where the time goes", model.name())};
  page.facts = {{"model", model.name()}, {"target", target}, {"threads", std::to_string(engine.threads)}};
  BesideData beside{model.name(), otherName, basis, layers};
  if (other) {
    page.facts.emplace_back("beside it", otherName);
    page.beside = &beside;
  } else {
    page.notes.push_back(basis);
    page.steps = &steps;
  }
  QC_TRY(how.report.write(std::move(page)));
  if (!other) {
    if (how.json) {
      json.erase("compared_with");
      json.update({{"layers", layersJson(steps)}, {"total_us", total * 1e6}});
      printJson(json);
      return {};
    }
    Table table({"us", "%", "op", "kernel", "result", "node"});
    if (how.byTime) std::stable_sort(steps.begin(), steps.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
    for (const StepProfile& s : steps)
      table.add({fmt::format("{:.1f}", s.seconds * 1e6), fmt::format("{:.1f}", s.share * 100), s.op, s.kernel, s.result, s.node});
    fmt::print("{}{:.1f} us in {} steps\n{}", table.str(), total * 1e6, steps.size(), basis);
    return {};
  }
  if (how.json) {
    nlohmann::json rows = nlohmann::json::array();
    for (const LayerCost& l : layers)
      rows.push_back({{"layer", l.node},
                      {"op", l.op},
                      {"us", l.seconds * 1e6},
                      {"other_us", l.floatSeconds * 1e6},
                      {"loses", l.loses()},
                      {"kernels", l.kernels},
                      {"other_kernels", l.floatKernels}});
    json.update({{"layers", rows}, {"total_us", total * 1e6}, {"other_total_us", otherTotal * 1e6}});
    printJson(json);
    return {};
  }
  Table table({"us", otherName + " us", "gain us", "", "op", "kernel", otherName + " kernel", "node"});
  for (const LayerCost& l : layers)
    table.add({fmt::format("{:.1f}", l.seconds * 1e6), fmt::format("{:.1f}", l.floatSeconds * 1e6),
               fmt::format("{:.1f}", (l.floatSeconds - l.seconds) * 1e6), l.loses() ? "loses" : "", l.op, l.kernels, l.floatKernels,
               l.node});
  fmt::print("{}{:.1f} us, {} {:.1f} us: {:.2f} times as long; {} of {} layers lose, {:.1f} us in all\n{}", table.str(), total * 1e6,
             otherName, otherTotal * 1e6, otherTotal > 0 ? total / otherTotal : 0, losers, layers.size(), lost * 1e6, basis);
  return {};
}

bool isElsewhere(const Target& target) { return !target.runsOn(Target::host()); }

}  // namespace qc::tools
