#include "frontend/onnx/summary.h"

#include <onnx/onnx_pb.h>

#include <algorithm>
#include <unordered_set>

#include "frontend/onnx/importer.h"
#include "frontend/onnx/tensor.h"
#include "ir/decided_sizes.h"
#include "ir/guarded.h"
#include "ir/loops.h"
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

// Initializers and Constant nodes, those of subgraphs and functions among them.  A tensor of no known type counts as nothing.
int64_t constantBytes(const onnx::TensorProto& tensor) {
  const auto header = headerFromOnnx(tensor);
  return header ? header->bytes : 0;
}
int64_t constantBytes(const onnx::GraphProto& graph, int depth);
int64_t constantBytes(const OnnxNodes& nodes, int depth) {
  int64_t bytes = 0;
  for (const auto& node : nodes)
    for (const auto& a : node.attribute()) {
      if (node.op_type() == "Constant") {
        if (a.has_t()) bytes += constantBytes(a.t());
        bytes += 4 * (int64_t{a.has_f()} + a.floats_size()) + 8 * (int64_t{a.has_i()} + a.ints_size());
      }
      if (a.has_g() && depth < kMaxOnnxDepth) bytes += constantBytes(a.g(), depth + 1);
    }
  return bytes;
}
int64_t constantBytes(const onnx::GraphProto& graph, int depth) {
  int64_t bytes = constantBytes(graph.node(), depth);
  for (const auto& initializer : graph.initializer()) bytes += constantBytes(initializer);
  for (const auto& sparse : graph.sparse_initializer()) bytes += constantBytes(sparse.values()) + constantBytes(sparse.indices());
  return bytes;
}
int64_t constantBytes(const onnx::ModelProto& model) {
  int64_t bytes = constantBytes(model.graph(), 0);
  for (const auto& function : model.functions()) bytes += constantBytes(function.node(), 0);
  return bytes;
}

Result<OnnxSummary> ofFile(const onnx::ModelProto& model, OnnxSummary s) {
  std::unordered_set<std::string> constants;
  for (const auto& initializer : model.graph().initializer()) {
    QC_TRY(headerFromOnnx(initializer));
    constants.insert(initializer.name());
  }
  for (const auto& info : model.graph().input())
    if (!constants.contains(info.name())) s.inputs.emplace_back(info.name(), declaredType(info));
  for (const auto& info : model.graph().output()) s.outputs.emplace_back(info.name(), declaredType(info));
  countOps(model.graph().node(), 0, s);
  s.constantBytes = constantBytes(model);
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

// Of the integers that a layer in s32 multiplies by what it reads; nothing: they are no constants, or the layer is a float one.
std::optional<DType> integerWeights(const Node& layer, const std::unordered_set<const Value*>& constant) {
  if (!integersBehind(layer, 0)) return std::nullopt;
  const Value* w = layer.operand(1);
  if (const Value* integers = integersBehind(layer, 1))
    return constant.contains(integers) ? std::optional(integers->type().dtype) : std::nullopt;
  const Tensor* t = w ? w->constant() : nullptr;  // they were widened when the model was read
  if (!t || t->dtype() != DType::s32) return std::nullopt;
  const auto values = t->as<int32_t>();
  if (std::ranges::any_of(values, [](int32_t v) { return v < -128 || v > 255; })) return std::nullopt;
  return std::ranges::any_of(values, [](int32_t v) { return v < 0; }) ? DType::s8 : DType::u8;
}

// By operands "w", of integers or behind a dequantize; and of layers that are spelled out in ops of integers.
std::optional<DType> weightsOf(const Node& n, const std::unordered_set<const Value*>& constant) {
  if (const auto type = n.numOperands() > 1 ? integerWeights(n, constant) : std::nullopt) return type;
  if (n.def().operandIndex("w") < 0 || !n.operand("w")) return std::nullopt;
  const Value* w = n.operand("w");
  if (w->producer() && w->producer()->is("dequantize")) w = w->producer()->operand(0);
  return w->type().isQuantized() ? std::optional(w->type().dtype) : std::nullopt;
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
  const auto count = [&](const auto& self, const Graph& g) -> void {
    for (const auto& [name, tensor] : g.constants().entries()) s.constantBytes += tensor.byteSize();
    for (const Node* n = g.front(); n; n = n->next()) {
      const std::vector<Value*> operands = n->operands();
      const bool folds = !weights.empty() && n->def().has(kPure) && n->def().eval && !n->is("dequantize") &&
                         std::all_of(operands.begin(), operands.end(), [&](const Value* v) { return !v || constant.contains(v); });
      for (int i = 0; i < n->numResults() && (folds || n->is("const")); ++i) constant.insert(n->result(i));
      if (!folds && !n->is("const")) ++s.ops[std::string(n->op())];
      if (&g == &graph && decidesSizes(*n)) addDecided(*n, s);  // symbols of a body are its own
      if (const auto type = weightsOf(*n, constant)) ++s.weights[std::string(toString(*type))];
      if (const Graph* body = bodyOf(*n)) self(self, *body);
    }
  };
  for (const Value* v : graph.inputs()) {
    if (weights.contains(v->name())) {
      constant.insert(v);
      s.constantBytes += v->type().byteSize();
    } else {
      s.inputs.emplace_back(v->name(), v->type().str());
    }
  }
  count(count, graph);
  for (size_t i = 0; i < graph.outputs().size(); ++i) s.outputs.emplace_back(graph.outputNames()[i], graph.outputs()[i]->type().str());
  s.isQuantized = isQuantized(graph);
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
  // What the file holds, whatever became of it: weights that are widened when it is read, and sizes that are folded.
  const auto withBytes = [&](OnnxSummary s) {
    s.constantBytes = constantBytes(file.model);
    return s;
  };
  if (kept) return withBytes(summaryOf(*kept, keeping.unread(), std::move(summary)));
  if (!isBound) {
    summary.isBound = false;
    const Error& e = kept.error();
    summary.asInFile = e.node().empty() ? e.message() : fmt::format("node '{}', {}", e.node(), e.message());
    return ofFile(file.model, std::move(summary));
  }
  OnnxImporter headers(file.model, file.folder, options, OnnxImporter::Weights::headers);
  if (auto graph = headers.run()) return withBytes(summaryOf(*graph, headers.unread(), std::move(summary)));
  // Some op takes a weight as part of what it is, or there is something wrong with the model: the import with all weights knows.
  QC_ASSIGN(const Graph graph, OnnxImporter::import(file.model, file.folder, options));
  return withBytes(summaryOf(graph, {}, std::move(summary)));
}

}  // namespace qc
