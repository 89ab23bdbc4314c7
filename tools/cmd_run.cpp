// run: one inference on given arrays, through the JIT or the interpreter.
#include <filesystem>

#include "frontend/npy.h"
#include "ir/interp.h"
#include "tools/cmd.h"
#include "tools/common.h"

namespace qc::tools {
namespace {

struct RunOptions {
  ModelOptions model;
  EngineOptions engine;
  std::vector<std::string> inputs;
  std::string outputDir = ".", engineName = "jit";
};

std::string fileNameFor(std::string name) {
  for (char& c : name)
    if (c == '/' || c == '\\' || c == ':') c = '_';
  return name + ".npy";
}

Result<TensorMap> readInputs(const RunOptions& o) {
  TensorMap inputs;
  for (const std::string& text : o.inputs) {
    QC_ASSIGN(const auto assignment, splitAssignment(text, "--input"));
    QC_ASSIGN(inputs[assignment.first], readNpy(assignment.second));
  }
  return inputs;
}

Result<TensorMap> interpretModel(const Model& model, const TensorMap& inputs) {
  PassContext cx;
  QC_ASSIGN(const Graph graph, lowerModel(model, cx));
  std::vector<Tensor> in;
  for (const Value* v : graph.inputs()) {
    const auto it = inputs.find(v->name());
    if (it == inputs.end()) return fail(ErrorCode::kInvalidArgument, "no array was given for this input").on(v->name()).help("add --input NAME=FILE.npy");
    in.push_back(it->second);
  }
  QC_ASSIGN(std::vector<Tensor> out, interpret(graph, in));
  TensorMap outputs;
  for (size_t i = 0; i < out.size(); ++i) outputs.emplace(graph.outputNames()[i], std::move(out[i]));
  return outputs;
}

Status run(const RunOptions& o) {
  if (o.engineName != "jit" && o.engineName != "interpreter")
    return fail(ErrorCode::kInvalidArgument, "unknown engine '{}'", o.engineName).help("jit or interpreter");
  QC_ASSIGN(const Model model, o.model.load());
  QC_ASSIGN(const TensorMap inputs, readInputs(o));
  TensorMap outputs;
  if (o.engineName == "interpreter") {
    QC_ASSIGN(outputs, interpretModel(model, inputs));
  } else {
    QC_ASSIGN(const Executable exe, o.engine.compile(model));
    QC_ASSIGN(Session session, exe.session({.threads = o.engine.threads}));
    QC_ASSIGN(outputs, session.run(inputs));
  }
  std::error_code error;
  std::filesystem::create_directories(o.outputDir, error);
  if (error) return fail(ErrorCode::kIo, "cannot create '{}': {}", o.outputDir, error.message());
  for (const auto& [name, tensor] : outputs) {
    const std::string path = (std::filesystem::path(o.outputDir) / fileNameFor(name)).string();
    QC_TRY(writeNpy(path, tensor));
    fmt::print("{} {} {}\n", name, tensor.type().str(), path);
  }
  return {};
}

}  // namespace

void addRunCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* verb = app.add_subcommand("run", "run once on arrays from files");
  options->model.addTo(*verb);
  options->engine.addTo(*verb);
  verb->add_option("--input", options->inputs, "NAME=FILE.npy, one for each input")->take_all();
  verb->add_option("--output-dir", options->outputDir, "where NAME.npy of each output goes");
  verb->add_option("--engine", options->engineName, "jit or interpreter");
  verb->callback([options, &exitCode] { exitCode = report(run(*options)); });
}

}  // namespace qc::tools
