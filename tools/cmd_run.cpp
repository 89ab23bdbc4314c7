// run: inference on given arrays, or on every sample of a source, through the JIT or the interpreter.
#include <fmt/ranges.h>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>

#include "frontend/data/npy.h"
#include "ir/interp.h"
#include "ir/memory_limit.h"
#include "ir/op_def.h"
#include "ir/quantized.h"
#include "ir/visible.h"
#include "passes/pass_manager.h"
#include "quantizer/quantizer.h"
#include "runtime/specialize.h"
#include "tools/cmd.h"
#include "tools/common.h"
#include "tools/input_report.h"
#include "tools/output_arrays.h"
#include "tools/sample_batches.h"

namespace qc::tools {
namespace {

struct RunOptions {
  ModelOptions model;
  EngineOptions engine;
  DataOptions data;
  std::vector<std::string> inputs;
  std::string outputDir = ".", engineName = "jit", numerics = "int8";
  int64_t batch = 1;
};

Result<TensorMap> readInputs(const RunOptions& o) {
  TensorMap inputs;
  QC_ASSIGN(const std::vector<Assignment> given, splitAssignments(o.inputs, "--input"));
  for (const auto& [name, file] : given) {
    QC_ASSIGN(inputs[name], readNpy(file));
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

Result<Engine> makeEngine(const RunOptions& o, Model model) {
  if (o.engineName == "interpreter") {
    struct Lowered {
      explicit Lowered(Model any) : model(std::move(any)) {}
      ModelOfAnyShape model;
      Shapes shapes;
      std::optional<Graph> graph;  // at them
    };
    const auto last = std::make_shared<Lowered>(std::move(model));
    return Engine([last](const TensorMap& inputs) -> Result<TensorMap> {
      if (Shapes shapes = shapesOf(inputs); !last->graph || shapes != last->shapes) {
        QC_ASSIGN(const Model bound, last->model.at(shapes));
        PassContext cx;
        QC_ASSIGN(last->graph, lowerModel(bound, cx));
        last->shapes = std::move(shapes);
      }
      return interpretGraph(*last->graph, inputs);
    });
  }
  QC_ASSIGN(const auto session, o.engine.sessionOfAnyShape(std::move(model)));
  return Engine([session](const TensorMap& inputs) { return session->run(inputs); });
}

// A quantized model with its roundings, and float arithmetic in place of that of integers.
Result<Model> inFloat(const Model& model) {
  Graph graph = model.graph().clone();
  PassContext cx;
  QC_TRY(runPipeline("fold-constants{narrow_weights=1},recognize-integer", graph, cx));
  if (!isQuantized(graph))
    return fail(ErrorCode::kInvalidArgument, "--numerics float has no effect: '{}' is float", model.name()).help("leave it out");
  QC_TRY(runPipeline("float-reference", graph, cx));
  std::set<std::string> integers;
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->op().starts_with("q.")) integers.insert(displayName(*n));
  for (const auto& name : integers) fmt::print(stderr, "note: '{}' keeps its integers: the op has no other form\n", name);
  return Model(std::move(graph), model.name());
}

// Every input of the model, and no other.
Status checkArrays(const Model& model, const TensorMap& inputs) {
  std::vector<std::string> names;
  for (const Port& p : model.inputs()) names.push_back(p.name);
  for (const auto& [name, array] : inputs)
    if (std::find(names.begin(), names.end(), name) == names.end())
      return fail(ErrorCode::kInvalidArgument, "--input {}: the model has no such input", name)
          .on(name)
          .help(names.empty() ? "it has none" : fmt::format("it has '{}'", fmt::join(nearestNames(name, names, 8), "', '")));
  for (const std::string& name : names)
    if (!inputs.contains(name))
      return fail(ErrorCode::kInvalidArgument, "no array was given for this input").on(name).help("add --input NAME=FILE.npy");
  for (const Port& p : model.inputs())
    if (const Tensor& array = inputs.at(p.name); array.dtype() != p.type.dtype)
      return fail(ErrorCode::kInvalidArgument, "the array is {}, and the input takes {}", array.type().str(), p.type.str())
          .on(p.name)
          .help(fmt::format("convert the array's dtype to {}, in numpy with x.astype(..)", toString(p.type.dtype)));
  return {};
}

// The outputs of every sample by name.
Result<std::map<std::string, std::vector<Tensor>>> runSamples(SampleBatches& batches, const Engine& engine, const Dataset& data) {
  if (data.size() == 0) return fail(ErrorCode::kInvalidData, "there are no samples").help("check the path and the limit");
  std::map<std::string, std::vector<Tensor>> all;
  int64_t bytes = 0;
  Progress progress("run");
  const auto take = [&](int64_t i, const TensorMap& outputs) -> Status {
    for (const auto& [name, tensor] : outputs) {
      bytes += tensor.byteSize();
      QC_TRY(checkMemory(bytes, "the outputs of all samples"));
      all[name].push_back(tensor);
    }
    progress.update(i + 1, data.size());
    return {};
  };
  QC_TRY(batches.run(data, data.size(), engine, take));
  return all;
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
  QC_TRY(refuseWithoutEffect(verb, {{"--batch", !o.data.sources.empty(), "without -d", "stack the samples in the arrays of --input"}}));
  if (!o.inputs.empty() && !o.data.sources.empty())
    return fail(ErrorCode::kInvalidArgument, "both --input and -d").help("arrays for one run, or a source of samples");
  QC_ASSIGN(const TensorMap inputs, readInputs(o));
  QC_ASSIGN(Model model, o.data.sources.empty() ? o.model.loadOfAnyShape(shapesOf(inputs)) : o.model.loadOfAnyShape(o.data));
  if (o.numerics == "float") {
    QC_ASSIGN(model, inFloat(model));
  }
  QC_ASSIGN(const std::vector<std::string> paths, outputPaths(o, model));
  Written written;
  if (o.data.sources.empty()) {
    QC_TRY(checkArrays(model, inputs));
    QC_ASSIGN(const Engine engine, makeEngine(o, std::move(model)));
    QC_ASSIGN(TensorMap outputs, engine(inputs));
    for (size_t i = 0; auto& [name, tensor] : outputs) written.emplace_back(name, paths[i++], std::move(tensor));
  } else {
    QC_ASSIGN(const Dataset data, o.data.open(model));
    QC_ASSIGN(const InputReport fed, checkInputs(model, data));
    warnOfInputs(fed);
    QC_ASSIGN(SampleBatches batches, SampleBatches::of(model, o.batch));
    QC_ASSIGN(const Engine engine, makeEngine(o, std::move(model)));
    QC_ASSIGN(auto outputs, runSamples(batches, engine, data));
    QC_ASSIGN(written, stackedOrApart(std::move(outputs), paths));
  }
  OutputFiles files;
  for (const auto& [name, path, tensor] : written) QC_TRY(addNpy(files, path, tensor));
  QC_TRY(files.publish());
  for (const auto& [name, path, tensor] : written) fmt::print("{} {} {}\n", name, tensor.type().str(), path);
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
  verb->add_option("--output-dir", options->outputDir,
                   "where NAME.npy of each output goes; with -d all samples, stacked, or NAME.000.npy, .. where their shapes differ")
      ->type_name("DIR");
  verb->add_option("--batch", options->batch,
                   "with -d: so many samples at once, each computed as if it were alone; of a model that fixes 1 as well")
      ->check(CLI::Range(1, 1 << 20));
  verb->add_option("--engine", options->engineName, "machine code, or the reference")->check(CLI::IsMember({"jit", "interpreter"}));
  verb->add_option("--numerics", options->numerics, "float: a quantized model's roundings, and float arithmetic between them")
      ->check(CLI::IsMember({"int8", "float"}));
  verb->callback([options, verb, &exitCode] { exitCode = report(run(*options, *verb)); });
}

}  // namespace qc::tools
