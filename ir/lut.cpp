#include "ir/lut.h"

#include <array>

#include "ir/qmath.h"

namespace qc {
namespace {

bool isPlain8Bit(const QuantParams& q) { return (q.storage == DType::u8 || q.storage == DType::s8) && !q.perChannel(); }

}  // namespace

bool hasLut(const QuantParams& in, const QuantParams* out) { return isPlain8Bit(in) && (!out || isPlain8Bit(*out)); }

Tensor buildLut(const ScalarExpr& expression, const QuantParams& in, const QuantParams* out) {
  QC_CHECK(hasLut(in, out) && expression.arity() <= 1);
  std::array<float, 256> values;
  for (int bits = 0; bits < 256; ++bits) {
    const int q = in.storage == DType::s8 ? static_cast<int8_t>(bits) : bits;
    nth(values, bits) = qmath::dequantize(q, in.scale(), in.zeroPoint());
  }
  const float* args[] = {values.data()};
  const int strides[] = {1};
  ExprProgram(expression).run<float>(args, strides, values.data(), 256);
  if (!out) return Tensor::ofFloats({256}, values);
  Tensor table(out->storage, {256});
  const auto bytes = static_cast<uint8_t*>(table.mutableData());
  const float inverse = 1.0f / out->scale();
  for (size_t i = 0; i < 256; ++i)
    bytes[i] = static_cast<uint8_t>(
        qmath::finish(values[i], inverse, out->zeroPoint(), static_cast<int32_t>(out->qmin), static_cast<int32_t>(out->qmax)));
  return table;
}

}  // namespace qc
