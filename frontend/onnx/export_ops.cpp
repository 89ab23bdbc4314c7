// IR ops -> ONNX nodes: a row for each op that is more than renamed (ir/onnx_names.h).
#include <algorithm>
#include <cmath>
#include <limits>

#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

onnx::AttributeProto& attribute(onnx::NodeProto& n, const char* name, onnx::AttributeProto::AttributeType type) {
  auto& a = *n.add_attribute();
  a.set_name(name);
  a.set_type(type);
  return a;
}

Ints orOnes(const Ints& list, size_t n, int64_t value = 1) { return list.empty() ? Ints(n, value) : list; }

// An attribute that carries over, perhaps under another name.
struct Copied {
  const char* ours;
  const char* onnx;
  Copied(const char* both) : ours(both), onnx(both) {}  // NOLINT(google-explicit-constructor): rows read better
  Copied(const char* o, const char* x) : ours(o), onnx(x) {}
};

void copy(onnx::NodeProto& proto, const Node& n, const Copied& c) { setAttr(proto, c.onnx, *n.attrs().find(c.ours)); }

// ---- convolution, pooling, products -------------------------------------------------------------------------------------

void windowAttrs(onnx::NodeProto& proto, const Node& n, const Ints& kernel) {
  setInts(proto, "kernel_shape", kernel);
  setInts(proto, "strides", orOnes(n.integers("strides"), kernel.size()));
  setInts(proto, "pads", orOnes(n.integers("pads"), 2 * kernel.size(), 0));
}

// cast(8-bit) or sub(cast(8-bit), cast(zero point)): what the integer ops of ONNX take.  A zero point per channel has trailing dims of 1
// here and is a vector there.
struct IntegerOperand {
  const Value *x = nullptr, *zero = nullptr;
};
IntegerOperand integerOperand(const Value* v) {
  const auto eightBits = [](const Value* u) -> const Value* {
    const Node* cast = u->producer();
    const bool fits =
        cast && cast->is("cast") && (cast->operand(0)->type().dtype == DType::u8 || cast->operand(0)->type().dtype == DType::s8);
    return fits ? cast->operand(0) : nullptr;
  };
  const Node* sub = v->producer();
  if (!sub || !sub->is("sub")) return {eightBits(v)};
  const Value* zero = sub->operand(1);
  if (zero->producer() && zero->producer()->is("reshape")) zero = zero->producer()->operand(0);
  const IntegerOperand found{eightBits(sub->operand(0)), eightBits(zero)};
  const bool fits = found.x && found.zero && found.zero->type().dtype == found.x->type().dtype && found.zero->type().rank() <= 1;
  return fits ? found : IntegerOperand();
}

// False: the operands are not 8-bit integers.
bool addIntegerOp(OnnxExporter& e, const Node& n, const char* op, onnx::NodeProto** proto) {
  const IntegerOperand a = integerOperand(n.operand(0)), b = integerOperand(n.operand(1));
  if (!a.x || !b.x) return false;
  *proto = &e.add(n, op, {e.name(a.x), e.name(b.x), e.name(a.zero), e.name(b.zero)}, e.resultNames(n));
  return true;
}

Status conv(OnnxExporter& e, const Node& n) {
  const bool transposed = n.is("conv_transpose"), isFloat = qc::isFloat(n.result()->type().dtype);
  std::vector<std::string> inputs = e.operandNames(n);
  if (inputs.size() > 3) return fail(ErrorCode::kUnsupported, "a fused residual cannot be exported").at(n.location());
  onnx::NodeProto* proto = nullptr;
  if (isFloat)
    proto = &e.add(n, transposed ? "ConvTranspose" : "Conv", inputs, e.resultNames(n));
  else if (transposed || inputs.size() > 2 || !addIntegerOp(e, n, "ConvInteger", &proto))
    return fail(ErrorCode::kUnsupported, "'{}' of {} has no ONNX form", n.op(), n.operand(0)->type().str()).at(n.location());
  setConvAttrs(*proto, n);
  if (transposed && !n.integers("output_padding").empty()) setInts(*proto, "output_padding", n.integers("output_padding"));
  return {};
}

Status pool(OnnxExporter& e, const Node& n) {
  const bool average = n.is("avg_pool");
  auto& proto = e.add(n, average ? "AveragePool" : "MaxPool", e.operandNames(n), e.resultNames(n));
  const Ints& kernel = n.integers("kernel_shape");
  windowAttrs(proto, n, kernel);
  setInt(proto, "ceil_mode", n.integer("ceil_mode"));
  const Ints dilations = orOnes(n.integers("dilations"), kernel.size());
  const bool dilated = std::any_of(dilations.begin(), dilations.end(), [](int64_t d) { return d != 1; });
  if (average) {
    setInt(proto, "count_include_pad", n.integer("count_include_pad"));
    if (dilated) e.needOpset(19);
  }
  if (dilated) setInts(proto, "dilations", dilations);
  return {};
}

// linear x[..., K], w[N, K]: Gemm for matrices, else MatMul with the transposed weight and an Add.
Status linear(OnnxExporter& e, const Node& n) {
  std::vector<std::string> inputs = e.operandNames(n);
  if (inputs.size() > 3) return fail(ErrorCode::kUnsupported, "a fused residual cannot be exported").at(n.location());
  if (n.operand(0)->type().rank() == 2) {
    setInt(e.add(n, "Gemm", inputs, e.resultNames(n)), "transB", 1);
    return {};
  }
  const std::string transposed = e.fresh(inputs[1] + "_t");
  setInts(e.add(n, "Transpose", {inputs[1]}, {transposed}), "perm", {1, 0});
  if (inputs.size() < 3 || inputs[2].empty()) {
    e.add(n, "MatMul", {inputs[0], transposed}, e.resultNames(n));
    return {};
  }
  e.add(n, "Add", {e.step(n, "MatMul", {inputs[0], transposed}, "mm"), inputs[2]}, e.resultNames(n));
  return {};
}

Status matmul(OnnxExporter& e, const Node& n) {
  onnx::NodeProto* proto = nullptr;
  if (n.result()->type().dtype != DType::s32 || !addIntegerOp(e, n, "MatMulInteger", &proto))
    e.add(n, "MatMul", e.operandNames(n), e.resultNames(n));
  return {};
}

// ---- elementwise ----------------------------------------------------------------------------------------------------------

Status identity(OnnxExporter& e, const Node& n) {
  e.add(n, "Identity", e.operandNames(n), e.resultNames(n));
  return {};
}

Status clip(OnnxExporter& e, const Node& n) {
  const DType dtype = n.result()->type().dtype;
  const auto bound = [&](double v) { return std::isinf(v) ? std::string() : e.scalarOf(dtype, v); };
  e.add(n, "Clip", {e.name(n.operand(0)), bound(n.real("min")), bound(n.real("max"))}, e.resultNames(n));
  return {};
}

Status silu(OnnxExporter& e, const Node& n) {
  const std::string x = e.name(n.operand(0));
  e.add(n, "Mul", {x, e.step(n, "Sigmoid", {x}, "sigmoid")}, e.resultNames(n));
  return {};
}

Status mish(OnnxExporter& e, const Node& n) {
  const std::string x = e.name(n.operand(0));
  if (n.result()->type().dtype != DType::f32) e.needOpset(18);  // of which Softplus is a function there
  e.add(n, "Mul", {x, e.step(n, "Tanh", {e.step(n, "Softplus", {x}, "softplus")}, "tanh")}, e.resultNames(n));
  return {};
}

Status cast(OnnxExporter& e, const Node& n) {
  setInt(e.add(n, "Cast", e.operandNames(n), e.resultNames(n)), "to", dtypeToOnnx(n.result()->type().dtype));
  return {};
}

// ---- norms -----------------------------------------------------------------------------------------------------------------

Status layerNorm(OnnxExporter& e, const Node& n) {
  e.needOpset(17);
  std::vector<std::string> inputs = e.operandNames(n);
  if (inputs.size() < 2 || inputs[1].empty()) {
    inputs.resize(std::max<size_t>(inputs.size(), 2));
    QC_ASSIGN(inputs[1], e.filled("ones", 1, std::span(n.operand(0)->type().shape).subspan(usize(n.integer("axis")))));
  }
  auto& proto = e.add(n, "LayerNormalization", inputs, e.resultNames(n));
  for (const char* attr : {"epsilon", "axis"}) copy(proto, n, attr);
  return {};
}

// ---- movement -----------------------------------------------------------------------------------------------------------------

Status pad(OnnxExporter& e, const Node& n) {
  const std::string value = e.scalarOf(n.result()->type().dtype, n.real("value"));
  QC_ASSIGN(const std::string pads, e.dims(n.attrs().dims("pads")));
  setString(e.add(n, "Pad", {e.name(n.operand(0)), pads, value}, e.resultNames(n)), "mode", n.string("mode"));
  if (n.string("mode") == "wrap") e.needOpset(19);
  return {};
}

Status oneHot(OnnxExporter& e, const Node& n) {
  // Of the dtypes that ONNX allows, those that runtimes have: s64 indices; a depth of s64, or of f32 beside values of s32.
  std::string indices = e.name(n.operand(0));
  if (n.operand(0)->type().dtype != DType::s64) indices = e.castTo(DType::s64, n, indices, "indices");
  const int64_t size = n.integer("depth");
  const bool isShort = n.result()->type().dtype == DType::s32;
  const std::string depth = isShort ? e.scalar(static_cast<float>(size)) : e.integer(size);
  copy(e.add(n, "OneHot", {indices, depth, e.name(n.operand(1))}, e.resultNames(n)), n, "axis");
  return {};
}

Status trilu(OnnxExporter& e, const Node& n) {
  e.needOpset(14);
  copy(e.add(n, "Trilu", {e.name(n.operand(0)), e.integer(n.integer("k"))}, e.resultNames(n)), n, "upper");
  return {};
}

OnnxExportRow scatter(const char* op, const std::vector<Copied>& attrs = {}) {
  return [=](OnnxExporter& e, const Node& n) -> Status {
    auto& proto = e.add(n, op, e.operandNames(n), e.resultNames(n));
    for (const Copied& c : attrs) copy(proto, n, c);
    const std::string& reduction = n.string("reduction");
    if (reduction == "none") return {};
    e.needOpset(reduction == "min" || reduction == "max" ? 18 : 16);
    setString(proto, "reduction", reduction);
    return {};
  };
}

// ---- quantization ----------------------------------------------------------------------------------------------------------------

// A range narrower than the storage type's is kept by a clip before the rounding: both bounds are whole steps.
std::string clippedTo(OnnxExporter& e, const Node& n, const QuantParams& q, const std::string& x) {
  const IntRange full = rangeOf(q.storage);
  if ((q.qmin <= full.min && q.qmax >= full.max) || q.scales.size() != 1) return x;
  const auto real = [&](int64_t v) { return e.scalar(q.scale() * static_cast<float>(v - q.zeroPoint())); };
  return e.step(n, "Clip", {x, real(q.qmin), real(q.qmax)}, "clip");
}

void axisOf(onnx::NodeProto& proto, const QuantParams& q) {
  if (q.perChannel() || q.blockSize) setInt(proto, "axis", q.axis);
  if (q.blockSize) setInt(proto, "block_size", q.blockSize);
}

void opsetOf(OnnxExporter& e, const QuantParams& q) {
  const bool wide = q.storage == DType::u16 || q.storage == DType::s16, narrow = q.storage == DType::u4 || q.storage == DType::s4;
  if (wide || narrow || q.blockSize) e.needOpset(21);
}

// Their scales have the shape of the tensor, which an initializer cannot have of free dims.
Status knownBlocks(const Node& n, const QuantParams& q) {
  if (!q.blockSize || n.operand(0)->type().isStatic()) return {};
  return fail(ErrorCode::kUnsupported, "blocks of {}, whose dims are free", n.operand(0)->type().str()).at(n.location());
}

Status addQuantize(OnnxExporter& e, const Node& n, const QuantPtr& q, const std::string& result) {
  QC_TRY(knownBlocks(n, *q));
  opsetOf(e, *q);
  const auto [scale, zero] = e.quantParams(*q, e.name(n.result()), n.operand(0)->type().shape);
  axisOf(e.add(n, "QuantizeLinear", {clippedTo(e, n, *q, e.name(n.operand(0))), scale, zero}, {result}), *q);
  return {};
}

Status addDequantize(OnnxExporter& e, const Node& n, const QuantPtr& q, const std::string& integers) {
  QC_TRY(knownBlocks(n, *q));
  opsetOf(e, *q);
  const auto [scale, zero] = e.quantParams(*q, e.name(n.result()), n.operand(0)->type().shape);
  axisOf(e.add(n, "DequantizeLinear", {integers, scale, zero}, e.resultNames(n)), *q);
  return {};
}

Status quantize(OnnxExporter& e, const Node& n) { return addQuantize(e, n, n.result()->type().quant, e.name(n.result())); }

Status dequantize(OnnxExporter& e, const Node& n) { return addDequantize(e, n, n.operand(0)->type().quant, e.name(n.operand(0))); }

Status fakeQuantize(OnnxExporter& e, const Node& n) {
  const std::string integers = e.fresh(e.name(n.result()) + "_integers");
  QC_TRY(addQuantize(e, n, n.attrs().quant("to"), integers));
  return addDequantize(e, n, n.attrs().quant("to"), integers);
}

OnnxExportRows plainRows() {
  return {
      {"silu", silu},
      {"mish", mish},
      {"clip", clip},
      {"storage_cast", identity},  // integers are plain in ONNX
      {"cast", cast},
      {"conv", conv},
      {"conv_transpose", conv},
      {"linear", linear},
      {"matmul", matmul},
      {"max_pool", pool},
      {"avg_pool", pool},
      {"layer_norm", layerNorm},
      {"scatter_elements", scatter("ScatterElements", {"axis"})},
      {"scatter_nd", scatter("ScatterND")},
      {"pad", pad},
      {"one_hot", oneHot},
      {"trilu", trilu},
      {"quantize", quantize},
      {"dequantize", dequantize},
      {"fake_quantize", fakeQuantize},
  };
}

}  // namespace

void setInt(onnx::NodeProto& n, const char* name, int64_t v) { attribute(n, name, onnx::AttributeProto::INT).set_i(v); }
void setFloat(onnx::NodeProto& n, const char* name, double v) {
  attribute(n, name, onnx::AttributeProto::FLOAT).set_f(static_cast<float>(v));
}
void setString(onnx::NodeProto& n, const char* name, const std::string& v) { attribute(n, name, onnx::AttributeProto::STRING).set_s(v); }
void setInts(onnx::NodeProto& n, const char* name, const Ints& v) {
  auto& a = attribute(n, name, onnx::AttributeProto::INTS);
  for (const int64_t i : v) a.add_ints(i);
}
void setFloats(onnx::NodeProto& n, const char* name, const std::vector<double>& v) {
  auto& a = attribute(n, name, onnx::AttributeProto::FLOATS);
  for (const double x : v) a.add_floats(static_cast<float>(x));
}
void setStrings(onnx::NodeProto& n, const char* name, const std::vector<std::string>& v) {
  auto& a = attribute(n, name, onnx::AttributeProto::STRINGS);
  for (const std::string& x : v) a.add_strings(x);
}

void setAttr(onnx::NodeProto& n, const char* name, const Attr& v) {
  if (const auto* integer = std::get_if<int64_t>(&v)) setInt(n, name, *integer);
  if (const auto* real = std::get_if<double>(&v)) setFloat(n, name, *real);
  if (const auto* text = std::get_if<std::string>(&v)) setString(n, name, *text);
  if (const auto* list = std::get_if<Ints>(&v)) setInts(n, name, *list);
  if (const auto* list = std::get_if<std::vector<double>>(&v); list && !list->empty()) setFloats(n, name, *list);
}

void setConvAttrs(onnx::NodeProto& proto, const Node& n) {
  const Ints weight = n.operand("w")->type().sizes(), kernel(weight.begin() + 2, weight.end());
  setInts(proto, "kernel_shape", kernel);
  setInts(proto, "strides", orOnes(n.integers("strides"), kernel.size()));
  setInts(proto, "pads", orOnes(n.integers("pads"), 2 * kernel.size(), 0));
  setInts(proto, "dilations", orOnes(n.integers("dilations"), kernel.size()));
  setInt(proto, "group", n.integer("group"));
}

const OnnxExportRows& onnxExportRows() {
  static const OnnxExportRows kRows = [] {
    OnnxExportRows rows = plainRows();
    addDynamicExportRows(rows);
    addRecurrentExportRows(rows);
    addShapeExportRows(rows);
    addDecidingExportRows(rows);
    addReductionExportRows(rows);
    addSignalExportRows(rows);
    addRenamedExportRows(rows);
    addLookupExportRows(rows);
    addOwnExportRows(rows);
    return rows;
  }();
  return kRows;
}

}  // namespace qc
