// Lookups in tables of integers.  ONNX's usual form, a DequantizeLinear in front of the Gather, is computed as it is written by ONNX
// Runtime: the whole table in every run, which takes longer than the rest of a small model.  So rows are looked up first, with their scales
// and zero points, and made real afterwards, to the same bits: a function that the file carries along, which is read back as the usual
// form.
//   inputs   table [rows, depth] of 8-bit integers, scale [rows], zero_point [rows], indices
//   output   [.., depth] of f32
// Tests: tests/unit/onnx_export_test.cpp, tests/differential/modes_vs_ort.py.
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"

namespace qc {
namespace {

// Whether a gather reads rows of a constant table of 8-bit integers with a scale for each.
bool looksUpRows(const Node& gather) {
  const Node* real = gather.is("gather") && gather.integer("axis") == 0 ? gather.operand(0)->producer() : nullptr;
  if (!real || !real->is("dequantize") || !real->operand(0)->constant()) return false;
  const TensorType& table = real->operand(0)->type();
  const bool isBytes = table.dtype == DType::s8 || table.dtype == DType::u8;
  return table.rank() == 2 && isBytes && !table.quant->blockSize && table.quant->perChannel() && table.quant->axis == 0;
}

// Whether nobody else wants the real numbers of the whole table.
bool onlyLookedUp(const Node& dequantize) {
  const Value* real = dequantize.result();
  if (real->isOutput() || !real->hasUses()) return false;
  for (const Use* use : real->uses())
    if (use->index() != 0 || !looksUpRows(*use->user())) return false;
  return true;
}

onnx::FunctionProto lookupFunction() {
  onnx::FunctionProto function;
  for (const char* input : {"table", "scale", "zero_point", "indices"}) function.add_input(input);
  function.add_output("rows");
  const auto add = [&](const char* op, std::initializer_list<const char*> inputs, const char* output) -> onnx::NodeProto& {
    onnx::NodeProto& node = *function.add_node();
    node.set_op_type(op);
    for (const char* i : inputs) node.add_input(i);
    node.add_output(output);
    return node;
  };
  const auto real = [&](const char* integers, const char* output) {
    setInt(add("Cast", {integers}, output), "to", dtypeToOnnx(DType::f32));
  };
  setInts(add("Constant", {}, "last"), "value_ints", {-1});
  add("Gather", {"table", "indices"}, "integers");
  real("integers", "steps");
  add("Gather", {"zero_point", "indices"}, "zero_points");
  real("zero_points", "zeros");
  add("Unsqueeze", {"zeros", "last"}, "zero");
  add("Gather", {"scale", "indices"}, "scales");
  add("Unsqueeze", {"scales", "last"}, "size");
  add("Sub", {"steps", "zero"}, "centred");
  add("Mul", {"centred", "size"}, "rows");
  return function;
}

}  // namespace

void addLookupExportRows(OnnxExportRows& table) {
  table["dequantize"] = [whole = table.at("dequantize")](OnnxExporter& e, const Node& n) {
    return onlyLookedUp(n) ? Status() : whole(e, n);
  };
  table["gather"] = [plain = table.at("gather")](OnnxExporter& e, const Node& n) -> Status {
    if (!looksUpRows(n) || !onlyLookedUp(*n.operand(0)->producer())) return plain(e, n);
    const Value* integers = n.operand(0)->producer()->operand(0);
    const auto [scale, zero] = e.quantParams(*integers->type().quant, e.name(n.operand(0)), integers->type().shape);
    e.needOpset(13);
    e.call(e.add(n, "GatherDequantized", {e.name(integers), scale, zero, e.name(n.operand(1))}, e.resultNames(n)), lookupFunction());
    return {};
  };
}

}  // namespace qc
