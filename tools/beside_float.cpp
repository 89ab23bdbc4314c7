#include "tools/beside_float.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/insight/float_form.h"
#include "runtime/insight/layer_costs.h"
#include "runtime/insight/program_costs.h"

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

// Inputs of the first for the second as well.
Result<std::vector<Tensor>> inputsFor(const Executable& other, const Executable& exe, const std::vector<Tensor>& inputs) {
  std::vector<Tensor> result;
  const std::vector<Port> ports = exe.inputs();
  for (const Port& port : other.inputs()) {
    const auto it = std::find_if(ports.begin(), ports.end(), [&](const Port& p) { return p.name == port.name; });
    if (it == ports.end() || it->type.sizes() != port.type.sizes() || it->type.dtype != port.type.dtype)
      return fail(ErrorCode::kInvalidArgument, "the models do not have the same inputs: one takes {}", port.type.str())
          .on(port.name)
          .help("compare two files of one model, at one --shape");
    result.push_back(inputs[usize(it - ports.begin())]);
  }
  return result;
}

Result<std::vector<TimedModel>> inTurns(const Model& model, const Model& other, const EngineOptions& engine, const TurnOptions& turns) {
  std::vector<Executable> programs;
  for (const Model* m : {&model, &other}) {
    QC_ASSIGN(Executable exe, engine.compile(*m));
    programs.push_back(std::move(exe));
  }
  std::vector<std::vector<Tensor>> inputs{syntheticInputs(programs[0])};
  QC_ASSIGN(std::vector<Tensor> same, inputsFor(programs[1], programs[0], inputs[0]));
  inputs.push_back(std::move(same));
  return profileInTurns(programs, inputs, turns);
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
  return Model(std::move(graph), model.name());
}

Status benchBeside(const Model& model, const Model& other, const std::string& otherName, const EngineOptions& engine, double seconds,
                   bool json) {
  QC_ASSIGN(const std::vector<TimedModel> timed,
            inTurns(model, other, engine, {.seconds = 2 * seconds, .session = {.threads = engine.threads}}));
  QC_ASSIGN(const BuildOptions build, engine.build());
  const Latency first = latencyOf(timed[0].runs), second = latencyOf(timed[1].runs);
  if (json) {
    printJson({{"models", {latencyJson(model.name(), first), latencyJson(otherName, second)}},
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
  return {};
}

Status profileBeside(const Model& model, const Model* other, const std::string& otherName, const EngineOptions& engine, int runs,
                     const BesideProfile& how) {
  std::vector<StepProfile> steps, otherSteps;
  std::string target, basis;
  nlohmann::json json = {{"threads", engine.threads}, {"predicted", how.predict}, {"compared_with", otherName}};
  if (how.predict) {
    const auto costs = modelledCosts(how.target, inputShapes(model.graph()), engine.threads);
    std::vector<const Graph*> graphs{&model.graph()};
    if (other) graphs.push_back(&other->graph());
    QC_ASSIGN(const std::vector<ProgramCost> found, costs->of(graphs));
    steps = found[0].steps, otherSteps = found.back().steps;
    target = costs->target();
    const ModelBasis ours = basisOf(found[0].program.program()), theirs = basisOf(found.back().program.program());
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
    QC_ASSIGN(std::vector<TimedModel> timed,
              inTurns(model, *other, engine, {.seconds = 0, .rounds = runs, .steps = true, .session = {.threads = engine.threads}}));
    QC_ASSIGN(const BuildOptions build, engine.build());
    steps = std::move(timed[0].steps), otherSteps = std::move(timed[1].steps);
    target = build.target.str();
    basis = fmt::format("minima of {} runs in turns, {} thread(s), {}\n", runs, engine.threads, target);
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
