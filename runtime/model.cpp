#include "runtime/model.h"

#include <algorithm>
#include <filesystem>

#include "frontend/onnx_export.h"
#include "frontend/onnx_import.h"
#include "ir/text.h"
#include "passes/group_params.h"
#include "passes/pass_manager.h"
#include "runtime/calibrate.h"
#include "runtime/files.h"

namespace qc {
namespace {

bool endsWith(const std::string& text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.compare(text.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// The float graph after simplification, annotated by the rules.
Result<std::pair<Graph, CoverageReport>> annotated(const Model& model, const QConfigMapping& rules, PassContext& cx) {
  if (model.isQuantized())
    return fail(ErrorCode::kInvalidArgument, "'{}' is quantized already", model.name()).help("start from the float model");
  Graph graph = model.graph().clone();
  QC_TRY(runPipeline("simplify", graph, cx));
  QC_ASSIGN(CoverageReport coverage, annotateGraph(graph, rules));
  return std::pair(std::move(graph), std::move(coverage));
}

}  // namespace

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

bool Model::isQuantized() const {
  for (const Node* n = graph_.front(); n; n = n->next())
    if (n->is("quantize") || n->is("dequantize") || n->op().starts_with("q.")) return true;
  return false;
}

Result<Model> load(const std::string& path, const LoadOptions& options) {
  const std::string name = std::filesystem::path(path).stem().string();
  if (endsWith(path, ".qir")) {
    QC_ASSIGN(const std::string text, readFile(path));
    QC_ASSIGN(Graph graph, parseGraph(text, path));
    return Model(std::move(graph), name);
  }
  ImportOptions import;
  import.shapes = options.shapes;
  QC_ASSIGN(Graph graph, importOnnxFile(path, import));
  return Model(std::move(graph), name);
}

Status save(const Model& model, const std::string& path) {
  if (endsWith(path, ".qir")) return writeFileAtomically(path, print(model.graph(), {.locations = true, .payloads = true}));
  QC_ASSIGN(const std::string bytes, exportOnnx(model.graph()));
  return writeFileAtomically(path, bytes);
}

Result<Ranges> calibrate(const Model& model, const QConfigMapping& rules, const Dataset& samples, const CalibrateOptions& options) {
  PassContext cx;
  QC_ASSIGN(auto prepared, annotated(model, rules, cx));
  QC_TRY(runPipeline("prepare", prepared.first, cx));
  return observeSamples(std::move(prepared.first), samples, options);
}

Result<QuantizedModel> quantize(const Model& model, const QConfigMapping& rules, const Ranges& ranges) {
  PassContext cx;
  QC_ASSIGN(auto prepared, annotated(model, rules, cx));
  QC_TRY(runPipeline("prepare", prepared.first, cx));
  QC_ASSIGN(GroupParams params, ranges.params());
  cx.provide(std::move(params));
  QC_TRY(runPipeline("convert", prepared.first, cx));
  return QuantizedModel{Model(std::move(prepared.first), model.name()), std::move(prepared.second), std::move(cx.remarks)};
}

Result<Graph> lowerModel(const Model& model, PassContext& cx) {
  Graph graph = model.graph().clone();
  QC_TRY(runPipeline("lower", graph, cx));
  return graph;
}

Result<Executable> compile(const Model& model, const BuildOptions& options) {
  PassContext cx;
  QC_ASSIGN(Graph graph, lowerModel(model, cx));
  return Executable::fromGraph(std::move(graph), options.target, options.compile);
}

}  // namespace qc
