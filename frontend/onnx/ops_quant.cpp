// ONNX quantization: QuantizeLinear and DequantizeLinear, and the QOperator forms, which import as dequantize -> float op ->
// quantize.  Lowering fuses them again, so both kinds of quantized model take one way through the compiler.
// Integers are plain outside of that, as in ONNX: what computes on them computes on them (storage_cast).
// Parameters that are computed (dynamic quantization) stay operands; the integer ops that go with them subtract the zero points
// and compute in s32.
#include <algorithm>
#include <cmath>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/scales.h"
#include "frontend/onnx/tensor.h"
#include "frontend/onnx/window.h"
#include "ir/op_def.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

DType storageOf(OnnxNode& n, int zeroPoint, DType byDefault) { return n.input(zeroPoint) ? n.type(zeroPoint).dtype : byDefault; }

constexpr int kMaxMovers = 32;  // ops in a row that move elements

// storage_cast from a quantized value: what QuantizeLinear gives.
const Node* plainForm(const Value* v) {
  const Node* p = v->producer();
  return p && p->is("storage_cast") && p->operand(0)->type().isQuantized() ? p : nullptr;
}

// Integers that a quantize clamps are the same when its range is narrowed to the bounds of what clips them behind it.  Null: nothing does.
Result<Value*> narrowed(OnnxNode& n, Value* x, const QuantPtr& q) {
  auto low = static_cast<double>(q->qmin), high = static_cast<double>(q->qmax);
  const Value* v = x;
  for (const Node* p = v->producer(); p && (p->is("clip") || p->is("max") || p->is("min")); p = v->producer()) {
    if (p->is("clip")) {
      low = std::max(low, p->real("min"));
      high = std::min(high, p->real("max"));
      v = p->operand(0);
      continue;
    }
    const int bound = p->operand(1)->constant() ? 1 : 0;
    const Tensor* c = p->operand(bound)->constant();
    if (!c || c->numElements() != 1) break;
    (p->is("max") ? low : high) = p->is("max") ? std::max(low, c->at(0)) : std::min(high, c->at(0));
    v = p->operand(1 - bound);
  }
  const Node* plain = plainForm(v);
  const Node* quantize = plain ? plain->operand(0)->producer() : nullptr;
  low = std::ceil(low), high = std::floor(high);
  const bool holdsZero = std::all_of(q->zeroPoints.begin(), q->zeroPoints.end(), [&](int32_t z) { return low <= z && z <= high; });
  if (v == x || !quantize || !quantize->is("quantize") || !(*plain->operand(0)->type().quant == *q) || !(low < high) || !holdsZero ||
      v->type().shape != x->type().shape)
    return static_cast<Value*>(nullptr);
  auto narrow = std::make_shared<QuantParams>(*q);
  narrow->qmin = static_cast<int64_t>(low);
  narrow->qmax = static_cast<int64_t>(high);
  return n.create("quantize", {quantize->operand(0)}, {{"to", QuantAttr{QuantPtr(std::move(narrow))}}});
}

// ONNX's integers are plain: a DequantizeLinear gives them their meaning.  It goes to where they come from, through what moves or selects
// them, so that a table or the result of a QuantizeLinear has it; integers that are computed get it where they are read.
Result<Value*> withMeaning(OnnxNode& n, Value* x, const QuantPtr& q, int depth = 0) {
  if (const Tensor* t = x->constant()) return n.constantValue(*t, q);
  if (const Node* plain = plainForm(x); plain && *plain->operand(0)->type().quant == *q) return plain->operand(0);
  const Node* p = x->producer();
  if (depth == 0) {  // what is moved along with other data keeps their parameters
    QC_ASSIGN(Value * narrow, narrowed(n, x, q));
    if (narrow) return narrow;
  }
  const bool moves = p && (p->def().has(kMovesData) || p->def().has(kSharesQuant)) && !q->perChannel() && depth < kMaxMovers;
  if (moves) {
    std::vector<Value*> operands = p->operands();
    for (size_t i = 0; i < operands.size(); ++i)
      if (operands[i] && operands[i]->type().dtype == x->type().dtype &&
          p->def().operand(static_cast<int>(i)).role != OperandRole::parameter) {
        QC_ASSIGN(operands[i], withMeaning(n, operands[i], q, depth + 1));
      }
    AttrDict attrs = p->attrs();
    if (p->is("pad"))  // its value is an integer, and stands for a real number now
      attrs.set("value", static_cast<double>(q->scale(0)) * (attrs.real("value") - q->zeroPoint(0)));
    QC_ASSIGN(const std::vector<Value*> results, n.createAll(p->op(), std::move(operands), std::move(attrs)));
    return nth(results, x->resultIndex());
  }
  return n.create("storage_cast", {x}, {{"to", QuantAttr{q}}});
}

Result<Value*> dequantized(OnnxNode& n, int x, int scale, int zeroPoint, int64_t axis = 1, int64_t block = 0) {
  QC_ASSIGN(const QuantPtr q, quantParams(n, scale, zeroPoint, n.type(x).dtype, axis, n.type(x).shape, block));
  QC_ASSIGN(Value * integers, withMeaning(n, n.input(x), q));
  return n.create("dequantize", {integers});
}

Result<Value*> quantized(OnnxNode& n, Value* y, int scale, int zeroPoint, int64_t axis = 1, int64_t block = 0,
                         DType byDefault = DType::u8) {
  QC_ASSIGN(const QuantPtr q, quantParams(n, scale, zeroPoint, storageOf(n, zeroPoint, byDefault), axis, y->type().shape, block));
  QC_ASSIGN(Value * integers, n.create("quantize", {y}, {{"to", QuantAttr{q}}}));
  return n.create("storage_cast", {integers});
}

// x, weights and, where there is one, the bias; `weight` is the operand that they were.
Result<Value*> convolved(OnnxNode& n, std::vector<Value*> operands, int weight) {
  QC_ASSIGN(const Ints kernel, onnxKernel(n, weight));
  QC_ASSIGN(const OnnxWindow w, onnxWindow(n, kernel, OnnxPads::free));
  if (w.kernel != kernel) return n.error(ErrorCode::kInvalidModel, "kernel_shape differs from the weight {}", n.type(weight).str());
  QC_ASSIGN(const int64_t group, n.integer("group", 1));
  QC_ASSIGN(operands[0], padded(n, operands[0], w));
  return n.create("conv", std::move(operands), {{"strides", w.strides}, {"pads", w.pads}, {"dilations", w.dilations}, {"group", group}});
}

// ---- parameters computed at run time ------------------------------------------------------------------------------------

bool parametersComputed(OnnxNode& n) { return !n.input(1)->constant() || (n.input(2) && !n.input(2)->constant()); }

// Parameters of blocks are part of the type: known when the model is loaded.
Status knownBlocks(OnnxNode& n, int64_t block) {
  if (!block) return {};
  QC_TRY(n.constant(1, "the scales of blocks"));
  if (n.input(2)) QC_TRY(n.constant(2, "the zero points of blocks"));
  return {};
}

// The axis of a parameter per slice; -1 for a scalar.
Result<int64_t> parameterAxis(OnnxNode& n, int64_t axis) {
  const TensorType& scale = n.type(1);
  if (scale.rank() == 0 || n.type(0).rank() == 0 || (scale.isStatic() && scale.numElements() == 1)) return int64_t{-1};
  return n.axis(axis, n.type(0).rank());
}

Status quantizeWith(OnnxNode& n, int64_t axis) {
  const DType storage = storageOf(n, 2, DType::u8);
  if (!isInteger(storage) || sizeOf(storage) > 2) return n.error(ErrorCode::kUnsupported, "integers of type {}", toString(storage));
  const IntRange range = rangeOf(storage);
  QC_ASSIGN(axis, parameterAxis(n, axis));
  QC_ASSIGN(Value * y, n.create("quantize_with", {n.input(0), n.input(1), n.input(2)},
                                {{"storage", storage}, {"qmin", range.min}, {"qmax", range.max}, {"axis", axis}}));
  return n.setOutput(y);
}

Status dequantizeWith(OnnxNode& n, int64_t axis) {
  QC_ASSIGN(axis, parameterAxis(n, axis));
  QC_ASSIGN(Value * y, n.create("dequantize_with", {n.input(0), n.input(1), n.input(2)}, {{"axis", axis}}));
  return n.setOutput(y);
}

// Rows of a table of integers (export_lookup.cpp): table, scale, zero point, indices.
Status gatherDequantized(OnnxNode& n) {
  Value* real = nullptr;
  if (parametersComputed(n)) {
    QC_ASSIGN(real, n.create("dequantize_with", {n.input(0), n.input(1), n.input(2)}, {{"axis", int64_t{0}}}));
  } else {
    QC_ASSIGN(real, dequantized(n, 0, 1, 2, 0));
  }
  QC_ASSIGN(Value * rows, n.create("gather", {real, n.input(3)}, {{"axis", int64_t{0}}}));
  return n.setOutput(rows);
}

Status dynamicQuantizeLinear(OnnxNode& n) {
  QC_ASSIGN(const std::vector<Value*> params, n.createAll("dynamic_qparams", {n.input(0)}, {{"eps", 0.0}}));
  QC_ASSIGN(Value * y, n.create("quantize_with", {n.input(0), params[0], params[1]}));
  QC_ASSIGN(Value * zp, n.create("cast", {params[1]}, {{"to", DType::u8}}));
  return n.setOutputs({y, params[0], zp});
}

// Operand i as s32 minus its zero point.  A zero point per slice of dim `axis` gets trailing dims of 1 up to `rank`.
Result<Value*> centred(OnnxNode& n, int i, int zeroPoint, int64_t axis, int64_t rank) {
  QC_ASSIGN(Value * x, n.create("cast", {n.input(i)}, {{"to", DType::s32}}));
  if (!n.input(zeroPoint)) return x;
  QC_ASSIGN(Value * z, n.create("cast", {n.input(zeroPoint)}, {{"to", DType::s32}}));
  if (z->type().rank() == 1 && !(z->type().shape[0] == Dim(1))) {
    std::vector<DimExpr> shape(usize(std::max<int64_t>(rank - axis, 1)), 1);
    shape[0] = z->type().shape[0].expr();
    QC_ASSIGN(z, n.reshapeToDims(z, shape));
  }
  return n.create("sub", {x, z});
}

Status matmulInteger(OnnxNode& n) {
  const int64_t rankA = n.type(0).rank(), rankB = n.type(1).rank();
  QC_ASSIGN(Value * a, centred(n, 0, 2, rankA - 2, rankA));
  QC_ASSIGN(Value * b, centred(n, 1, 3, rankB - 1, rankB));
  QC_ASSIGN(Value * y, n.create("matmul", {a, b}));
  return n.setOutput(y);
}

Status convInteger(OnnxNode& n) {
  QC_ASSIGN(Value * x, centred(n, 0, 2, 0, 0));
  QC_ASSIGN(Value * w, centred(n, 1, 3, 0, n.type(1).rank()));
  QC_ASSIGN(Value * y, convolved(n, {x, w}, 1));
  return n.setOutput(y);
}

// ---- parameters known when the model is loaded --------------------------------------------------------------------------

Status quantizeLinear(OnnxNode& n) {
  QC_ASSIGN(const int64_t axis, n.integer("axis", 1));
  QC_ASSIGN(const int64_t block, n.integer("block_size", 0));
  if (parametersComputed(n)) {
    QC_TRY(knownBlocks(n, block));
    return quantizeWith(n, axis);
  }
  DType storage = DType::u8;
  if (n.has("output_dtype")) {
    QC_ASSIGN(const int64_t code, n.integer("output_dtype"));
    if (code != 0) {
      QC_ASSIGN(storage, dtypeFromOnnx(code));
    }
  }
  QC_ASSIGN(Value * y, quantized(n, n.input(0), 1, 2, axis, block, storage));
  return n.setOutput(y);
}

Status dequantizeLinear(OnnxNode& n) {
  QC_ASSIGN(const int64_t axis, n.integer("axis", 1));
  QC_ASSIGN(const int64_t block, n.integer("block_size", 0));
  if (parametersComputed(n)) {
    QC_TRY(knownBlocks(n, block));
    return dequantizeWith(n, axis);
  }
  OddScales odd;
  QC_ASSIGN(const QuantPtr q, quantParams(n, 1, 2, n.type(0).dtype, axis, n.type(0).shape, block, &odd));
  Value* x = n.input(0);
  const auto isZero = [](OddScales::Kind kind) { return kind == OddScales::Kind::zero; };
  if (!odd.how.empty() && std::all_of(odd.how.begin(), odd.how.end(), isZero)) {
    QC_ASSIGN(Value * nothing, n.create("expand", {n.scalar(0)}, {{"shape", n.dims(0)}}));
    return n.setOutput(nothing);
  }
  if (!odd.how.empty()) {
    QC_ASSIGN(Tensor same, withoutOddScales(n, x, *q, odd));
    x = n.constantValue(std::move(same));
  }
  QC_ASSIGN(Value * integers, withMeaning(n, x, q));
  QC_ASSIGN(Value * y, n.create("dequantize", {integers}));
  return n.setOutput(y);
}

// The bias is s32 of scale xs * ws: [C], or [1, C] as quantizers make it of an Add behind a MatMul.
Result<Value*> integerBias(OnnxNode& n, int bias, int xScale, int wScale) {
  if (!n.input(bias)) return static_cast<Value*>(nullptr);
  QC_ASSIGN(const Tensor* b, n.constant(bias, "the bias"));
  QC_ASSIGN(const Tensor* sx, n.constant(xScale, "the input scale"));
  QC_ASSIGN(const Tensor* sw, n.constant(wScale, "the weight scale"));
  auto q = std::make_shared<QuantParams>();
  q->storage = DType::s32;
  q->qmin = rangeOf(DType::s32).min;
  q->qmax = rangeOf(DType::s32).max;
  q->zeroPoints = {0};
  for (int64_t i = 0; i < sw->numElements(); ++i) q->scales.push_back(static_cast<float>(sx->at(0)) * static_cast<float>(sw->at(i)));
  if (q->scales.size() > 1) q->axis = 0;
  const int64_t channels = b->numElements();
  if (b->dtype() != DType::s32 || b->rank() < 1 || b->sizes().back() != channels ||
      (q->axis == 0 && channels != static_cast<int64_t>(q->scales.size())))
    return n.error(ErrorCode::kInvalidModel, "bias {}", b->type().str());
  return n.create("dequantize", {n.constantValue(b->reshaped({channels}), q)});
}

// x, xs, xz, w, ws, wz, ys, yz, B?
Status qlinearConv(OnnxNode& n) {
  QC_ASSIGN(Value * x, dequantized(n, 0, 1, 2));
  QC_ASSIGN(Value * w, dequantized(n, 3, 4, 5, 0));
  QC_ASSIGN(Value * b, integerBias(n, 8, 1, 4));
  QC_ASSIGN(Value * y, convolved(n, {x, w, b}, 3));
  QC_ASSIGN(y, quantized(n, y, 6, 7));
  return n.setOutput(y);
}

Status qlinearMatmul(OnnxNode& n) {
  QC_ASSIGN(Value * a, dequantized(n, 0, 1, 2));
  QC_ASSIGN(Value * b, dequantized(n, 3, 4, 5, -1));
  QC_ASSIGN(Value * y, n.create("matmul", {a, b}));
  QC_ASSIGN(y, quantized(n, y, 6, 7));
  return n.setOutput(y);
}

// a, as, az, b, bs, bz, c?, ys?, yz?
Status qgemm(OnnxNode& n) {
  QC_ASSIGN(const double alpha, n.real("alpha", 1.0));
  QC_ASSIGN(const int64_t transA, n.integer("transA", 0));
  QC_ASSIGN(const int64_t transB, n.integer("transB", 0));
  if (alpha != 1.0 || transA) return n.error(ErrorCode::kUnsupported, "alpha {} or transA", alpha);
  QC_ASSIGN(Value * a, dequantized(n, 0, 1, 2));
  QC_ASSIGN(Value * b, dequantized(n, 3, 4, 5, transB ? 0 : 1));
  QC_ASSIGN(Value * c, integerBias(n, 6, 1, 4));
  if (!transB) {
    QC_ASSIGN(Value * integers, n.create("transpose", {b->producer()->operand(0)}, {{"perm", Ints{1, 0}}}));
    QC_ASSIGN(b, n.create("dequantize", {integers}));
  }
  QC_ASSIGN(Value * y, n.create("linear", {a, b, c}));
  if (n.input(7)) {
    QC_ASSIGN(y, quantized(n, y, 7, 8));
  }
  return n.setOutput(y);
}

// a, as, az, b, bs, bz, ys, yz
std::function<Status(OnnxNode&)> qlinearBinary(const char* op) {
  return [op](OnnxNode& n) -> Status {
    QC_ASSIGN(Value * a, dequantized(n, 0, 1, 2));
    QC_ASSIGN(Value * b, dequantized(n, 3, 4, 5));
    QC_ASSIGN(Value * y, n.create(op, {a, b}));
    QC_ASSIGN(y, quantized(n, y, 6, 7));
    return n.setOutput(y);
  };
}

// x, xs, xz, ys, yz
std::function<Status(OnnxNode&)> qlinearUnary(const char* op) {
  return [op](OnnxNode& n) -> Status {
    QC_ASSIGN(AttrDict attrs, renamedAttrs(n, op));
    QC_ASSIGN(Value * x, dequantized(n, 0, 1, 2));
    QC_ASSIGN(Value * y, n.create(op, {x}, std::move(attrs)));
    QC_ASSIGN(y, quantized(n, y, 3, 4));
    return n.setOutput(y);
  };
}

Status qlinearAveragePool(OnnxNode& n) {
  QC_ASSIGN(const int64_t last, n.integer("channels_last", 0));
  if (last) return n.error(ErrorCode::kUnsupported, "channels_last");
  QC_ASSIGN(const int64_t include, n.integer("count_include_pad", 0));
  QC_ASSIGN(const OnnxWindow w, onnxWindow(n));
  QC_ASSIGN(Value * x, dequantized(n, 0, 1, 2));
  QC_ASSIGN(Value * y, n.create("avg_pool", {x},
                                {{"kernel_shape", w.kernel},
                                 {"strides", w.strides},
                                 {"pads", w.pads},
                                 {"dilations", w.dilations},
                                 {"ceil_mode", int64_t{w.ceil}},
                                 {"count_include_pad", include}}));
  QC_ASSIGN(y, quantized(n, y, 3, 4));
  return n.setOutput(y);
}

Status qlinearGlobalAveragePool(OnnxNode& n) {
  QC_ASSIGN(const int64_t last, n.integer("channels_last", 0));
  QC_ASSIGN(Value * x, dequantized(n, 0, 1, 2));
  Ints axes;
  for (int d = last ? 1 : 2; d < x->type().rank() - (last ? 1 : 0); ++d) axes.push_back(d);
  QC_ASSIGN(Value * y, n.create("reduce_mean", {x}, {{"axes", axes}}));
  QC_ASSIGN(y, quantized(n, y, 3, 4));
  return n.setOutput(y);
}

// ys, yz, then x, xs, xz of each piece
Status qlinearConcat(OnnxNode& n) {
  std::vector<Value*> pieces;
  for (int i = 2; i + 1 < n.numInputs(); i += 3) {
    if (!n.input(i)) return n.error(ErrorCode::kInvalidModel, "input {} is missing", i);
    QC_ASSIGN(Value * x, dequantized(n, i, i + 1, i + 2));
    pieces.push_back(x);
  }
  if (pieces.empty()) return n.error(ErrorCode::kInvalidModel, "no pieces");
  QC_ASSIGN(const int64_t raw, n.integer("axis"));
  QC_ASSIGN(const int64_t axis, n.axis(raw, pieces.front()->type().rank()));
  QC_ASSIGN(Value * y, n.create("concat", std::move(pieces), {{"axis", axis}}));
  QC_ASSIGN(y, quantized(n, y, 0, 1));
  return n.setOutput(y);
}

Status qlinearSoftmax(OnnxNode& n) {
  QC_ASSIGN(Value * x, dequantized(n, 0, 1, 2));
  QC_ASSIGN(const int64_t raw, n.integer("axis", -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, x->type().rank()));
  QC_ASSIGN(Value * y, n.create("softmax", {x}, {{"axis", axis}}));
  QC_ASSIGN(y, quantized(n, y, 3, 4));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxQuantOps() {
  constexpr const char* kMicrosoft = "com.microsoft";
  static const std::vector<OnnxOp> kOps = [] {
    std::vector<OnnxOp> rows = {
        {"QuantizeLinear", 2, 3, quantizeLinear},
        {"DequantizeLinear", 2, 3, dequantizeLinear},
        {"QuantizeLinear", 2, 3, quantizeLinear, kMicrosoft},
        {"DequantizeLinear", 2, 3, dequantizeLinear, kMicrosoft},
        {"GatherDequantized", 4, 4, gatherDequantized, kOwnDomain},
        {"DynamicQuantizeLinear", 1, 1, dynamicQuantizeLinear},
        {"MatMulInteger", 2, 4, matmulInteger, "", 1u << 2},
        {"ConvInteger", 2, 4, convInteger, "", 1u << 2},
        {"QLinearConv", 8, 9, qlinearConv},
        {"QLinearMatMul", 8, 8, qlinearMatmul},
        {"QGemm", 6, 9, qgemm, kMicrosoft},
        {"QLinearAdd", 8, 8, qlinearBinary("add"), kMicrosoft, 1u << 2 | 1u << 5 | 1u << 7},
        {"QLinearMul", 8, 8, qlinearBinary("mul"), kMicrosoft, 1u << 2 | 1u << 5 | 1u << 7},
        {"QLinearSigmoid", 5, 5, qlinearUnary("sigmoid"), kMicrosoft, 1u << 2 | 1u << 4},
        {"QLinearLeakyRelu", 5, 5, qlinearUnary("leaky_relu"), kMicrosoft, 1u << 2 | 1u << 4},
        {"QLinearSoftmax", 5, 5, qlinearSoftmax, kMicrosoft, 1u << 2 | 1u << 4},
        {"QLinearAveragePool", 5, 5, qlinearAveragePool, kMicrosoft, 1u << 2 | 1u << 4},
        {"QLinearGlobalAveragePool", 5, 5, qlinearGlobalAveragePool, kMicrosoft, 1u << 2 | 1u << 4},
        {"QLinearConcat", 3, -1, qlinearConcat, kMicrosoft},
    };
    for (OnnxOp& row : rows) row.freeDims = true;
    return rows;
  }();
  return kOps;
}

}  // namespace qc
