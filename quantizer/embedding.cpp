#include "quantizer/embedding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "ir/qmath.h"
#include "ir/tensor.h"

namespace qc {
namespace {

Status checkTable(std::span<const float> weight, int64_t rows, int64_t columns, int bits) {
  if (bits != 8 && bits != 4 && bits != 2) return fail(ErrorCode::kUnsupported, "embedding rows of {} bits", bits);
  if (rows < 0 || columns < 1 || static_cast<int64_t>(weight.size()) != rows * columns)
    return fail(ErrorCode::kInvalidArgument, "{} values are not {} rows of {}", weight.size(), rows, columns);
  if (columns % (8 / bits) != 0)
    return fail(ErrorCode::kUnsupported, "{} columns of {} bits do not fill whole bytes", columns, bits).help("pad the rows or use 8 bits");
  if (minMaxOf(weight).nonFinite > 0) return fail(ErrorCode::kInvalidData, "an embedding table holds values that are not finite");
  return {};
}

struct RowCode {
  float scale, bias;
};

void storeTail(uint8_t* tail, int bits, RowCode code) {
  if (bits == 8) {
    std::memcpy(tail, &code.scale, 4);
    std::memcpy(tail + 4, &code.bias, 4);
  } else {
    const uint16_t scale = floatToHalf(code.scale), bias = floatToHalf(code.bias);
    std::memcpy(tail, &scale, 2);
    std::memcpy(tail + 2, &bias, 2);
  }
}

RowCode loadTail(const uint8_t* tail, int bits) {
  if (bits == 8) {
    RowCode code{};
    std::memcpy(&code.scale, tail, 4);
    std::memcpy(&code.bias, tail + 4, 4);
    return code;
  }
  uint16_t scale = 0, bias = 0;
  std::memcpy(&scale, tail, 2);
  std::memcpy(&bias, tail + 2, 2);
  return {halfToFloat(scale), halfToFloat(bias)};
}

void put(uint8_t* row, int64_t column, int bits, int32_t q) {
  const int perByte = 8 / bits;
  row[column / perByte] |= static_cast<uint8_t>(q << (column % perByte * bits));
}

float roundToHalf(float v) { return halfToFloat(floatToHalf(v)); }

// Squared error of a row quantized to `levels` steps over [min, max].
double lossOf(std::span<const float> row, float min, float max, int levels) {
  const float range = max - min;
  const float scale = range == 0 ? 1.0f : roundToHalf(range / static_cast<float>(levels));
  const float low = roundToHalf(min), inverse = scale == 0 ? 0.0f : 1.0f / scale;
  double loss = 0;
  for (const float x : row) {
    const float q = std::clamp(qmath::rne((x - low) * inverse), 0.0f, static_cast<float>(levels));
    const double d = x - std::fma(q, scale, low);
    loss += d * d;
  }
  return loss;
}

}  // namespace

int64_t PackedRows::rowBytes() const { return (columns * bits + 7) / 8 + (bits == 8 ? 8 : 4); }

int32_t quantizeFloatZero(float x, const FloatQParams& q, int32_t qmin, int32_t qmax) {
  const float inverse = q.scale == 0 ? 1.0f : 1.0f / q.scale;
  return qmath::roundClamp(x * inverse + q.zeroPoint, 0, qmin, qmax);
}

Result<PackedRows> packRows(std::span<const float> weight, int64_t rows, int64_t columns, int bits) {
  QC_TRY(checkTable(weight, rows, columns, bits));
  PackedRows table{bits, rows, columns, {}};
  table.bytes.assign(usize(rows * table.rowBytes()), 0);
  const int levels = (1 << bits) - 1;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = weight.subspan(usize(r * columns), usize(columns));
    uint8_t* out = table.bytes.data() + r * table.rowBytes();
    const MinMax m = minMaxOf(row);
    if (bits == 8) {
      const float range = m.max - m.min, inverse = 255.0f / (range + 1e-8f);
      for (int64_t c = 0; c < columns; ++c) put(out, c, bits, qmath::roundClamp((nth(row, c) - m.min) * inverse, 0, 0, levels));
      storeTail(out + columns, bits, {range / 255.0f, m.min});
      continue;
    }
    const float low = roundToHalf(m.min), range = m.max - low;
    float scale = range == 0 ? 1.0f : roundToHalf(range / static_cast<float>(levels));
    if (scale == 0 || std::isinf(1.0f / scale)) scale = 1.0f;
    const float inverse = 1.0f / scale;
    for (int64_t c = 0; c < columns; ++c) put(out, c, bits, qmath::roundClamp((nth(row, c) - low) * inverse, 0, 0, levels));
    storeTail(out + columns * bits / 8, bits, {scale, low});
  }
  return table;
}

Result<PackedRows> packRows(std::span<const float> weight, int64_t rows, int64_t columns, int bits, std::span<const FloatQParams> params) {
  QC_TRY(checkTable(weight, rows, columns, bits));
  if (static_cast<int64_t>(params.size()) != rows)
    return fail(ErrorCode::kInvalidArgument, "{} parameters for {} rows", params.size(), rows);
  PackedRows table{bits, rows, columns, {}};
  table.bytes.assign(usize(rows * table.rowBytes()), 0);
  for (int64_t r = 0; r < rows; ++r) {
    const FloatQParams& q = nth(params, r);
    uint8_t* out = table.bytes.data() + r * table.rowBytes();
    for (int64_t c = 0; c < columns; ++c) put(out, c, bits, quantizeFloatZero(nth(weight, r * columns + c), q, 0, (1 << bits) - 1));
    storeTail(out + columns * bits / 8, bits, {q.scale, -q.zeroPoint * q.scale});
  }
  return table;
}

std::vector<float> unpackRow(const PackedRows& table, int64_t row) {
  QC_REQUIRE("unpackRow", row >= 0 && row < table.rows, "row {} of {}", row, table.rows);
  const uint8_t* in = table.bytes.data() + row * table.rowBytes();
  const RowCode code = loadTail(in + table.columns * table.bits / 8, table.bits);
  const int perByte = 8 / table.bits;
  std::vector<float> values;
  for (int64_t c = 0; c < table.columns; ++c) {
    const int q = (in[c / perByte] >> (c % perByte * table.bits)) & ((1 << table.bits) - 1);
    values.push_back(std::fma(static_cast<float>(q), code.scale, code.bias));
  }
  return values;
}

Result<std::vector<float>> sumBags(const PackedRows& table, std::span<const int64_t> indices, std::span<const int64_t> offsets,
                                   std::span<const float> weights) {
  if (!weights.empty() && weights.size() != indices.size())
    return fail(ErrorCode::kInvalidArgument, "{} weights for {} indices", weights.size(), indices.size());
  std::vector<float> sums(offsets.size() * usize(table.columns), 0.0f);
  for (size_t bag = 0; bag < offsets.size(); ++bag) {
    const int64_t end = bag + 1 < offsets.size() ? offsets[bag + 1] : static_cast<int64_t>(indices.size());
    if (offsets[bag] < 0 || offsets[bag] > end || end > static_cast<int64_t>(indices.size()))
      return fail(ErrorCode::kInvalidData, "bag {} covers indices {} to {} of {}", bag, offsets[bag], end, indices.size());
    for (int64_t i = offsets[bag]; i < end; ++i) {
      const int64_t row = nth(indices, i);
      if (row < 0 || row >= table.rows) return fail(ErrorCode::kInvalidData, "index {} of a table of {} rows", row, table.rows);
      const std::vector<float> values = unpackRow(table, row);
      const float w = weights.empty() ? 1.0f : nth(weights, i);
      for (size_t c = 0; c < values.size(); ++c) sums[bag * values.size() + c] += w * values[c];
    }
  }
  return sums;
}

ValueRange narrowedRange(std::span<const float> row, int bits, int bins, double ratio) {
  const MinMax m = minMaxOf(row);
  if (m.finite == 0) return {};
  const int levels = (1 << bits) - 1;
  const float step = (m.max - m.min) / static_cast<float>(bins);
  const auto fewest = static_cast<float>(std::floor(bins * (1.0 - ratio)));  // steps that the range keeps
  ValueRange best{m.min, m.max}, now = best;
  double least = lossOf(row, now.min, now.max, levels), loss = least;
  while (step > 0 && now.min + fewest * step < now.max) {
    const double fromLeft = lossOf(row, now.min + step, now.max, levels), fromRight = lossOf(row, now.min, now.max - step, levels);
    const bool left = fromLeft < fromRight;
    // A rise behind a low that nothing before undercut: remember the low.
    if (std::min(fromLeft, fromRight) > loss && loss < least) {
      least = loss;
      best = now;
    }
    loss = left ? fromLeft : fromRight;
    (left ? now.min : now.max) += left ? step : -step;
  }
  return best;
}

}  // namespace qc
