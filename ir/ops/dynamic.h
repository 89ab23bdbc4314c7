// Quantization with parameters found at run time, for the ops that quantize their own input or take integers with computed
// parameters: dynamic_qparams, q.dynamic_linear, q.dynamic_conv, q.dynamic_lstm / gru / rnn.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ir/op_def.h"

namespace qc {

// The integers to use and how their parameters follow from a range.
struct DynamicRange {
  DType storage = DType::u8;
  int32_t qmin = 0, qmax = 255;
  bool symmetric = false;
  float eps = 0;  // smallest scale
};
struct DynamicParams {
  float scale = 1;
  int32_t zeroPoint = 0;
};

// lo = min(0, x...), hi = max(0, x...) over the finite elements, then, in float32 (spec section 1.3; with eps = 0 and u8 this is ONNX's
// DynamicQuantizeLinear):
//   affine     s = max((hi - lo) / (qmax - qmin), eps);  z = clamp(qmin - rne(lo / s), qmin, qmax)
//   symmetric  s = max(max(-lo, hi) / ((qmax - qmin) / 2), eps);  z = 0, or (qmin + qmax + 1) / 2 unsigned
// A scale of 0 (eps = 0, nothing but zeros) becomes 1.
DynamicParams dynamicParams(std::span<const float> x, const DynamicRange& range);

// storage is an integer type of at most 16 bits that holds qmin..qmax, a range around 0.
Status requireIntegerRange(const InferContext& c);
// The attributes storage, qmin, qmax, scheme, eps: declared, checked, read.
std::vector<AttrSpec> dynamicRangeAttrs();
Status requireDynamicRange(const InferContext& c);
DynamicRange dynamicRangeOf(const AttrDict& attrs);

// Whether the integers are those of ONNX's DynamicQuantizeLinear: all of u8, affine, one set of parameters.  It has no smallest scale.
bool isStandardRange(const AttrDict& attrs);
// Whether a recurrent layer that quantizes at run time stays one in an ONNX file.
bool isPortableRecurrence(const Node& node);

// "tensor": one set of parameters; "token": one for every row of the last dim.
AttrSpec granularityAttr();
Status requireGranularity(const InferContext& c);

// A linear layer of `depth` terms over integers that are not constant: |q - z| is at most the width of the storage type.
Status requireDynamicSums(const InferContext& c, DType x, const QuantParams& w, int64_t depth);

// Weights [directions, rows, depth] of a recurrent layer, quantized per row: which of the parameters a row has.
int64_t rowParameter(const QuantParams& q, int64_t direction, int64_t row, int64_t rows);

void registerDynamicOps(OpRegistry& registry);           // called by registerQuantOps
void registerDynamicRecurrentOps(OpRegistry& registry);  // called by registerRecurrentOps

}  // namespace qc
