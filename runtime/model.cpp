#include "runtime/model.h"

#include <algorithm>
#include <filesystem>

#include "codegen/plan/select_kernels.h"
#include "frontend/onnx/export.h"
#include "frontend/onnx/import.h"
#include "frontend/onnx/summary.h"
#include "ir/arithmetic.h"
#include "ir/decided_sizes.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "ir/loops.h"
#include "ir/quantized.h"
#include "ir/text.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "runtime/any_batch.h"

namespace qc {
namespace {

bool endsWith(const std::string& text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// A graph in text form as the options say; one without free dims as it is.
Result<Graph> boundText(Graph graph, const LoadOptions& options) {
  if (!options.values.empty())
    return fail(ErrorCode::kUnsupported, "LoadOptions::values is for ONNX models, and this is a graph in text form")
        .on(options.values.begin()->first)
        .help("write the constant into the graph");
  if (options.shapes.empty() && (options.freeDims || !hasFreeDims(graph))) return graph;
  QC_ASSIGN(const Shapes whole, wholeShapes(graph, options.shapes));
  return boundGraph(graph, whole);
}

bool isText(const std::string& path) { return endsWith(path, ".qir"); }

Result<Model> loadAsMade(const std::string& path, const LoadOptions& options) {
  const std::string name = std::filesystem::path(path).stem().string();
  if (isText(path)) {
    QC_ASSIGN(const std::string text, readFile(path));
    QC_ASSIGN(Graph graph, parseGraph(text, path));
    QC_ASSIGN(Graph bound, boundText(std::move(graph), options));
    return Model(std::move(bound), name);
  }
  ImportOptions import;
  import.shapes = options.shapes;
  import.values = options.values;
  import.freeDims = options.freeDims;
  QC_ASSIGN(Graph graph, importOnnxFile(path, import));
  return Model(std::move(graph), name);
}

Result<std::map<std::string, Shape>> inputsOfFile(const std::string& path, const LoadOptions& options) {
  if (!isText(path)) return declaredShapes(path, {{}, options.values, true});
  QC_ASSIGN(const std::string text, readFile(path));
  QC_ASSIGN(const Graph graph, parseGraph(text, path));
  return freeInputShapes(graph);
}

// Where the sizes that were given contradict each other at a node: which dims of which inputs they are.
std::optional<Result<Model>> contradicted(const std::string& path, const LoadOptions& options) {
  LoadOptions free = options;
  free.shapes = {}, free.freeDims = true;
  const auto model = loadAsMade(path, free);
  const auto whole = model ? wholeShapes(model->graph(), options.shapes) : Result<Shapes>(Shapes());
  if (!model || !whole) return std::nullopt;
  const auto bound = boundGraph(model->graph(), *whole);
  return bound ? std::nullopt : std::optional<Result<Model>>(tl::make_unexpected(bound.error()));
}

// Of free dims a batch alone.
Result<Model> atSamples(const Model& free, int64_t samples) {
  Shapes whole;
  for (const Value* input : free.graph().inputs())
    for (const Dim& dim : input->type().shape) {
      SymbolSizes size;
      for (const std::string& symbol : dim.expr().symbols()) size[symbol] = samples;
      whole[input->name()].push_back(dim.expr().evaluate(size).value_or(0));
    }
  for (const Value* input : free.graph().inputs()) whole.try_emplace(input->name());
  QC_ASSIGN(Graph bound, boundGraph(free.graph(), whole));
  return Model(std::move(bound), free.name());
}

}  // namespace

Shapes shapesOf(const std::map<std::string, Tensor>& sample) {
  Shapes shapes;
  for (const auto& [name, tensor] : sample) shapes[name] = tensor.sizes();
  return shapes;
}

Shapes inputShapes(const Graph& graph) {
  Shapes shapes;
  for (const Value* input : graph.inputs()) shapes[input->name()] = input->type().sizes();
  return shapes;
}

std::vector<Port> Model::inputs() const {
  std::vector<Port> ports;
  for (const Value* v : graph_.inputs()) ports.push_back({v->name(), v->type()});
  return ports;
}

std::vector<Port> Model::outputs() const {
  std::vector<Port> ports;
  for (size_t i = 0; i < graph_.outputs().size(); ++i) ports.push_back({graph_.outputNames()[i], graph_.outputs()[i]->type()});
  return ports;
}

bool Model::isQuantized() const { return qc::isQuantized(graph_); }

Result<Model> load(const std::string& path, const LoadOptions& options) {
  return withoutExceptions([&]() -> Result<Model> {
    const DefinedArithmetic defined;
    auto model = loadAsMade(path, options);
    if (model || options.shapes.empty()) return model;
    // Perhaps the shapes are those of more samples than the file is made for.
    const auto inputs = inputsOfFile(path, options);
    if (!inputs) return model;
    QC_ASSIGN(const std::optional<BatchAsked> asked, batchAsked(*inputs, options.shapes));
    if (!asked) return contradicted(path, options).value_or(std::move(model));
    LoadOptions ofOne = options;
    ofOne.shapes = asked->ofOne;
    QC_ASSIGN(Model one, loadAsMade(path, ofOne));
    if (asked->samples == 1) return one;
    QC_ASSIGN(Model free, withFreeBatch(one, asked->stacked));
    if (options.freeDims) return free;
    return atSamples(free, asked->samples);
  });
}

// ONNX has integer forms of layers that quantize at run time, and no other; everything else stays in quantize / dequantize form.
static Status integersOfOnnx(Graph& graph) {
  PassContext cx;
  QC_TRY(runPipeline("lower-dynamic{groups=0}", graph, cx));
  return editBodies(graph, integersOfOnnx);
}

Status save(const Model& model, const std::string& path) {
  return withoutExceptions([&]() -> Status {
    const DefinedArithmetic defined;
    if (endsWith(path, ".qir")) return writeFileAtomically(path, print(model.graph(), {.locations = true, .payloads = true}));
    Graph graph = model.graph().clone();
    QC_TRY(integersOfOnnx(graph));
    QC_ASSIGN(const std::string bytes, exportOnnx(graph));
    return writeFileAtomically(path, bytes);
  });
}

Result<Graph> lowerModel(const Model& model, PassContext& cx) {
  const DefinedArithmetic defined;
  Graph graph = model.graph().clone();
  QC_TRY(runPipeline("lower", graph, cx));
  return graph;
}

Result<Executable> compile(const Model& model, const BuildOptions& options) {
  return withoutExceptions([&]() -> Result<Executable> {
    const DefinedArithmetic defined;
    registerCodegenPasses();  // whose names are steps as well
    QC_TRY(checkInsertions(options.compile.insertions, kCompileSteps));
    PassContext cx;
    cx.provide(options.compile.insertions);
    QC_ASSIGN(Graph graph, lowerModel(model, cx));
    return Executable::fromGraph(std::move(graph), options.target, options.compile);
  });
}

}  // namespace qc
