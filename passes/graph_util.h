// Small questions that several passes ask about a graph.
#pragma once

#include <optional>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar_expr.h"

namespace qc {

// The float constant behind a value, or null.
const Tensor* floatConstant(const Value* value);

// Of this dtype, and not quantized.
bool isPlain(const Value* v, DType dtype);

// The quantized value behind `v` when it comes from a dequantize, else null.
Value* quantizedSource(const Value* v);

// The real numbers of a constant vector: floats, or integers behind a dequantize.  Nothing for one that is computed.
std::optional<std::vector<float>> constantVector(const Value* value);

// The single value of a one-element constant of any dtype.
std::optional<double> scalarConstant(const Value* value);
bool isScalar(const Value* value, double expected, double tolerance = 0);
// One element, whatever the rank.
bool isSingle(const Value* value);

// A constant that broadcasts along one axis of `shape` only (sizes [.., C, .., 1]) or is a single value:
// its C values (C repeated when single).  Nothing otherwise.
std::optional<std::vector<float>> perChannelConstant(const Value* value, const Shape& shape, int axis);

// The single user of a value that is not a graph output, else null.
Node* onlyUser(const Value* value);

// Whether fused ops can round to these integers: they multiply by the reciprocal of the scale, which for the smallest denormals is no
// number.  A quantize of its own divides.
bool hasReciprocal(const QuantParams& q);

// A map with this formula over the operands.
Result<Value*> mapped(Builder& b, const ScalarExpr& formula, std::vector<Value*> operands);

// x as integers of these parameters: itself where they are its own.
Result<Value*> requantized(Builder& b, Value* x, const QuantPtr& to);

// Where the channel dim of a spatial op's tensor stands: 1, or the last for layout="channels_last".
int channelAxis(const Node& spatial);

}  // namespace qc
