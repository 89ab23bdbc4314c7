// What conv, linear and their quantized forms share: operands, the checks on them, and what happens to a sum on its way out.
//
// The formulas are those of ir/epilogue_form.h.  acc + bias is int32; sums that could leave it are refused.
#pragma once

#include <functional>
#include <vector>

#include "ir/epilogue_form.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/widen.h"

namespace qc {

enum ProductOperand { kX, kW, kBias, kResidual };

// ---- inference --------------------------------------------------------------------------------

// Element types of a product: floats compute in float32 (f64 in double), s32 u32 s64 u64 wrap around.
Status requireArithmetic(const InferContext& c, int operand);
// Bias, residual and post of a float product with `channels` outputs; gives its result.
Result<Types> floatProductResult(const InferContext& c, Shape shape, Dim channels);
// Operand types, bias, residual, post, to and clamps of a quantized product; gives its result.  `weightAxis` is where per-channel
// weight parameters may sit.
Result<Types> quantizedProductResult(const InferContext& c, Shape shape, Dim channels, int weightAxis);
// Refuses a product whose int32 sum over `depth` terms, plus a constant bias, could overflow.  Constant weights are looked at one
// by one when the bound from the types alone is too wide; channelOf gives the output channel of a weight's index.
Status requireInt32Sums(const InferContext& c, int64_t depth, int64_t channels, const std::function<int64_t(int64_t)>& channelOf);

// ---- evaluation -------------------------------------------------------------------------------

// Calls f with the type that a product of this element type computes in: float, double, uint32_t or uint64_t.
template <class F>
decltype(auto) withProductType(DType dtype, F&& f) {
  if (dtype == DType::f64) return f(double{});
  if (isFloat(dtype)) return f(float{});
  if (sizeOf(dtype) == 8) return f(uint64_t{});
  return f(uint32_t{});
}

// y = post(y + bias, residual) on y[rows][channels]; null: absent.
template <class T>
void floatEpilogue(const EpilogueForm& form, const T* bias, const T* residual, T* y, int64_t rows, int64_t channels);

// The way out of the integer sums, for results of `channels` channels.  channelScale maps a channel to the index of its weight scale.
class QuantizedEpilogue {
 public:
  QuantizedEpilogue(const EvalContext& c, int64_t channels, const std::function<int64_t(int64_t)>& channelScale);
  bool quantizes() const { return form_.to != nullptr; }
  // residual: already dequantized, null when absent.  Writes `integers` when quantizes(), else `reals`; both [rows][channels].
  void run(const uint32_t* acc, const float* residual, int64_t rows, int32_t* integers, float* reals) const;

 private:
  int64_t channels_;
  EpilogueForm form_;
  std::vector<float> factor_;  // per channel
  std::vector<uint32_t> bias_;
};

// The integers of a quantized operand, zero point taken off: q - z, modulo 2^32.  channelOf maps an element's index to the index
// of its zero point; without it there is one.
std::vector<uint32_t> centred(const TensorRef& ref, const QuantParams& q, const std::function<int64_t(int64_t)>& channelOf = {});
std::vector<int32_t> quantized(const TensorRef& x, const QuantParams& q);
std::vector<float> dequantized(const TensorRef& ref, const QuantParams& q);  // per tensor
void storeIntegers(const TensorRef& out, const int32_t* values);             // into u8, s8, u16, s16, s32 and the 4-bit types

}  // namespace qc
