// ONNX forms of what is quantized at run time; the recurrent ops are in export_recurrent.cpp.
//   dynamic_qparams + quantize_with   DynamicQuantizeLinear where it computes the same (u8, 0..255, affine, per tensor); else arithmetic
//   q.dynamic_linear, q.dynamic_conv  MatMulInteger, ConvInteger, then the scales and the bias in float
#include <cfloat>

#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"
#include "ir/op_def.h"
#include "ir/ops/dynamic.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

// One parameter for a whole tensor, as ONNX writes it.
bool isScalar(const Value* v) {
  return v->type().rank() == 0 || (v->type().rank() == 1 && v->type().isStatic() && v->type().numElements() == 1);
}

// ---- parameters ---------------------------------------------------------------------------------------------------------

// The one quantize_with that DynamicQuantizeLinear would do along with these parameters.
const Node* joinedQuantize(const Node& params) {
  if (!isStandardRange(params.attrs()) || params.real("eps") > static_cast<double>(FLT_MIN)) return nullptr;
  for (const Node* user : params.result(0)->users())
    if (user->is("quantize_with") && user->operand(0) == params.operand(0) && user->operand(1) == params.result(0) &&
        user->operand(2) == params.result(1) && user->integer("axis") < 0 && user->attrs().dtype("storage") == DType::u8 &&
        user->integer("qmin") == 0 && user->integer("qmax") == 255)
      return user;
  return nullptr;
}

// Whether somebody reads the zero point as the s32 it is in the graph.
bool readAsInt32(const Value* z) {
  if (z->isOutput()) return true;
  for (const Node* user : z->users())
    if (!user->is("quantize_with") && !user->is("dequantize_with") && !user->op().starts_with("q.dynamic_")) return true;
  return false;
}

void nameWideZeroPoint(OnnxExporter& e, const Node& n) {
  const Value* z = n.result(1);
  if (readAsInt32(z)) setInt(e.add(n, "Cast", {e.narrowZeroPoints.at(z)}, {e.name(z)}), "to", dtypeToOnnx(DType::s32));
}

std::string reduce(OnnxExporter& e, const Node& n, const char* op, bool token, const char* suffix) {
  const int rank = n.operand(0)->type().rank();
  Ints axes;
  for (int d = token ? rank - 1 : 0; d < rank; ++d) axes.push_back(d);
  std::vector<std::string> inputs = {e.name(n.operand(0))};
  if (e.opset() >= 18) inputs.push_back(e.ints(axes));
  const std::string result = e.fresh(e.name(n.result()) + "_" + suffix);
  auto& proto = e.add(n, op, inputs, {result});
  if (e.opset() < 18) setInts(proto, "axes", axes);
  setInt(proto, "keepdims", token);
  return result;
}

Status dynamicQParams(OnnxExporter& e, const Node& n) {
  const Value* z = n.result(1);
  if (const Node* quantize = joinedQuantize(n)) {
    e.narrowZeroPoints[z] = e.fresh(e.name(n.result(1)) + "_u8");
    e.add(n, "DynamicQuantizeLinear", {e.name(n.operand(0))}, {e.name(quantize->result()), e.name(n.result()), e.narrowZeroPoints[z]});
    nameWideZeroPoint(e, n);
    return {};
  }
  const bool token = n.string("granularity") == "token", symmetric = n.string("scheme") == "symmetric";
  const auto qmin = static_cast<float>(n.integer("qmin")), qmax = static_cast<float>(n.integer("qmax"));
  const std::string zero = e.scalar(0);
  const std::string lo = e.step(n, "Min", {reduce(e, n, "ReduceMin", token, "min"), zero}, "lo");
  const std::string hi = e.step(n, "Max", {reduce(e, n, "ReduceMax", token, "max"), zero}, "hi");
  const std::string width =
      symmetric ? e.step(n, "Max", {e.step(n, "Neg", {lo}, "neg"), hi}, "width") : e.step(n, "Sub", {hi, lo}, "width");
  const std::string step = e.step(n, "Div", {width, e.scalar(symmetric ? (qmax - qmin) / 2 : qmax - qmin)}, "step");
  e.add(n, "Max", {step, e.scalar(std::max(static_cast<float>(n.real("eps")), FLT_MIN))}, {e.name(n.result())});
  std::string zp;
  if (symmetric) {
    const float middle = qmin < 0 ? 0 : static_cast<float>((n.integer("qmin") + n.integer("qmax") + 1) / 2);
    zp = e.step(n, "Add", {e.step(n, "Mul", {e.name(n.result()), zero}, "zeros"), e.scalar(middle)}, "zp");
  } else {
    const std::string below = e.step(n, "Round", {e.step(n, "Div", {lo, e.name(n.result())}, "below")}, "steps");
    zp = e.step(n, "Clip", {e.step(n, "Sub", {e.scalar(qmin), below}, "from"), e.scalar(qmin), e.scalar(qmax)}, "zp");
  }
  e.narrowZeroPoints[z] = e.castTo(n.attrs().dtype("storage"), n, zp, "zero_point");
  nameWideZeroPoint(e, n);
  return {};
}

// The zero point in the type of the integers; empty when there is none.
std::string narrowZeroPoint(OnnxExporter& e, const Node& n, const Value* z, DType storage) {
  if (!z) return {};
  if (const auto known = e.narrowZeroPoints.find(z); known != e.narrowZeroPoints.end()) return known->second;
  if (z->type().dtype == storage) return e.name(z);
  return e.narrowZeroPoints[z] = e.castTo(storage, n, e.name(z), "zero_point");
}

bool fullRange(const Node& n) {
  const IntRange range = rangeOf(n.attrs().dtype("storage"));
  return n.integer("qmin") == range.min && n.integer("qmax") == range.max;
}

bool hasScalarParameters(const Node& n) { return isScalar(n.operand(1)) && (!n.operand(2) || isScalar(n.operand(2))); }

Status quantizeWith(OnnxExporter& e, const Node& n) {
  const Node* params = n.operand(1)->producer();
  if (params && params->is("dynamic_qparams") && joinedQuantize(*params) == &n) return {};  // came with its parameters
  const DType storage = n.attrs().dtype("storage");
  const std::string x = e.name(n.operand(0)), scale = e.name(n.operand(1)), zp = narrowZeroPoint(e, n, n.operand(2), storage);
  const int64_t axis = n.integer("axis");
  if (fullRange(n) && (axis >= 0 || hasScalarParameters(n))) {
    auto& proto = e.add(n, "QuantizeLinear", {x, scale, zp}, {e.name(n.result())});
    if (axis >= 0) setInt(proto, "axis", axis);
    if (sizeOf(storage) == 2) e.needOpset(21);
    return {};
  }
  if (axis >= 0)
    return fail(ErrorCode::kUnsupported, "a narrowed range with computed scales per slice cannot be exported").at(n.location());
  std::string y = e.step(n, "Round", {e.step(n, "Div", {x, scale}, "scaled")}, "rounded");
  if (!zp.empty()) y = e.step(n, "Add", {y, e.castTo(DType::f32, n, zp, "zp_real")}, "shifted");
  y = e.step(n, "Clip", {y, e.scalar(static_cast<float>(n.integer("qmin"))), e.scalar(static_cast<float>(n.integer("qmax")))}, "clipped");
  setInt(e.add(n, "Cast", {y}, {e.name(n.result())}), "to", dtypeToOnnx(storage));
  return {};
}

Status dequantizeWith(OnnxExporter& e, const Node& n) {
  const DType storage = n.operand(0)->type().dtype;
  const std::string x = e.name(n.operand(0)), scale = e.name(n.operand(1)), zp = narrowZeroPoint(e, n, n.operand(2), storage);
  const int64_t axis = n.integer("axis");
  if (axis >= 0 || hasScalarParameters(n)) {
    auto& proto = e.add(n, "DequantizeLinear", {x, scale, zp}, {e.name(n.result())});
    if (axis >= 0) setInt(proto, "axis", axis);
    return {};
  }
  std::string q = e.castTo(DType::f32, n, x, "real");
  if (!zp.empty()) q = e.step(n, "Sub", {q, e.castTo(DType::f32, n, zp, "zp_real")}, "centred");
  e.add(n, "Mul", {q, scale}, {e.name(n.result())});
  return {};
}

// ---- layers -------------------------------------------------------------------------------------------------------------

bool hasZeroPoints(const QuantParams& q) {
  for (const int32_t z : q.zeroPoints)
    if (z != 0) return true;
  return false;
}

Tensor zeroPointsOf(const QuantParams& q) {
  Tensor t(q.storage, q.zeroPoints.size() == 1 ? Ints{} : Ints{static_cast<int64_t>(q.zeroPoints.size())});
  void* data = t.mutableData();
  for (size_t i = 0; i < q.zeroPoints.size(); ++i) storeElement(q.storage, data, static_cast<int64_t>(i), q.zeroPoints[i]);
  return t;
}

// float(acc) * (scale * sw) + bias, where sw and bias broadcast with trailing ones for the spatial dims of a conv.
void scaleSums(OnnxExporter& e, const Node& n, const std::string& acc, int64_t spatial) {
  const QuantParams& q = *n.operand("w")->type().quant;
  Ints shape;
  if (q.scales.size() > 1) {
    shape.assign(usize(1 + spatial), 1);
    shape[0] = static_cast<int64_t>(q.scales.size());
  }
  const std::string weightScale = e.initializer(e.name(n.result()) + "_weight_scale", Tensor::ofFloats(shape, q.scales));
  const std::string scale = e.step(n, "Mul", {e.name(n.operand("scale")), weightScale}, "scales");
  const Value* bias = n.operand("bias");
  const std::string product = bias ? e.fresh(e.name(n.result()) + "_scaled") : e.name(n.result());
  e.add(n, "Mul", {e.castTo(DType::f32, n, acc, "sum"), scale}, {product});
  if (!bias) return;
  std::string addend = e.name(bias);
  if (spatial > 0) {
    Ints sizes(usize(1 + spatial), 1);
    sizes[0] = bias->type().numElements();
    addend = bias->constant() ? e.initializer(bias->name(), bias->constant()->reshaped(sizes))
                              : e.step(n, "Reshape", {addend, e.ints(sizes)}, "bias");
  }
  e.add(n, "Add", {product, addend}, {e.name(n.result())});
}

Status dynamicLinear(OnnxExporter& e, const Node& n) {
  const Value* w = n.operand("w");
  const QuantParams& q = *w->type().quant;
  if (q.blockSize) return fail(ErrorCode::kUnsupported, "group-wise weights with integer inputs have no ONNX form").at(n.location());
  const int64_t rows = w->type().sizes()[0], depth = w->type().sizes()[1];
  Tensor weights = *w->constant();
  if (sizeOf(weights.dtype()) == 1 && (weights.dtype() == DType::s4 || weights.dtype() == DType::u4)) {  // MatMulInteger takes 8 bits
    const DType wide = weights.dtype() == DType::s4 ? DType::s8 : DType::u8;
    weights = Tensor(wide, weights.sizes(), std::make_shared<Tensor>(weights), w->constant()->data());
  }
  const std::string transposed = e.constant(w, "_t", [&] { return transposedRows(weights, 1, rows, depth, {depth, rows}); });
  const std::string x = e.name(n.operand("x")),
                    weightZero = hasZeroPoints(q) ? e.initializer(w->name() + "_zero_point", zeroPointsOf(q)) : std::string();
  const std::string zp = narrowZeroPoint(e, n, n.operand("zero_point"), n.operand("x")->type().dtype);
  if (isScalar(n.operand("zero_point"))) {
    scaleSums(e, n, e.step(n, "MatMulInteger", {x, transposed, zp, weightZero}, "acc"), 0);
    return {};
  }
  // One zero point for the whole tensor is all that MatMulInteger has: the sum of z * w is taken off afterwards.
  Tensor sums(DType::s32, {rows});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < depth; ++k)
      nth(sums.mutableAs<int32_t>(), r) += static_cast<int32_t>(w->constant()->at(r * depth + k)) - q.zeroPoint(q.perChannel() ? r : 0);
  const std::string raw = e.step(n, "MatMulInteger", {x, transposed, "", weightZero}, "acc");
  const std::string shift = e.step(n, "Mul", {e.castTo(DType::s32, n, zp, "zp"), e.initializer(w->name() + "_sums", sums)}, "shift");
  scaleSums(e, n, e.step(n, "Sub", {raw, shift}, "centred"), 0);
  return {};
}

Status dynamicConv(OnnxExporter& e, const Node& n) {
  const Value* w = n.operand("w");
  const QuantParams& q = *w->type().quant;
  if (hasZeroPoints(q) && q.zeroPoints.size() > 1)
    return fail(ErrorCode::kUnsupported, "ConvInteger takes one zero point for all weights").at(n.location());
  const std::string acc = e.fresh(e.name(n.result()) + "_acc");
  const std::string weightZero = hasZeroPoints(q) ? e.initializer(w->name() + "_zero_point", zeroPointsOf(q)) : std::string();
  auto& proto = e.add(
      n, "ConvInteger",
      {e.name(n.operand("x")), e.name(w), narrowZeroPoint(e, n, n.operand("zero_point"), n.operand("x")->type().dtype), weightZero}, {acc});
  setConvAttrs(proto, n);
  scaleSums(e, n, acc, n.operand("x")->type().rank() - 2);
  return {};
}

}  // namespace

Tensor transposedRows(const Tensor& w, int64_t directions, int64_t rows, int64_t depth, Ints sizes) {
  Tensor t(w.dtype(), std::move(sizes));
  void* data = t.mutableData();
  for (int64_t d = 0; d < directions; ++d)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < depth; ++k) storeElement(w.dtype(), data, (d * depth + k) * rows + r, w.at((d * rows + r) * depth + k));
  return t;
}

void addDynamicExportRows(OnnxExportRows& table) {
  table["dynamic_qparams"] = dynamicQParams;
  table["quantize_with"] = quantizeWith;
  table["dequantize_with"] = dequantizeWith;
  table["q.dynamic_linear"] = dynamicLinear;
  table["q.dynamic_conv"] = dynamicConv;
}

}  // namespace qc
