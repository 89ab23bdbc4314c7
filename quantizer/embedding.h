// Rows of embedding tables as few bits with a scale and bias each, in the packed layout of FBGEMM and PyTorch:
//   8 bits     one byte per element, then float32 scale, float32 bias
//   4, 2 bits  several elements per byte, the first in the lowest bits, then float16 scale, float16 bias
// An element is fma(q, scale, bias).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ir/status.h"
#include "quantizer/observers/qparams.h"

namespace qc {

struct PackedRows {
  int bits = 8;
  int64_t rows = 0, columns = 0;
  std::vector<uint8_t> bytes;  // rows * rowBytes()
  int64_t rowBytes() const;
};

// Affine with a float zero point: q = clamp(lrint(f32(x * f32(1 / scale) + zeroPoint)), qmin, qmax); a scale of 0 counts as 1.
int32_t quantizeFloatZero(float x, const FloatQParams& q, int32_t qmin, int32_t qmax);

// Straight from floats: bias = the row's minimum, scale = its range / (2^bits - 1); for 4 and 2 bits both rounded to float16 first.
// Errors: bits other than 8, 4, 2; columns that do not fill bytes; values that are not finite.
Result<PackedRows> packRows(std::span<const float> weight, int64_t rows, int64_t columns, int bits);
// From observed parameters, one per row: bias = -zeroPoint * scale.
Result<PackedRows> packRows(std::span<const float> weight, int64_t rows, int64_t columns, int bits, std::span<const FloatQParams> params);

std::vector<float> unpackRow(const PackedRows& table, int64_t row);  // requires: a row of the table

// Sums of rows: bag i is of indices[offsets[i]] up to the next offset, each row times its weight (none: 1).
// Errors: indices or offsets outside.
Result<std::vector<float>> sumBags(const PackedRows& table, std::span<const int64_t> indices, std::span<const int64_t> offsets,
                                   std::span<const float> weights = {});

// A range narrower than the row's own with less squared error: greedy steps of 1 / bins of the range from either end.
ValueRange narrowedRange(std::span<const float> row, int bits, int bins = 200, double ratio = 0.16);

}  // namespace qc
