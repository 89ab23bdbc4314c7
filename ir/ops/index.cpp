// Ops that move elements by integer indices: gather, gather_elements, gather_nd, scatter_elements, scatter_nd, one_hot, trilu,
// reverse_sequence.
// Negative indices count from the end.  An index outside is an error of the data, found when it is read.
// Tests: tests/unit/index_ops_test.cpp.
#include <algorithm>
#include <cstring>
#include <functional>
#include <type_traits>

#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/convert.h"
#include "ir/ops/gradients.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/strided_copy.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Status requireIndices(const InferContext& c, int operand) {
  const DType d = c.type(operand).dtype;
  if ((d == DType::s32 || d == DType::s64) && !c.type(operand).isQuantized()) return {};
  return fail(ErrorCode::kInvalidModel, "{}: {} must be s32 or s64", c.op, describe(c, operand));
}

Status requireMovable(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (!t.isQuantized() || !t.quant->perChannel()) return {};
  return fail(ErrorCode::kUnsupported, "{}: {} is quantized per channel", c.op, describe(c, operand));
}

// Elements of one operand are put among those of another: same dtype and, where quantized, same parameters.
Status requireSameElements(const InferContext& c, int operand, int as) {
  const TensorType &t = c.type(operand), &other = c.type(as);
  if (t.dtype == other.dtype && QuantAttr{t.quant} == QuantAttr{other.quant}) return {};
  return fail(ErrorCode::kInvalidModel, "{}: {} goes into {}, which is of another element type", c.op, describe(c, operand),
              describe(c, as));
}

Result<int64_t> checkedIndex(const TensorRef& indices, int64_t i, int64_t dim) {
  const int64_t raw = indices.dtype == DType::s64 ? indices.as<int64_t>()[i] : indices.as<int32_t>()[i];
  const int64_t index = raw < 0 ? raw + dim : raw;
  if (index < 0 || index >= dim) return fail(ErrorCode::kInvalidData, "index {} is outside a dim of {}", raw, dim);
  return index;
}

int64_t product(std::span<const int64_t> sizes, size_t begin, size_t end) {
  int64_t n = 1;
  for (size_t i = begin; i < end; ++i) n *= sizes[i];
  return n;
}

// ---- gather -----------------------------------------------------------------------------------

Result<Types> inferGather(const InferContext& c) {
  QC_TRY(requireIndices(c, 1));
  QC_TRY(requireMovable(c, 0));
  QC_TRY(requireAxis(c, "axis", c.type(0).rank()));
  const auto axis = static_cast<ptrdiff_t>(c.attrs.integer("axis"));
  Shape shape(c.type(0).shape.begin(), c.type(0).shape.begin() + axis);
  shape.insert(shape.end(), c.type(1).shape.begin(), c.type(1).shape.end());
  shape.insert(shape.end(), c.type(0).shape.begin() + axis + 1, c.type(0).shape.end());
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

Status evalGather(const EvalContext& c) {
  const auto axis = usize(c.node.integer("axis"));
  const TensorRef& x = c.in(0);
  const int64_t dim = x.sizes[axis], outer = product(x.sizes, 0, axis), count = c.in(1).numElements();
  const int64_t run = product(x.sizes, axis + 1, x.sizes.size()) * sizeOf(x.dtype);
  const char* from = x.as<const char>();
  char* to = c.out().as<char>();
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t i = 0; i < count; ++i, to += run) {
      QC_ASSIGN(const int64_t index, checkedIndex(c.in(1), i, dim));
      std::memcpy(to, from + (o * dim + index) * run, usize(run));
    }
  return {};
}

// ---- gather_elements, scatter_elements --------------------------------------------------------

Result<Types> inferGatherElements(const InferContext& c) {
  QC_TRY(requireIndices(c, 1));
  QC_TRY(requireMovable(c, 0));
  QC_TRY(requireAxis(c, "axis", c.type(0).rank()));
  QC_TRY(requireRank(c, 1, c.type(0).rank(), c.type(0).rank()));
  for (size_t d = 0; d < c.type(0).shape.size(); ++d) {
    const Dim x = c.type(0).shape[d], i = c.type(1).shape[d];
    if (static_cast<int64_t>(d) != c.attrs.integer("axis") && x.isStatic() && i.isStatic() && i.size() > x.size())
      return fail(ErrorCode::kInvalidModel, "{}: {} reaches outside {}", c.op, describe(c, 1), describe(c, 0));
  }
  return Types{c.type(0).withShape(c.type(1).shape)};
}

// Calls visit(position among the indices, element offset in x) for every index.
Status forEachElement(const EvalContext& c, const std::function<void(int64_t, int64_t)>& visit) {
  const Ints strides = denseStrides(sizesOf(c.in(0))), sizes = sizesOf(c.in(1));
  const auto axis = usize(c.node.integer("axis"));
  Ints at(sizes.size(), 0);
  const int64_t n = numElements(sizes);
  for (int64_t i = 0; i < n; ++i) {
    QC_ASSIGN(const int64_t index, checkedIndex(c.in(1), i, c.in(0).sizes[axis]));
    int64_t offset = 0;
    for (size_t d = 0; d < at.size(); ++d) offset += strides[d] * (d == axis ? index : at[d]);
    visit(i, offset);
    for (size_t d = at.size(); d-- > 0;) {
      if (++at[d] < sizes[d]) break;
      at[d] = 0;
    }
  }
  return {};
}

Status evalGatherElements(const EvalContext& c) {
  const auto bytes = usize(sizeOf(c.in(0).dtype));
  return forEachElement(c, [&](int64_t i, int64_t offset) {
    std::memcpy(c.out().as<char>() + i * static_cast<int64_t>(bytes), c.in(0).as<char>() + offset * static_cast<int64_t>(bytes), bytes);
  });
}

Status requireReduction(const InferContext& c) {
  QC_TRY(requireOneOf(c, "reduction", {"none", "add", "mul", "max", "min"}));
  if (c.attrs.string("reduction") != "none" && c.type(0).isQuantized())
    return fail(ErrorCode::kUnsupported, "{} with a reduction on quantized data", c.op);
  return {};
}

Result<Types> inferScatterElements(const InferContext& c) {
  QC_TRY(inferGatherElements(c));
  QC_TRY(requireReduction(c));
  QC_TRY(requireShape(c, 2, c.type(1).shape));
  QC_TRY(requireSameElements(c, 2, 0));
  return Types{c.type(0)};
}

// y[at] and updates[from] in the arithmetic of their dtype: float32, double or wrapping 64-bit integers.
void combine(const TensorRef& y, int64_t at, const TensorRef& updates, int64_t from, const std::string& reduction) {
  withArithmetic(y.dtype, [&]<class T>() {
    // Unsigned, so that an overflow wraps.
    using Wrapping = std::conditional_t<std::is_same_v<T, int64_t>, uint64_t, T>;
    T a{}, b{};
    loadElements<T>(y.dtype, y.data, at, 1, 1, &a);
    loadElements<T>(updates.dtype, updates.data, from, 1, 1, &b);
    if (reduction == "add") a = static_cast<T>(static_cast<Wrapping>(a) + static_cast<Wrapping>(b));
    if (reduction == "mul") a = static_cast<T>(static_cast<Wrapping>(a) * static_cast<Wrapping>(b));
    if (reduction == "max") a = std::max(a, b);
    if (reduction == "min") a = std::min(a, b);
    storeElements<T>(y.dtype, &a, y.data, at, 1);
  });
}

Status evalScatterElements(const EvalContext& c) {
  const auto bytes = usize(sizeOf(c.in(0).dtype));
  const std::string& reduction = c.node.string("reduction");
  std::memcpy(c.out().data, c.in(0).data, usize(c.in(0).numElements()) * bytes);
  return forEachElement(c, [&](int64_t i, int64_t offset) {
    if (reduction != "none") return combine(c.out(), offset, c.in(2), i, reduction);
    std::memcpy(c.out().as<char>() + offset * static_cast<int64_t>(bytes), c.in(2).as<char>() + i * static_cast<int64_t>(bytes), bytes);
  });
}

// ---- gather_nd, scatter_nd --------------------------------------------------------------------

// The last dim of `indices` addresses the first dims of x (after batch dims); what is left of x is one slice.
Result<int64_t> indexDepth(const InferContext& c, int64_t batch) {
  QC_TRY(requireIndices(c, 1));
  QC_TRY(requireMovable(c, 0));
  QC_TRY(requireRank(c, 1, 1));
  const Dim depth = c.type(1).shape.back();
  if (!depth.isStatic()) return fail(ErrorCode::kUnsupported, "{}: the last dim of {} is unknown", c.op, describe(c, 1));
  if (batch < 0 || batch >= c.type(1).rank() || depth.size() < 1 || batch + depth.size() > c.type(0).rank())
    return fail(ErrorCode::kInvalidModel, "{}: {} cannot address {}", c.op, describe(c, 1), describe(c, 0));
  return depth.size();
}

Result<Types> inferGatherNd(const InferContext& c) {
  const int64_t batch = c.attrs.integer("batch_dims");
  QC_ASSIGN(const int64_t depth, indexDepth(c, batch));
  for (size_t d = 0; d < usize(batch); ++d)
    if (!compatible(c.type(0).shape[d], c.type(1).shape[d]))
      return fail(ErrorCode::kInvalidModel, "gather_nd: {} and {} differ in batch dim {}", describe(c, 0), describe(c, 1), d);
  Shape shape(c.type(1).shape.begin(), c.type(1).shape.end() - 1);
  shape.insert(shape.end(), c.type(0).shape.begin() + batch + depth, c.type(0).shape.end());
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

// Calls visit(which slice of the indices, byte offset of the slice in x, bytes of a slice).
Status forEachSlice(const EvalContext& c, int64_t batch, const std::function<void(int64_t, int64_t, int64_t)>& visit) {
  const TensorRef& x = c.in(0);
  const TensorRef& indices = c.in(1);
  const int64_t depth = indices.sizes.back(), slices = indices.numElements() / std::max<int64_t>(depth, 1);
  const auto b = usize(batch);
  const int64_t batches = product(x.sizes, 0, b), perBatch = std::max<int64_t>(slices / std::max<int64_t>(batches, 1), 1);
  const int64_t run = product(x.sizes, b + usize(depth), x.sizes.size()) * sizeOf(x.dtype);
  for (int64_t s = 0; s < slices; ++s) {
    int64_t offset = batches > 1 ? s / perBatch : 0;
    for (int64_t d = 0; d < depth; ++d) {
      const int64_t dim = x.sizes[b + usize(d)];
      QC_ASSIGN(const int64_t index, checkedIndex(indices, s * depth + d, dim));
      offset = offset * dim + index;
    }
    visit(s, offset * run, run);
  }
  return {};
}

Status evalGatherNd(const EvalContext& c) {
  return forEachSlice(c, c.node.integer("batch_dims"), [&](int64_t s, int64_t offset, int64_t run) {
    std::memcpy(c.out().as<char>() + s * run, c.in(0).as<char>() + offset, usize(run));
  });
}

Result<Types> inferScatterNd(const InferContext& c) {
  QC_ASSIGN(const int64_t depth, indexDepth(c, 0));
  QC_TRY(requireReduction(c));
  Shape expected(c.type(1).shape.begin(), c.type(1).shape.end() - 1);
  expected.insert(expected.end(), c.type(0).shape.begin() + depth, c.type(0).shape.end());
  QC_TRY(requireShape(c, 2, expected));
  QC_TRY(requireSameElements(c, 2, 0));
  return Types{c.type(0)};
}

Status evalScatterNd(const EvalContext& c) {
  const std::string& reduction = c.node.string("reduction");
  const int64_t bytes = sizeOf(c.in(0).dtype);
  std::memcpy(c.out().data, c.in(0).data, usize(c.in(0).numElements() * bytes));
  return forEachSlice(c, 0, [&](int64_t s, int64_t offset, int64_t run) {
    if (reduction == "none") {
      std::memcpy(c.out().as<char>() + offset, c.in(2).as<char>() + s * run, usize(run));
      return;
    }
    for (int64_t i = 0; i < run / bytes; ++i) combine(c.out(), offset / bytes + i, c.in(2), s * run / bytes + i, reduction);
  });
}

// ---- one_hot, trilu ---------------------------------------------------------------------------

Result<Types> inferOneHot(const InferContext& c) {
  const int64_t depth = c.attrs.integer("depth");
  if (depth < 0 || depth > (int64_t{1} << 32)) return fail(ErrorCode::kInvalidModel, "one_hot of depth {}", depth);
  QC_TRY(requireAxis(c, "axis", c.type(0).rank() + 1));
  QC_TRY(requireVector(c, 1, 2));
  Shape shape = c.type(0).shape;
  shape.insert(shape.begin() + c.attrs.integer("axis"), depth);
  return checkedResults({c.type(1).withShape(std::move(shape))});
}

Status evalOneHot(const EvalContext& c) {
  const int64_t depth = c.node.integer("depth"), bytes = sizeOf(c.in(1).dtype);
  const auto axis = usize(c.node.integer("axis"));
  const int64_t inner = product(c.in(0).sizes, axis, c.in(0).sizes.size()), n = c.out().numElements();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t d = i / inner % depth, source = i / (inner * depth) * inner + i % inner;
    const double index = loadElement(c.in(0).dtype, c.in(0).data, source);
    const bool on = static_cast<double>(d) == (index < 0 ? index + static_cast<double>(depth) : index);
    std::memcpy(c.out().as<char>() + i * bytes, c.in(1).as<char>() + (on ? bytes : 0), usize(bytes));
  }
  return {};
}

Result<Types> inferTrilu(const InferContext& c) {
  QC_TRY(requireRank(c, 0, 2));
  if (c.type(0).isQuantized()) return fail(ErrorCode::kUnsupported, "trilu on quantized data");
  return Types{c.type(0)};
}

Status evalTrilu(const EvalContext& c) {
  const TensorRef& x = c.in(0);
  const bool upper = c.node.integer("upper") != 0;
  const int64_t rows = x.sizes[x.sizes.size() - 2], columns = x.sizes.back(), bytes = sizeOf(x.dtype);
  const int64_t k = std::clamp(c.node.integer("k"), -rows, columns);  // beyond, all or nothing is kept
  const int64_t n = x.numElements();
  std::memset(c.out().data, 0, usize(n * bytes));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t column = i % columns, row = i / columns % rows;
    const bool kept = upper ? column - k >= row : column - k <= row;
    if (kept) std::memcpy(c.out().as<char>() + i * bytes, x.as<char>() + i * bytes, usize(bytes));
  }
  return {};
}

// ---- reverse_sequence -------------------------------------------------------------------------

Result<Types> inferReverseSequence(const InferContext& c) {
  QC_TRY(requireIndices(c, 1));
  QC_TRY(requireMovable(c, 0));
  QC_TRY(requireRank(c, 0, 2));
  const int64_t batch = c.attrs.integer("batch_axis"), time = c.attrs.integer("time_axis");
  // The text of ONNX fixes them as the first two dims.
  if (!(batch == 0 && time == 1) && !(batch == 1 && time == 0))
    return fail(ErrorCode::kInvalidModel, "reverse_sequence: batch_axis={} and time_axis={} are not 0 and 1", batch, time);
  QC_TRY(requireVector(c, 1, nth(c.type(0).shape, batch)));
  return Types{c.type(0)};
}

Status evalReverseSequence(const EvalContext& c) {
  const TensorRef& x = c.in(0);
  const bool batchFirst = c.node.integer("batch_axis") == 0;
  const int64_t batches = x.sizes[batchFirst ? 0 : 1], steps = x.sizes[batchFirst ? 1 : 0];
  const int64_t run = product(x.sizes, 2, x.sizes.size()) * sizeOf(x.dtype);
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t length = c.in(1).dtype == DType::s64 ? c.in(1).as<int64_t>()[b] : c.in(1).as<int32_t>()[b];
    if (length < 0 || length > steps)
      return fail(ErrorCode::kInvalidData, "a sequence length of {} for batch {}, there are {} steps", length, b, steps);
    const auto place = [&](int64_t t) { return (batchFirst ? b * steps + t : t * batches + b) * run; };
    for (int64_t t = 0; t < steps; ++t)
      std::memcpy(c.out().as<char>() + place(t), x.as<const char>() + place(t < length ? length - 1 - t : t), usize(run));
  }
  return {};
}

}  // namespace

void registerIndexOps(OpRegistry& r) {
  const OperandSpec indices{"indices"}, x{"x"}, updates{"updates"};
  r.add({.name = "gather",
         .summary = "slices of x by index along an axis",
         .operands = {{.name = "x", .weight = WeightAxes{0, 1}}, indices},  // an embedding's table
         .attrs = {axisAttr()},
         .traits = kMove,
         .infer = inferGather,
         .eval = evalGather,
         .scalar = {},
         .gradient = gatherGradient,
         .batch = batchOfGather});
  r.add({.name = "gather_elements",
         .summary = "one element per index along an axis",
         .operands = {x, indices},
         .attrs = {axisAttr()},
         .traits = kMove,
         .infer = inferGatherElements,
         .eval = evalGatherElements,
         .scalar = {},
         .gradient = gatherElementsGradient,
         .batch = batchBesideAxis});
  r.add({.name = "gather_nd",
         .summary = "slices of x by tuples of indices",
         .operands = {x, indices},
         .attrs = {integerAttr("batch_dims", 0)},
         .traits = kMove,
         .infer = inferGatherNd,
         .eval = evalGatherNd,
         .scalar = {},
         .gradient = gatherNdGradient,
         .batch = batchOfGatherNd});
  r.add({.name = "scatter_elements",
         .summary = "x with one element per index replaced",
         .operands = {x, indices, updates},
         .attrs = {axisAttr(), stringAttr("reduction", "none")},
         .infer = inferScatterElements,
         .eval = evalScatterElements,
         .scalar = {},
         .gradient = scatterElementsGradient,
         .batch = batchBesideAxis});
  r.add({.name = "scatter_nd",
         .summary = "x with slices replaced by tuples of indices",
         .operands = {x, indices, updates},
         .attrs = {stringAttr("reduction", "none")},
         .infer = inferScatterNd,
         .eval = evalScatterNd,
         .scalar = {},
         .gradient = scatterNdGradient,
         .batch = batchOfScatterNd});
  r.add({.name = "one_hot",
         .summary = "values[1] at the index, values[0] elsewhere",
         .operands = {indices, {"values"}},
         .attrs = {integerAttr("axis"), integerAttr("depth")},  // an axis of the result
         .infer = inferOneHot,
         .eval = evalOneHot,
         .scalar = {},
         .gradient = oneHotGradient,
         .batch = batchOfOneHot});
  r.add({.name = "trilu",
         .summary = "upper or lower triangle",
         .operands = {x},
         .attrs = {integerAttr("upper", 1), integerAttr("k", 0)},
         .infer = inferTrilu,
         .eval = evalTrilu,
         .scalar = {},
         .gradient = triluGradient,
         .batch = batchOfMatrices});
  r.add({.name = "reverse_sequence",
         .summary = "the first lens[b] steps of each batch entry backwards",
         .operands = {x, {"lens"}},
         .attrs = {axisAttr("batch_axis"), axisAttr("time_axis")},
         .traits = kMove,
         .infer = inferReverseSequence,
         .eval = evalReverseSequence,
         .scalar = {},
         .gradient = reverseSequenceGradient,
         .batch = batchOfReverseSequence});
}

}  // namespace qc
