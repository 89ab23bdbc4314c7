// Embedding tables with float scales and zero points per row, as convert writes them: rows of bytes are gathered, and so are their
// parameters.      y = (float(q[i]) - zero_point[i]) * scale[i]
// The type of a quantized value has integer zero points, which is why this is spelled out in ops.
#include "passes/quantize/convert_parts.h"

#include "quantizer/embedding.h"
#include "quantizer/observers/observer.h"

namespace qc {

Status quantizeTable(Node* gather, const ObservedSpec& spec) {
  const Tensor& table = *gather->operand(0)->constant();
  if (!gather->is("gather") || gather->integer("axis") != 0 || table.rank() != 2 || spec.axis != 0 || spec.dtype != DType::u8)
    return fail(ErrorCode::kUnsupported, "float zero points are for u8 tables whose rows are gathered").at(gather->location());
  QC_ASSIGN(const std::unique_ptr<Observer> observer, makeObserver(spec));
  QC_TRY(observer->observe(table.ref()));
  if (observer->nonFinite() > 0)
    return fail(ErrorCode::kInvalidModel, "an embedding table holds values that are not finite").at(gather->location());
  QC_ASSIGN(const std::vector<FloatQParams> params, observer->floatQParams());
  const int64_t rows = table.sizes()[0], columns = table.sizes()[1];
  if (rows == 0 || columns == 0) return {};
  Tensor bytes(DType::u8, table.sizes()), scales(DType::f32, {rows, 1}), zeros(DType::f32, {rows, 1});
  const auto x = table.as<float>();
  for (int64_t i = 0; i < table.numElements(); ++i)
    nth(bytes.mutableAs<uint8_t>(), i) = static_cast<uint8_t>(
        quantizeFloatZero(nth(x, i), nth(params, i / columns), static_cast<int32_t>(spec.qmin), static_cast<int32_t>(spec.qmax)));
  for (int64_t r = 0; r < rows; ++r) {
    nth(scales.mutableAs<float>(), r) = nth(params, r).scale;
    nth(zeros.mutableAs<float>(), r) = nth(params, r).zeroPoint;
  }
  const std::string name = gather->operand(0)->name();
  Value* indices = gather->operand("indices");
  Builder b(gather->graph());
  b.before(gather);
  const auto rowsOf = [&](std::string_view suffix, Tensor t) {
    return b.create("gather", {b.constant(name + std::string(suffix), std::move(t)), indices}, {{"axis", int64_t{0}}});
  };
  QC_ASSIGN(Value * q, rowsOf("_q", std::move(bytes)));
  QC_ASSIGN(Value * zero, rowsOf("_zero_point", std::move(zeros)));
  QC_ASSIGN(Value * scale, rowsOf("_scale", std::move(scales)));
  QC_ASSIGN(Value * real, b.create("cast", {q}, {{"to", DType::f32}}));
  QC_ASSIGN(real, b.create("sub", {real, zero}));
  QC_ASSIGN(real, b.create("mul", {real, scale}, {}, gather->result()->name() + "_dq"));
  gather->result()->replaceAllUsesWith(real);
  return {};
}

}  // namespace qc
