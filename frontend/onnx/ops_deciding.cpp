// ONNX ops whose results have sizes that their data decides, read and written.
#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"
#include "ir/dim_expr_terms.h"

namespace qc {
namespace {

// What decides the same: one size has one symbol.  Null: nothing does.
const Node* decidedBefore(std::string_view op, const std::vector<Value*>& operands, const AttrDict& attrs) {
  for (const Node* user : operands.front()->users()) {
    if (!user->is(op) || user->operands() != operands) continue;
    AttrDict own = user->attrs();
    own.erase("sizes");
    own.erase("kernel");
    if (own == attrs) return user;
  }
  return nullptr;
}

// x (and more operands), integer attributes, one size.
Status readAs(OnnxNode& n, const char* op, std::vector<Value*> operands, AttrDict attrs) {
  if (const Node* same = decidedBefore(op, operands, attrs)) {
    std::vector<Value*> results;
    for (int i = 0; i < same->numResults(); ++i) results.push_back(same->result(i));
    return n.setOutputs(std::move(results));
  }
  attrs.set("sizes", n.freshSizes(1));
  QC_ASSIGN(std::vector<Value*> results, n.createAll(op, std::move(operands), std::move(attrs)));
  return n.setOutputs(std::move(results));
}

Status readNonZero(OnnxNode& n) { return readAs(n, "nonzero", {n.input(0)}, {}); }

// Without an axis: of all elements.
Result<int64_t> axisOrNone(OnnxNode& n) {
  if (!n.has("axis")) return -1;
  QC_ASSIGN(const int64_t raw, n.integer("axis"));
  return n.axis(raw, n.type(0).rank());
}

Status readCompress(OnnxNode& n) {
  QC_ASSIGN(const int64_t axis, axisOrNone(n));
  Value* condition = n.input(1);
  if (condition->type().rank() != 1) {  // some exporters write it in the shape of the data
    QC_ASSIGN(condition, n.reshapeToDims(condition, {product(n.dims(1))}));
  }
  return readAs(n, "compress", {n.input(0), condition}, {{"axis", axis}});
}

Status readUnique(OnnxNode& n) {
  QC_ASSIGN(const int64_t axis, axisOrNone(n));
  QC_ASSIGN(const int64_t sorted, n.integer("sorted", 1));
  return readAs(n, "unique", {n.input(0)}, {{"axis", axis}, {"sorted", sorted}});
}

Status readSuppression(OnnxNode& n) {
  QC_ASSIGN(const int64_t center, n.integer("center_point_box", 0));
  if (center != 0 && center != 1) return n.error(ErrorCode::kInvalidModel, "center_point_box {}", center);
  std::vector<Value*> operands;
  for (int i = 0; i < 5; ++i) {
    Value* v = n.input(i);
    if (v && v->type().isStatic() && v->type().numElements() == 0) v = nullptr;
    operands.push_back(v);
  }
  while (!operands.back()) operands.pop_back();
  return readAs(n, "non_max_suppression", std::move(operands), {{"center_point_box", center}});
}

Status writeAs(OnnxExporter& e, const Node& n, const char* op) {
  auto& proto = e.add(n, op, e.operandNames(n), e.resultNames(n));
  for (const auto& [name, attr] : n.attrs())
    if (name != "sizes" && name != "kernel" && !(name == "axis" && n.integer("axis") < 0)) setAttr(proto, name.c_str(), attr);
  return {};
}

// The numbers stand for the sizes from here on.
Status writeSizeOf(OnnxExporter& e, const Node& n) {
  const TensorType& type = n.operand(0)->type();
  std::string all = e.name(n.operand(0));
  const std::string base = e.name(n.result());
  const auto step = [&](const char* op, std::vector<std::string> inputs) -> onnx::NodeProto& {
    const std::string result = e.fresh(base + "_size");
    auto& proto = e.add(n, op, std::move(inputs), {result});
    all = result;
    return proto;
  };
  if (type.dtype != DType::s64) setInt(step("Cast", {all}), "to", 7);
  if (type.rank() != 1) step("Reshape", {all, e.ints({-1})});
  if (n.operand("like")) {  // as it becomes that
    auto& reshaped = step("Reshape", {e.name(n.operand("like")), all});
    if (!n.integer("copies")) {
      e.needOpset(14);
      setInt(reshaped, "allowzero", 1);
    }
    step("Shape", {all});
  }
  const std::string vector = all;
  const std::vector<DimExpr> sizes = n.attrs().dims("sizes");
  const size_t parts = n.integer("signed") ? 2 : 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto symbol = symbolName(sizes[i]);
    if (!symbol) continue;
    all = vector;
    if (sizes.size() > parts) step("Gather", {vector, e.ints({static_cast<int64_t>(i / parts)})});
    if (parts == 2 && i % 2 == 1) step("Neg", {all});
    if (parts == 2) step("Max", {all, e.ints({0})});
    e.sizeIs(*symbol, all);
  }
  return {};
}

OnnxExportRow row(const char* op) {
  return [op](OnnxExporter& e, const Node& n) { return writeAs(e, n, op); };
}

}  // namespace

std::span<const OnnxOp> onnxDecidingOps() {
  static const OnnxOp kOps[] = {
      {.name = "NonZero", .minInputs = 1, .maxInputs = 1, .convert = readNonZero, .freeDims = true},
      {.name = "Compress", .minInputs = 2, .maxInputs = 2, .convert = readCompress, .freeDims = true},
      {.name = "Unique", .minInputs = 1, .maxInputs = 1, .convert = readUnique, .freeDims = true},
      {.name = "NonMaxSuppression", .minInputs = 2, .maxInputs = 5, .convert = readSuppression, .freeDims = true},
  };
  return kOps;
}

void addDecidingExportRows(OnnxExportRows& rows) {
  rows.insert({{"nonzero", row("NonZero")},
               {"compress", row("Compress")},
               {"unique", row("Unique")},
               {"non_max_suppression", row("NonMaxSuppression")},
               {"choose",  // of one tensor and the same: export_branches.cpp writes the others
                [](OnnxExporter& file, const Node& n) {
                  file.add(n, "Identity", {file.name(n.operand(1))}, file.resultNames(n));
                  return Status();
                }},
               {"loop", [](OnnxExporter& file, const Node& n) { return file.addLoop(n); }},
               {"size_of", writeSizeOf}});
}

}  // namespace qc
