#include "frontend/onnx/summary.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <unordered_set>

#include "frontend/onnx/importer.h"
#include "frontend/onnx/tensor.h"
#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "ir/op_def.h"
#include "ir/quantized.h"

namespace qc {
namespace {

std::string declaredType(const onnx::ValueInfoProto& info) {
  const auto& type = info.type().tensor_type();
  const auto dtype = dtypeFromOnnx(type.elem_type());
  return fmt::format("{}{}", dtype ? toString(*dtype) : "?", type.has_shape() ? fmt::format("[{}]", declaredShape(info)) : "[...]");
}

void countOps(const OnnxNodes& nodes, int depth, OnnxSummary& s) {
  for (const auto& node : nodes) {
    ++s.ops[isStandard(node) ? node.op_type() : node.domain() + "." + node.op_type()];
    s.isQuantized = s.isQuantized || node.op_type().find("uantizeLinear") != std::string::npos || node.op_type().ends_with("Integer") ||
                    node.op_type().starts_with("QLinear");
    for (const auto& attribute : node.attribute())
      if (attribute.has_g() && depth < kMaxOnnxDepth) countOps(attribute.g().node(), depth + 1, s);
  }
}

Result<OnnxSummary> ofFile(const onnx::ModelProto& model, OnnxSummary s) {
  std::unordered_set<std::string> constants;
  for (const auto& initializer : model.graph().initializer()) {
    QC_ASSIGN(const TensorHeader header, headerFromOnnx(initializer));
    s.constantBytes += header.bytes;
    constants.insert(initializer.name());
  }
  for (const auto& info : model.graph().input())
    if (!constants.contains(info.name())) s.inputs.emplace_back(info.name(), declaredType(info));
  for (const auto& info : model.graph().output()) s.outputs.emplace_back(info.name(), declaredType(info));
  countOps(model.graph().node(), 0, s);
  return s;
}

// Of a graph that was not an ONNX model before.
std::vector<FreeDim> freeDimsOf(const Graph& graph) {
  std::vector<FreeDim> all;
  for (const Value* input : graph.inputs())
    for (size_t d = 0; d < input->type().shape.size(); ++d)
      for (const std::string& symbol : input->type().shape[d].expr().symbols()) {
        auto it = std::find_if(all.begin(), all.end(), [&](const FreeDim& f) { return f.symbol == symbol; });
        if (it == all.end()) it = all.insert(it, {symbol, {}, symbol + "=N"});
        it->places.push_back(fmt::format("dim {} of '{}'", d, input->name()));
        it->isBatch = it->isBatch && d == 0;
      }
  return all;
}

void addDecided(const Node& node, OnnxSummary& s) {
  const std::vector<Value*> operands = node.operands();
  const std::vector<DimExpr> bounds = node.def().decides->bounds(InferContext{node.op(), operands, node.attrs()});
  const std::vector<DimExpr> sizes = node.attrs().dims("sizes");
  for (size_t i = 0; i < sizes.size(); ++i)
    if (!sizes[i].constant())
      s.decided.push_back(
          {sizes[i].str(), i < bounds.size() && !bounds[i].isUnknown() ? bounds[i].str() : "", std::string(node.op()), node.location()});
}

// By operands "w", of integers or behind a dequantize.
std::map<std::string, int> weightTypes(const Graph& graph) {
  std::map<std::string, int> types;
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->def().operandIndex("w") < 0 || !n->operand("w")) continue;
    const Value* w = n->operand("w");
    if (w->producer() && w->producer()->is("dequantize")) w = w->producer()->operand(0);
    if (w->type().isQuantized()) ++types[std::string(toString(w->type().dtype))];
  }
  return types;
}

}  // namespace

Result<std::map<std::string, Shape>> declaredShapes(const std::string& path, const ImportOptions& options) {
  return withoutExceptions([&]() -> Result<std::map<std::string, Shape>> {
    QC_ASSIGN(const OnnxFile file, OnnxFile::read(path));
    return bindShapes(file.model.graph(), {{}, options.values, true});
  });
}

OnnxSummary summaryOf(const Graph& graph, const std::unordered_set<std::string>& weights, OnnxSummary s) {
  std::unordered_set<const Value*> constant;
  for (const Value* v : graph.inputs()) {
    if (weights.contains(v->name())) {
      constant.insert(v);
      s.constantBytes += v->type().byteSize();
    } else {
      s.inputs.emplace_back(v->name(), v->type().str());
    }
  }
  for (const auto& [name, tensor] : graph.constants().entries()) s.constantBytes += tensor.byteSize();
  for (const Node* n = graph.front(); n; n = n->next()) {
    const std::vector<Value*> operands = n->operands();
    const bool folds = !weights.empty() && n->def().has(kPure) && n->def().eval && !n->is("dequantize") &&
                       std::all_of(operands.begin(), operands.end(), [&](const Value* v) { return !v || constant.contains(v); });
    for (int i = 0; i < n->numResults() && (folds || n->is("const")); ++i) constant.insert(n->result(i));
    if (!folds && !n->is("const")) ++s.ops[std::string(n->op())];
    if (decidesSizes(*n)) addDecided(*n, s);
  }
  for (size_t i = 0; i < graph.outputs().size(); ++i) s.outputs.emplace_back(graph.outputNames()[i], graph.outputs()[i]->type().str());
  s.isQuantized = isQuantized(graph);
  s.weights = weightTypes(graph);
  if (s.free.empty()) s.free = freeDimsOf(graph);
  s.isBound = std::all_of(s.free.begin(), s.free.end(), [](const FreeDim& d) { return d.isBatch; });
  return s;
}

Result<OnnxSummary> summarizeOnnxFile(const std::string& path, const ImportOptions& options) {
  QC_ASSIGN(const OnnxFile file, OnnxFile::read(path));
  OnnxSummary summary;
  QC_ASSIGN(summary.free, freeDims(file.model.graph(), options));
  const bool isBound = std::all_of(summary.free.begin(), summary.free.end(), [](const FreeDim& d) { return d.isBatch; });
  ImportOptions free = options;
  free.freeDims = true;
  OnnxImporter keeping(file.model, file.folder, free, OnnxImporter::Weights::headers);
  auto kept = keeping.run();
  if (kept) return summaryOf(*kept, keeping.unread(), std::move(summary));
  if (!isBound) {
    summary.isBound = false;
    const Error& e = kept.error();
    summary.asInFile = e.node().empty() ? e.message() : fmt::format("node '{}', {}", e.node(), e.message());
    return ofFile(file.model, std::move(summary));
  }
  OnnxImporter headers(file.model, file.folder, options, OnnxImporter::Weights::headers);
  if (auto graph = headers.run()) return summaryOf(*graph, headers.unread(), std::move(summary));
  // Some op takes a weight as part of what it is, or there is something wrong with the model: the import with all weights knows.
  QC_ASSIGN(const Graph graph, OnnxImporter::import(file.model, file.folder, options));
  return summaryOf(graph, {}, std::move(summary));
}

}  // namespace qc
