// run: inference on given arrays, or on every sample of a source, through the JIT or the interpreter.
#include <fmt/ranges.h>
#include <cstring>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>

#include "frontend/data/npy.h"
#include "ir/interp.h"
#include "ir/memory_limit.h"
#include "ir/visible.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"

namespace qc::tools {
namespace {

struct RunOptions {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  std::vector<std::string> inputs;
  std::string outputDir = ".", engineName = "jit";
};

Result<TensorMap> readInputs(const RunOptions& o) {
  TensorMap inputs;
  for (const std::string& text : o.inputs) {
    QC_ASSIGN(const auto assignment, splitAssignment(text, "--input"));
    QC_ASSIGN(inputs[assignment.first], readNpy(assignment.second));
  }
  return inputs;
}

using Engine = std::function<Result<TensorMap>(const TensorMap&)>;

Result<TensorMap> interpretGraph(const Graph& graph, const TensorMap& inputs) {
  std::vector<Tensor> in;
  for (const Value* v : graph.inputs()) {
    const auto it = inputs.find(v->name());
    if (it == inputs.end())
      return fail(ErrorCode::kInvalidArgument, "no array was given for this input").on(v->name()).help("add --input NAME=FILE.npy");
    in.push_back(it->second);
  }
  QC_ASSIGN(std::vector<Tensor> out, interpret(graph, in));
  TensorMap outputs;
  for (size_t i = 0; i < out.size(); ++i) outputs.emplace(graph.outputNames()[i], std::move(out[i]));
  return outputs;
}

Result<Engine> makeEngine(const RunOptions& o, const Model& model) {
  if (o.engineName == "interpreter") {
    PassContext cx;
    QC_ASSIGN(Graph lowered, lowerModel(model, cx));
    const auto graph = std::make_shared<const Graph>(std::move(lowered));
    return Engine([graph](const TensorMap& inputs) { return interpretGraph(*graph, inputs); });
  }
  QC_ASSIGN(const Executable exe, o.engine.compile(model));
  QC_ASSIGN(Session opened, exe.session({.threads = o.engine.threads}));
  const auto session = std::make_shared<Session>(std::move(opened));
  return Engine([session](const TensorMap& inputs) { return session->run(inputs); });
}

// The outputs of all samples, stacked along a new first axis.
Result<TensorMap> runSamples(const Engine& engine, const Dataset& data) {
  if (data.size() == 0) return fail(ErrorCode::kInvalidData, "there are no samples").help("check the path and the limit");
  TensorMap stacked;
  Progress progress("run");
  for (int64_t i = 0; i < data.size(); ++i) {
    QC_ASSIGN(const TensorMap inputs, data.sample(i));
    QC_ASSIGN(const TensorMap outputs, engine(inputs));
    for (const auto& [name, tensor] : outputs) {
      Tensor& all = stacked[name];
      if (i == 0) {
        std::vector<int64_t> sizes = tensor.sizes();
        sizes.insert(sizes.begin(), data.size());
        QC_TRY(checkMemory(tensor.byteSize() * data.size(), "the outputs of all samples"));
        all = Tensor(tensor.dtype(), std::move(sizes));
      }
      std::memcpy(static_cast<char*>(all.mutableData()) + i * tensor.byteSize(), tensor.data(), usize(tensor.byteSize()));
    }
    progress.update(i + 1, data.size());
  }
  return stacked;
}

// Of the outputs in the order of their names, which is that of a TensorMap.
Result<std::vector<std::string>> outputPaths(const RunOptions& o, const Model& model) {
  std::set<std::string> names;
  for (const Port& port : model.outputs()) names.insert(port.name);
  std::error_code error;
  std::filesystem::create_directories(o.outputDir, error);
  if (error) return fail(ErrorCode::kIo, "cannot create '{}': {}", o.outputDir, error.message());
  std::vector<std::string> paths = fileNames({names.begin(), names.end()}, ".npy");
  for (std::string& path : paths) path = (std::filesystem::path(o.outputDir) / path).string();
  QC_TRY(checkOutputs(paths));
  return paths;
}

Status run(const RunOptions& o, const CLI::App& verb) {
  for (const char* option : {"--target", "--threads", "--no-cache", "--cache-size"})
    QC_TRY(refuseWithoutEffect(verb, {{option, o.engineName == "jit", "with --engine interpreter",
                                       "leave it out: the reference is one thread, without machine code"}}));
  if (!o.inputs.empty() && !o.data.sources.empty())
    return fail(ErrorCode::kInvalidArgument, "both --input and -d").help("arrays for one run, or a source of samples");
  QC_ASSIGN(const TensorMap inputs, readInputs(o));
  ModelOptions shaped = o.model;  // free dims as the arrays have them, unless --shape says otherwise
  for (const auto& [name, tensor] : inputs) {
    const bool given =
        std::any_of(shaped.shapes.begin(), shaped.shapes.end(), [&](const std::string& s) { return s.starts_with(name + "="); });
    if (!given && tensor.rank() > 0) shaped.shapes.push_back(fmt::format("{}={}", name, fmt::join(tensor.sizes(), "x")));
  }
  QC_ASSIGN(const Model model, shaped.load());
  QC_ASSIGN(const std::vector<std::string> paths, outputPaths(o, model));
  QC_ASSIGN(const Engine engine, makeEngine(o, model));
  TensorMap outputs;
  if (o.data.sources.empty()) {
    QC_ASSIGN(outputs, engine(inputs));
  } else {
    QC_ASSIGN(const Dataset data, o.data.open(model));
    QC_ASSIGN(const InputReport fed, checkInputs(model, data));
    warnOfInputs(fed);
    QC_ASSIGN(outputs, runSamples(engine, data));
  }
  OutputFiles files;
  for (size_t i = 0; const auto& [name, tensor] : outputs) QC_TRY(addNpy(files, paths[i++], tensor));
  QC_TRY(files.publish());
  for (size_t i = 0; const auto& [name, tensor] : outputs) fmt::print("{} {} {}\n", name, tensor.type().str(), paths[i++]);
  return {};
}

}  // namespace

void addRunCommand(CLI::App& app, int& exitCode) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* verb = app.add_subcommand("run", "run on arrays from files, or on every sample of a source");
  verb->footer("qcompile run m.onnx --input data=x.npy --output-dir out");
  options->model.addTo(*verb);
  options->engine.addTo(*verb);
  options->data.addTo(*verb, false);
  verb->add_option("--input", options->inputs, "NAME=FILE.npy, one for each input")->type_name("NAME=FILE.npy")->take_all();
  verb->add_option("--output-dir", options->outputDir, "where NAME.npy of each output goes; with -d all samples, stacked")
      ->type_name("DIR");
  verb->add_option("--engine", options->engineName, "machine code, or the reference")->check(CLI::IsMember({"jit", "interpreter"}));
  verb->callback([options, verb, &exitCode] { exitCode = report(run(*options, *verb)); });
}

}  // namespace qc::tools
