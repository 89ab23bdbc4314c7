// Integer weights under float arithmetic, kept packed while the model runs.
//   q.weight_linear x, w, scale, zero_point?, bias?   = linear(x, dequantize(w), bias), bit for bit
//   q.embedding w, scale, zero_point?, indices        = gather(dequantize(w), indices) along rows
// w is s8 or u8 [rows, columns], or with bits=4 u8 [rows, ceil(columns / 2)]: two weights to a byte, the first in the low half, signed or
// not (signed=1).  Row r has its own scales, one for every `group` columns: scale f32 [rows, ceil(columns / group)], zero_point s32
// likewise. Tests: tests/unit/packed_weights_test.cpp.
#include "ir/ops/packed_weights.h"

#include <algorithm>

#include "ir/ops/batches.h"
#include "ir/ops/gemm.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/products.h"
#include "ir/qmath.h"

namespace qc {
namespace {

struct LinearOperand {
  enum : int { x, w, scale, zeroPoint, bias };
};
enum EmbeddingOperand { kTable, kTableScale, kTableZeroPoint, kIndices };

std::vector<AttrSpec> packedAttrs() {
  return {integerAttr("columns"), integerAttr("group"), integerAttr("bits", 8), integerAttr("signed", 1)};
}

// Checks weights, scales and zero points at operands w, w + 1, w + 2; gives the number of rows.
Result<int64_t> requirePacked(const InferContext& c, int w) {
  const int64_t columns = c.attrs.integer("columns"), group = c.attrs.integer("group"), bits = c.attrs.integer("bits");
  if (columns < 1 || group < 1 || group > columns || (bits != 4 && bits != 8))
    return fail(ErrorCode::kInvalidModel, "'{}': columns={}, group={}, bits={}", c.op, columns, group, bits);
  const TensorType& t = c.type(w);
  const DType expected = bits == 4 || !c.attrs.integer("signed") ? DType::u8 : DType::s8;
  QC_TRY(requireRank(c, w, 2, 2));
  if (t.isQuantized() || t.dtype != expected || !t.isStatic())
    return fail(ErrorCode::kInvalidModel, "'{}' takes weights of {}, got {}", c.op, toString(expected), describe(c, w));
  const int64_t rows = t.shape[0].size();
  QC_TRY(requireShape(c, w, {rows, bits == 4 ? columns / 2 + columns % 2 : columns}));
  const Shape sets{rows, columns / group + (columns % group != 0)};
  QC_TRY(requireShape(c, w + 1, sets));
  if (c.type(w + 1).isQuantized() || c.type(w + 1).dtype != DType::f32)
    return fail(ErrorCode::kInvalidModel, "'{}' takes f32 scales, got {}", c.op, describe(c, w + 1));
  if (!c.has(w + 2)) return rows;
  QC_TRY(requireShape(c, w + 2, sets));
  if (c.type(w + 2).isQuantized() || c.type(w + 2).dtype != DType::s32)
    return fail(ErrorCode::kInvalidModel, "'{}' takes s32 zero points, got {}", c.op, describe(c, w + 2));
  return rows;
}

Result<Types> inferPackedLinear(const InferContext& c) {
  QC_ASSIGN(const int64_t rows, requirePacked(c, LinearOperand::w));
  QC_TRY(requireRank(c, LinearOperand::x, 1));
  const TensorType& x = c.type(LinearOperand::x);
  if (x.isQuantized() || x.dtype != DType::f32)
    return fail(ErrorCode::kInvalidModel, "'{}' computes in f32, got {}", c.op, describe(c, LinearOperand::x));
  if (!compatible(x.shape.back(), Dim(c.attrs.integer("columns"))))
    return fail(ErrorCode::kInvalidModel, "'{}': rows of {} do not fit {} columns", c.op, describe(c, LinearOperand::x),
                c.attrs.integer("columns"));
  if (c.has(LinearOperand::bias)) {
    if (c.type(LinearOperand::bias).isQuantized() || c.type(LinearOperand::bias).dtype != DType::f32)
      return fail(ErrorCode::kInvalidModel, "'{}' takes an f32 bias, got {}", c.op, describe(c, LinearOperand::bias));
    QC_TRY(requireVector(c, LinearOperand::bias, rows));
  }
  Shape shape = x.shape;
  shape.back() = Dim(rows);
  return checkedResults({TensorType(DType::f32, std::move(shape))});
}

Result<Types> inferEmbedding(const InferContext& c) {
  QC_TRY(requirePacked(c, kTable));
  const TensorType& indices = c.type(kIndices);
  if (indices.isQuantized() || (indices.dtype != DType::s64 && indices.dtype != DType::s32))
    return fail(ErrorCode::kInvalidModel, "'{}' takes indices of s32 or s64, got {}", c.op, describe(c, kIndices));
  Shape shape = indices.shape;
  shape.emplace_back(c.attrs.integer("columns"));
  return checkedResults({TensorType(DType::f32, std::move(shape))});
}

// Rows of packed weights as floats.
class PackedRows {
 public:
  PackedRows(const EvalContext& c, int w)
      : columns_(c.node.integer("columns")),
        group_(c.node.integer("group")),
        half_(c.node.integer("bits") == 4),
        signed_(c.node.integer("signed") != 0),
        bytes_(c.in(w).as<uint8_t>()),
        stride_(c.in(w).sizes[1]),
        sets_(c.in(w + 1).sizes[1]),
        scale_(c.in(w + 1).as<float>()),
        zero_(c.has(w + 2) ? c.in(w + 2).as<int32_t>() : nullptr) {}
  int64_t columns() const { return columns_; }

  int32_t integer(int64_t row, int64_t k) const {
    const uint8_t byte = bytes_[row * stride_ + (half_ ? k / 2 : k)];
    if (!half_) return signed_ ? static_cast<int8_t>(byte) : byte;
    const int32_t v = k % 2 ? byte >> 4 : byte & 15;
    return signed_ && v > 7 ? v - 16 : v;
  }
  // The row to to[0], to[step], ...
  void read(int64_t row, float* to, int64_t step) const {
    for (int64_t s = 0; s < sets_; ++s) {
      const float scale = scale_[row * sets_ + s];
      const int32_t zero = zero_ ? zero_[row * sets_ + s] : 0;
      for (int64_t k = s * group_; k < std::min(columns_, (s + 1) * group_); ++k)
        to[k * step] = qmath::dequantize(integer(row, k), scale, zero);
    }
  }

 private:
  int64_t columns_, group_;
  bool half_, signed_;
  const uint8_t* bytes_;
  int64_t stride_, sets_;
  const float* scale_;
  const int32_t* zero_;
};

// A few rows of the weights at a time: their floats stay in the first cache.
Status evalPackedLinear(const EvalContext& c) {
  if (c.out().numElements() == 0) return {};
  const PackedRows weights(c, LinearOperand::w);
  const int64_t outputs = c.in(LinearOperand::w).sizes[0], depth = weights.columns(), rows = c.out().numElements() / outputs;
  constexpr int64_t kPanel = 16;
  std::vector<float> panel(usize(depth * kPanel));
  float* y = c.out().as<float>();
  std::fill_n(y, rows * outputs, 0.0f);
  for (int64_t first = 0; first < outputs; first += kPanel) {
    const int64_t count = std::min(kPanel, outputs - first);
    for (int64_t o = 0; o < count; ++o) weights.read(first + o, panel.data() + o, kPanel);
    ref::multiplyAdd<float>({c.in(LinearOperand::x).as<float>(), depth}, {panel.data(), kPanel}, {y + first, outputs},
                            {rows, count, depth});
  }
  if (!c.has(LinearOperand::bias)) return {};
  const float* bias = c.in(LinearOperand::bias).as<float>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) y[r * outputs + o] += bias[o];
  return {};
}

Status evalEmbedding(const EvalContext& c) {
  const PackedRows table(c, kTable);
  const int64_t rows = c.in(kTable).sizes[0], count = c.in(kIndices).numElements();
  const bool wide = c.in(kIndices).dtype == DType::s64;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t given = wide ? c.in(kIndices).as<int64_t>()[i] : c.in(kIndices).as<int32_t>()[i];
    const int64_t row = given < 0 ? given + rows : given;
    if (row < 0 || row >= rows) return fail(ErrorCode::kInvalidData, "index {} is outside the {} rows of the table", given, rows);
    table.read(row, c.out().as<float>() + i * table.columns(), 1);
  }
  return {};
}

}  // namespace

Result<PackedWeights> packWeights(const Tensor& w, const QuantParams& q) {
  const bool half = w.dtype() == DType::s4 || w.dtype() == DType::u4;
  const bool isSigned = w.dtype() == DType::s4 || w.dtype() == DType::s8;
  if (w.rank() != 2 || w.numElements() == 0 || (!half && w.dtype() != DType::s8 && w.dtype() != DType::u8) ||
      (q.perChannel() && q.axis != (q.blockSize ? 1 : 0)))
    return fail(ErrorCode::kUnsupported, "weights {} have no packed form", w.type().str());
  const int64_t rows = w.sizes()[0], columns = w.sizes()[1];
  PackedWeights p;
  p.columns = columns;
  p.group = q.blockSize ? std::min(q.blockSize, columns) : columns;
  p.bits = half ? 4 : 8;
  p.isSigned = isSigned;
  const int64_t sets = (columns + p.group - 1) / p.group;
  p.scale = Tensor(DType::f32, {rows, sets});
  p.zeroPoint = Tensor(DType::s32, {rows, sets});
  for (int64_t i = 0; i < rows * sets; ++i) {
    const int64_t from = q.blockSize ? i : q.perChannel() ? i / sets : 0;
    nth(p.scale.mutableAs<float>(), i) = q.scale(from);
    nth(p.zeroPoint.mutableAs<int32_t>(), i) = q.zeroPoint(from);
    p.hasZeroPoint = p.hasZeroPoint || q.zeroPoint(from) != 0;
  }
  if (!half) {
    p.weights = w;
    return p;
  }
  const int64_t stride = (columns + 1) / 2;
  p.weights = Tensor(DType::u8, {rows, stride});
  const auto* from = static_cast<const uint8_t*>(w.data());
  auto to = p.weights.mutableAs<uint8_t>();
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < columns; ++k) {
      uint8_t& byte = nth(to, r * stride + k / 2);
      byte = static_cast<uint8_t>(byte | (from[r * columns + k] & 15u) << (k % 2 * 4));
    }
  return p;
}

AttrDict PackedWeights::attrs() const {
  return {{"columns", columns}, {"group", group}, {"bits", int64_t{bits}}, {"signed", int64_t{isSigned}}};
}

void registerPackedWeightOps(OpRegistry& registry) {
  const OperandSpec w{.name = "w", .role = OperandRole::weight}, scale{.name = "scale", .role = OperandRole::parameter},
      zeroPoint{.name = "zero_point", .optional = true, .role = OperandRole::parameter},
      bias{.name = "bias", .optional = true, .role = OperandRole::bias};
  registry.add({.name = "q.weight_linear",
                .summary = "linear layer in float over packed integer weights",
                .operands = {{"x"}, w, scale, zeroPoint, bias},
                .attrs = packedAttrs(),
                .infer = inferPackedLinear,
                .eval = evalPackedLinear,
                .scalar = {},
                .batch = batchOfPackedLinear,
                .products = productsOfRows});
  registry.add({.name = "q.embedding",
                .summary = "rows of a packed integer table as floats",
                .operands = {{"w"}, scale, zeroPoint, {"indices"}},  // a table: nothing is multiplied by it
                .attrs = packedAttrs(),
                .infer = inferEmbedding,
                .eval = evalEmbedding,
                .scalar = {},
                .batch = batchOfPackedEmbedding});
}

}  // namespace qc
