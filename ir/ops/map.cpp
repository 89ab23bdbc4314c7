// Fused elementwise work on float and quantized values (`map`), 256-entry tables (`lut`), and `cast`.
#include <cstring>

#include "ir/ops/broadcast.h"
#include "ir/ops/convert.h"
#include "ir/ops/elementwise.h"
#include "ir/ops/gradients.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

Status checkPerTensor(const QuantPtr& quant, std::string_view what) {
  if (quant && (quant->perChannel() || quant->blockSize > 0))
    return fail(ErrorCode::kInvalidModel, "{} has more than one scale; only per-tensor quantization can be mapped", what);
  // Wider values would not pass through float32 unharmed.
  if (quant && sizeOf(quant->storage) > 2)
    return fail(ErrorCode::kInvalidModel, "{} is stored as {}; at most 16 bits can be mapped", what, toString(quant->storage));
  return {};
}

bool isDouble(const TensorType& t) { return t.dtype == DType::f64 && !t.isQuantized(); }

Result<Types> inferMap(const InferContext& c) {
  const ScalarExpr& expression = *c.attrs.expr("expr");
  if (c.operands.empty()) return fail(ErrorCode::kInvalidModel, "map needs at least one operand");
  if (expression.arity() > static_cast<int>(c.operands.size()))
    return fail(ErrorCode::kInvalidModel, "the expression uses a{}, but there are {} operands", expression.arity() - 1, c.operands.size());
  Shape shape;
  for (int i = 0; i < static_cast<int>(c.operands.size()); ++i) {
    const TensorType& t = c.type(i);
    if (t.dtype != DType::f32 && !t.isQuantized() && !isDouble(t))
      return fail(ErrorCode::kInvalidModel, "operand {} is {}; map takes f32 and quantized operands, or f64", i, t.str());
    if (isDouble(t) != isDouble(c.type(0)))
      return fail(ErrorCode::kInvalidModel, "operand {} is {}, the first is {}; map takes f64 alone", i, t.str(), c.type(0).str());
    QC_TRY(checkPerTensor(t.quant, fmt::format("operand {}", i)));
    QC_ASSIGN(shape, broadcastShapes(shape, t.shape));
  }
  const QuantPtr& to = c.attrs.quant("to");
  QC_TRY(checkPerTensor(to, "attribute to"));
  if (to && isDouble(c.type(0))) return fail(ErrorCode::kInvalidModel, "a map of f64 is not quantized");
  return std::vector{to ? TensorType(to, std::move(shape)) : TensorType(isDouble(c.type(0)) ? DType::f64 : DType::f32, std::move(shape))};
}

Status evaluateMap(const EvalContext& c) {
  evaluateElementwise(ExprProgram(*c.node.expr("expr")), c);
  return {};
}

bool is8Bit(DType t) { return t == DType::u8 || t == DType::s8; }

Result<Types> inferLut(const InferContext& c) {
  const TensorType &x = c.type(0), &table = c.type(1);
  if (!is8Bit(x.dtype)) return fail(ErrorCode::kInvalidModel, "operand x is {}; a table is indexed by 8-bit values", x.str());
  if (table.shape != Shape{256} || table.isQuantized() || !(is8Bit(table.dtype) || table.dtype == DType::f32))
    return fail(ErrorCode::kInvalidModel, "operand table is {}, not 256 entries of u8, s8 or f32", table.str());
  const QuantPtr& to = c.attrs.quant("to");
  QC_TRY(checkPerTensor(to, "attribute to"));
  if (to && to->storage != table.dtype)
    return fail(ErrorCode::kInvalidModel, "the table holds {}, but the result is stored as {}", toString(table.dtype),
                toString(to->storage));
  return std::vector{to ? TensorType(to, x.shape) : TensorType(table.dtype, x.shape)};
}

Status evaluateLut(const EvalContext& c) {
  const int64_t n = c.out().numElements();
  const uint8_t* index = c.in(0).as<const uint8_t>();
  if (c.out().dtype == DType::f32) {
    for (int64_t i = 0; i < n; ++i) c.out().as<float>()[i] = c.in(1).as<const float>()[index[i]];
  } else {
    for (int64_t i = 0; i < n; ++i) c.out().as<uint8_t>()[i] = c.in(1).as<const uint8_t>()[index[i]];
  }
  return {};
}

Result<Types> inferCast(const InferContext& c) {
  if (c.type(0).isQuantized()) return fail(ErrorCode::kInvalidModel, "operand x is quantized ({}); dequantize it first", c.type(0).str());
  return std::vector{c.type(0).withDType(c.attrs.dtype("to"))};
}

Status evaluateCast(const EvalContext& c) {
  withArithmetic(c.in(0).dtype, [&]<class T>() {
    constexpr int64_t kChunk = 4096;
    std::vector<T> buffer(usize(kChunk));
    const int64_t total = c.out().numElements();
    for (int64_t begin = 0; begin < total; begin += kChunk) {
      const int64_t n = std::min(kChunk, total - begin);
      loadElements<T>(c.in(0).dtype, c.in(0).data, begin, 1, n, buffer.data());
      storeElements<T>(c.out().dtype, buffer.data(), c.out().data, begin, n);
    }
  });
  return {};
}

}  // namespace

void registerMapOps(OpRegistry& registry) {
  const AttrSpec to = resultQuantAttr(false);
  OpDef map;
  map.name = "map";
  map.summary = "a fused scalar expression over float and quantized operands, quantized to `to` if given";
  map.operands = {{"xs", false, true, OperandRole::broadcast}};
  map.attrs = {exprAttr("expr"), to};
  map.traits = kPure | kElementwise | kPermutable;
  map.infer = inferMap;
  map.eval = evaluateMap;
  map.scalar = [](const AttrDict& attrs) { return *attrs.expr("expr"); };
  registry.add(std::move(map));

  OpDef lut;
  lut.name = "lut";
  lut.summary = "table[x] for 8-bit x, by storage bits";
  lut.operands = {{"x"}, {.name = "table", .role = OperandRole::parameter}};
  lut.traits = kPure | kPermutable;
  lut.attrs = {to};
  lut.stages = stageBit(Stage::kQuant) | stageBit(Stage::kKernel);
  lut.infer = inferLut;
  lut.eval = evaluateLut;
  registry.add(std::move(lut));

  OpDef cast;
  cast.name = "cast";
  cast.summary = "to another dtype: float to integer truncates and saturates, integers wrap, not 0 is true";
  cast.operands = {{"x"}};
  cast.attrs = {{"to", AttrKind::dtype, std::nullopt, AttrMeaning::element}};
  cast.traits = kPure | kPermutable;
  cast.infer = inferCast;
  cast.eval = evaluateCast;
  cast.gradient = castGradient;
  registry.add(std::move(cast));
}

}  // namespace qc
