// inspect: what a model holds, and what a target makes of it.   doctor: what this machine and this build can do.
#include <fmt/ranges.h>

#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "frontend/onnx/summary.h"
#include "ir/guarded.h"
#include "ir/text.h"
#include "ir/visible.h"
#include "passes/pass.h"
#include "runtime/insight/op_states.h"
#include "runtime/insight/report/graph_picture.h"
#include "runtime/model.h"
#include "runtime/workflow/recipes.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/inspect_ranges.h"
#include "tools/model_runs.h"
#include "tools/report_flags.h"

namespace qc::tools {
namespace {

struct InspectOptions {
  ModelOptions model;
  EngineOptions engine;
  bool text = false, dot = false, kernels = false, json = false;
  ReportFlags report;
};

using Ports = std::vector<std::pair<std::string, std::string>>;

nlohmann::json portsJson(const Ports& ports) {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [name, type] : ports) list.push_back({{"name", name}, {"type", type}});
  return list;
}

// Where one of several programs runs; empty: always.
const std::string& whereOf(const ModelRun& run, const ModelRun::Part& part) {
  static const std::string kAlways;
  return part.program.program().steps().empty() ? kAlways : run.steps()[part.firstStep].where;
}

// The nodes that run, in their order; no kernel: the reference evaluation.
nlohmann::json kernelsJson(const ModelRun& run) {
  nlohmann::json list = nlohmann::json::array();
  for (const ModelRun::Part& part : run.parts())
    for (const Node* n = part.program.program().graph().front(); n; n = n->next()) {
      if (n->is("const")) continue;
      list.push_back({{"node", n->location()},
                      {"op", n->op()},
                      {"kernel", n->string("kernel")},
                      {"result", n->numResults() ? n->result(0)->type().str() : ""}});
      if (const std::string& where = whereOf(run, part); !where.empty()) list.back()["where"] = where;
    }
  return list;
}

void printKernels(const ModelRun& run) {
  for (const ModelRun::Part& part : run.parts()) {
    const std::string& where = whereOf(run, part);
    fmt::print("\n{}{}", where.empty() ? "" : fmt::format("// where {}\n", visible(where)),
               print(part.program.program().graph(), {.locations = true}));
  }
}

void printPorts(std::string_view label, const Ports& ports) {
  for (const auto& [name, type] : ports) fmt::print("{} {} : {}\n", label, name, type);
}

nlohmann::json summaryJson(const OnnxSummary& s) {
  nlohmann::json j = {{"inputs", portsJson(s.inputs)},
                      {"outputs", portsJson(s.outputs)},
                      {"ops", s.ops},
                      {"constant_bytes", s.constantBytes},
                      {"quantized", s.isQuantized},
                      {"bound", s.isBound},
                      {"weights", s.weights},
                      {"free", nlohmann::json::array()},
                      {"decided", nlohmann::json::array()}};
  for (const FreeDim& d : s.free)
    j["free"].push_back(
        {{"symbol", d.symbol}, {"where", d.places}, {"bind", d.example}, {"size", d.isBatch ? nlohmann::json(1) : nullptr}});
  for (const OnnxSummary::Decided& d : s.decided)
    j["decided"].push_back({{"symbol", d.symbol},
                            {"bound", d.bound.empty() ? nlohmann::json(nullptr) : nlohmann::json(d.bound)},
                            {"op", d.op},
                            {"node", d.node}});
  return j;
}

void printSummary(const OnnxSummary& s) {
  printPorts("input ", s.inputs);
  printPorts("output", s.outputs);
  for (const FreeDim& d : s.free)
    fmt::print("free   {} : {}; {}--shape {}\n", d.symbol.empty() ? "?" : d.symbol, fmt::join(d.places, ", "),
               d.isBatch ? "1 in bench and compile without " : "for bench and compile bind it with ", d.example);
  for (const OnnxSummary::Decided& d : s.decided)
    fmt::print("size   {} : {}decided by {} '{}'\n", d.symbol, d.bound.empty() ? "" : fmt::format("at most {}, ", visible(d.bound)), d.op,
               visible(d.node));
  Table table({"op", "count"});
  for (const auto& [op, count] : s.ops) table.add({op, std::to_string(count)});
  std::string weights;
  for (const auto& [type, layers] : s.weights)
    weights += fmt::format("{}{} in {} layer{}", weights.empty() ? "; weights " : ", ", type, layers, layers == 1 ? "" : "s");
  fmt::print("{}constants {}, {}{}\n", table.str(), megabytes(s.constantBytes), s.isQuantized ? "quantized" : "float", weights);
  if (!s.asInFile.empty()) fmt::print("types and ops are those of the file, its dims have to be bound: {}\n", visible(inFlags(s.asInFile)));
}

// From its headers; of a model for one sample at a time also at the number of them that --shape asks for.
Result<OnnxSummary> summaryOfFile(const ModelOptions& model) {
  QC_ASSIGN(const LoadOptions options, model.options());
  const auto at = [&](const Shapes& shapes) {
    return withoutExceptions([&] { return summarizeOnnxFile(model.path, {shapes, options.values}); });
  };
  auto found = at(options.shapes);
  if (found || options.shapes.empty()) return found;
  const auto ofOne = at({});
  if (!ofOne) return found;
  const auto batch = model.load();
  if (!batch) return found;
  OnnxSummary summary = summaryOf(batch->graph());
  summary.constantBytes = ofOne->constantBytes;
  return summary;
}

// What lowering says of layers, such as of one whose weights have no integer form: it stays float between its integers.
Status noteLowering(const Model& model) {
  PassContext cx;
  QC_TRY(lowerModel(model, cx));
  for (const Remark& r : cx.remarks)
    fmt::print(stderr, "note: {}{}\n", r.node.empty() ? "" : fmt::format("node '{}': ", visible(r.node)), r.message);
  return {};
}

Status inspect(const InspectOptions& o, const CLI::App& verb) {
  for (const char* option : {"--target", "--threads", "--no-cache", "--cache-size"})
    QC_TRY(refuseWithoutEffect(verb, {{option, o.kernels, "where nothing is compiled", "add --kernels, or leave it out"}}));
  if (isRangesFile(o.model.path)) {
    for (const char* option : {"--text", "--dot", "--kernels", "--shape", "--bind"})
      QC_TRY(refuseWithoutEffect(verb, {{option, false, "on a file of ranges", "leave it out"}}));
    return inspectRanges(o.model.path, o.json, o.report);
  }
  QC_TRY(refuseWithoutEffect(
      verb, {{"--report", false, "on a model", "it is for files of ranges (.qcal); quantize, debug and profile have it for models"}}));
  if (o.dot) {
    QC_ASSIGN(const Model model, o.model.loadOfAnyShape());
    if (!model.isQuantized()) {
      fmt::print("{}", report::GraphPicture::of(model.graph()).dot());
      return {};
    }
    QC_ASSIGN(const Graph graph, graphForReport(model));
    fmt::print("{}", report::GraphPicture::of(graph).dot());
    return {};
  }
  if (o.text) {
    QC_ASSIGN(const Model model, o.model.loadOfAnyShape());
    fmt::print("{}", print(model.graph(), {.locations = true}));
    return {};
  }
  OnnxSummary summary;
  std::optional<ModelRun> run;
  if (o.kernels || o.model.path.ends_with(".qir")) {
    QC_ASSIGN(const Model model, o.kernels ? o.model.load() : o.model.loadOfAnyShape());
    summary = summaryOf(model.graph());
    if (o.kernels) {
      QC_TRY(noteLowering(model));
      QC_ASSIGN(std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = o.engine.threads}));
      QC_ASSIGN(const BuildOptions build, o.engine.build());
      QC_ASSIGN(run, modelRun(build, model, madeInputs(model.graph()), std::move(workspace)));
      noteMadeInputs(*run, model.graph());
    }
  } else {
    QC_ASSIGN(summary, summaryOfFile(o.model));
  }
  if (o.json) {
    nlohmann::json j = summaryJson(summary);
    if (run) j["kernels"] = kernelsJson(*run);
    printJson(j);
    return {};
  }
  printSummary(summary);
  if (run) printKernels(*run);
  return {};
}

struct DoctorOptions {
  bool ops = false, passes = false, kernels = false, recipes = false, json = false;
};

nlohmann::json formJson(const OpForm& f) {
  nlohmann::json j = {{"state", f.state}, {"object", f.object()}};
  if (!f.kernels.empty()) j["kernels"] = f.kernels;
  if (!f.why.empty()) j["why"] = f.why;
  return j;
}

// Those tables that are asked for, or all.
void doctorJson(const DoctorOptions& o) {
  const Target host = Target::host();
  const bool all = !o.ops && !o.passes && !o.kernels && !o.recipes;
  nlohmann::json j = {{"target", host.str()}, {"codegen", codegenVersion()}, {"isas", nlohmann::json::array()}};
  for (const IsaInfo& info : isaTable())
    if (host.has(info.isa)) j["isas"].push_back(info.name);
  if (o.ops) {
    for (const OpState& s : opStates(host))
      j["ops"].push_back({{"name", s.op},
                          {"summary", OpRegistry::get().at(s.op).summary},
                          {"float", formJson(s.real)},
                          {"static_int8", formJson(s.staticInt8)},
                          {"dynamic", formJson(s.dynamic)},
                          {"integer", formJson(s.integer)}});
  } else if (all) {  // their states take seconds: on request
    for (const auto& [name, def] : OpRegistry::get().ops()) j["ops"].push_back({{"name", name}, {"summary", def.summary}});
  }
  if (o.passes || all)
    for (const auto& [name, pass] : PassRegistry::get().passes()) j["passes"].push_back({{"name", name}, {"summary", pass.summary}});
  if (o.kernels || all)
    for (const KernelDef& k : kernelTable()) j["kernels"].push_back({{"name", k.id}, {"here", host.has(k.isas)}});
  if (o.recipes)
    for (const Recipe& r : recipes())
      j["recipes"].push_back(
          {{"name", r.name}, {"choices", r.choices}, {"default", r.byDefault}, {"off", r.off}, {"for", r.trouble}, {"help", r.help}});
  printJson(j);
}

void printOps(const Target& target) {
  Table table({"op", "float", "static int8", "dynamic", "integer", "summary"});
  for (const OpState& s : opStates(target))
    table.add({s.op, s.real.state, s.staticInt8.state, s.dynamic.state, s.integer.state, OpRegistry::get().at(s.op).summary});
  fmt::print(
      "{}kernel, view: may be part of an object.  evaluation: runs by the op's reference.  float: stays float.  none: no such form\n",
      table.str());
}

Status doctor(const DoctorOptions& o) {
  if (o.json) {
    doctorJson(o);
    return {};
  }
  const Target host = Target::host();
  fmt::print("target   {}\ncodegen  {}\n", host.str(), codegenVersion());
  fmt::print("ops      {}\npasses   {}\nkernels  {}\n", OpRegistry::get().ops().size(), PassRegistry::get().passes().size(),
             kernelTable().size());
  if (o.ops) printOps(host);
  if (o.passes)
    for (const auto& [name, pass] : PassRegistry::get().passes()) fmt::print("pass    {:<22} {}\n", name, pass.summary);
  if (o.kernels)
    for (const KernelDef& k : kernelTable()) fmt::print("kernel  {:<32} {}\n", k.id, host.has(k.isas) ? "here" : "not on this machine");
  if (o.recipes) fmt::print("{}", recipeTable());
  return {};
}

}  // namespace

void addInspectCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<InspectOptions>();
  CLI::App* verb = app.add_subcommand("inspect", "what a model or a file of ranges (.qcal) holds");
  verb->footer("qcompile inspect m.onnx --kernels");
  options->model.addTo(*verb);
  options->engine.addTo(*verb);
  CLI::Option* text =
      verb->add_flag("--text", options->text, "the imported graph as .qir, dims that --shape does not bind as symbols, and nothing else");
  CLI::Option* dot =
      verb->add_flag("--dot", options->dot, "the graph as text for Graphviz, int8 and float nodes and borders by colour, and nothing else")
          ->excludes(text);
  verb->add_flag("--kernels", options->kernels, "the graph that runs, with the chosen kernels")->excludes(text)->excludes(dot);
  verb->add_flag("--json", options->json, "one JSON object on stdout")->excludes(text)->excludes(dot);
  options->report.addTo(*verb);
  verb->callback([options, verb, &exitCode] { exitCode = report(inspect(*options, *verb)); });
}

void addDoctorCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* verb = app.add_subcommand("doctor", "what this machine and this build can do");
  verb->footer("qcompile doctor --ops --json");
  verb->add_flag("--ops", options->ops,
                 "every op, and what runs for it: float, static int8, dynamic, on plain integers; kernel or evaluation");
  verb->add_flag("--passes", options->passes, "every pass");
  verb->add_flag("--kernels", options->kernels, "every kernel");
  verb->add_flag("--recipes", options->recipes, "what wins accuracy back, with its choices, as a table in Markdown");
  verb->add_flag("--json", options->json, "one JSON object on stdout: ops, passes and kernels unless some are named");
  verb->callback([options, &exitCode] { exitCode = report(doctor(*options)); });
}

}  // namespace qc::tools
