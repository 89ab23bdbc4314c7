#include "ir/ops/shape_types.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

#include "ir/batch_dims.h"
#include "ir/ops/infer_util.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Status requireStatic(const InferContext& c, int operand) {
  if (c.type(operand).isStatic()) return {};
  return fail(ErrorCode::kUnsupported, "{} has unknown dims", describe(c, operand)).help("bind symbolic dims with LoadOptions::shapes");
}

// Ops that cut the channel dim apart cannot keep one scale per channel.
Status requirePerTensor(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (!t.isQuantized() || !t.quant->perChannel()) return {};
  return fail(ErrorCode::kUnsupported, "{} of {} is quantized per channel", operandName(c, operand), c.op);
}

// Scales of blocks are laid out along with the dims, so the dims must stay where they are.
Status requireNoBlocks(const InferContext& c, int operand) {
  const TensorType& t = c.type(operand);
  if (!t.isQuantized() || t.quant->blockSize == 0) return {};
  return fail(ErrorCode::kUnsupported, "{} of {} is quantized in blocks", operandName(c, operand), c.op);
}

Status requireLength(const InferContext& c, std::string_view attr, size_t length) {
  const size_t given = c.attrs.dims(attr).size();
  if (given == length) return {};
  return fail(ErrorCode::kInvalidModel, "{}: `{}` has {} entries, {} expected for {}", c.op, attr, given, length,
              c.operands.empty() ? std::string() : describe(c, 0));
}

// The dims that an attribute gives for a result; no constant among them is negative.
Result<Shape> shapeOf(const InferContext& c, std::string_view attr) {
  Shape shape;
  for (const DimExpr& dim : c.attrs.dims(attr)) {
    const auto size = dim.constant();
    if (size && *size < 0) return fail(ErrorCode::kInvalidModel, "{}: `{}` holds {}", c.op, attr, *size);
    shape.emplace_back(dim);
  }
  return shape;
}

Result<Types> resultLike(const InferContext& c, Shape shape) {
  TensorType type = c.type(0).withShape(std::move(shape));
  return checkedResults({std::move(type)});
}

// The channel axis after a reshape that keeps that dim and what is around it, or -1.
int reshapedAxis(const Ints& from, const Ints& to, int axis) {
  const auto product = [](auto begin, auto end) { return std::accumulate(begin, end, int64_t{1}, std::multiplies<>()); };
  const int64_t outer = product(from.begin(), from.begin() + axis);
  for (size_t i = 0; i < to.size(); ++i)
    if (to[i] == nth(from, axis) && product(to.begin(), to.begin() + static_cast<ptrdiff_t>(i)) == outer) return static_cast<int>(i);
  return -1;
}

// Parameters in blocks stand in an order of their own, that of a tensor with one element per block.
void permuteBlocks(QuantParams& q, std::vector<int64_t> sizes, const Ints& perm) {
  int64_t& blocked = nth(sizes, q.axis);
  blocked = (blocked + q.blockSize - 1) / q.blockSize;
  Ints strides(sizes.size(), 1), from;
  for (size_t d = sizes.size() - 1; d > 0; --d) strides[d - 1] = strides[d] * sizes[d];
  for (int64_t i = 0; i < numElements(sizes); ++i) {
    int64_t rest = i, source = 0;
    for (size_t d = perm.size(); d-- > 0;) {
      const auto p = usize(perm[d]);
      source += rest % sizes[p] * strides[p];
      rest /= sizes[p];
    }
    from.push_back(source);
  }
  const auto permuted = [&](auto& values) {
    if (values.size() == 1) return;
    auto copy = values;
    for (size_t i = 0; i < from.size(); ++i) values[i] = nth(copy, from[i]);
  };
  permuted(q.scales);
  permuted(q.zeroPoints);
}

}  // namespace

// ---- const ------------------------------------------------------------------------------------

Result<Types> inferConst(const InferContext&) { return fail(ErrorCode::kInternal, "a constant's type is given, not inferred"); }

// ---- dims -------------------------------------------------------------------------------------

Result<Types> inferDims(const InferContext& c) {
  const std::vector<DimExpr> values = c.attrs.dims("values");
  const Ints& shape = c.attrs.integers("shape");
  const DType dtype = c.attrs.dtype("dtype");
  const bool fine = std::all_of(shape.begin(), shape.end(), [](int64_t n) { return n >= 0; });
  if (!fine || numElements(shape) != std::ssize(values))
    return fail(ErrorCode::kInvalidModel, "dims: {} values in [{}]", values.size(), fmt::join(shape, ","));
  if (dtype != DType::s64 && dtype != DType::s32 && dtype != DType::f32 && dtype != DType::f64)
    return fail(ErrorCode::kInvalidModel, "dims of type {}", toString(dtype));
  return Types{TensorType(dtype, toShape(shape))};
}

Result<Types> inferReshape(const InferContext& c) {
  QC_ASSIGN(Shape shape, shapeOf(c, "shape"));
  const Shape& from = c.type(0).shape;
  size_t before = 0;  // dims in front that stay, and what was free still was; then those behind
  for (; before < std::min(shape.size(), from.size()) && shape[before] == from[before]; ++before) shape[before] = from[before];
  for (size_t i = 1; i <= std::min(shape.size(), from.size()) - before && shape[shape.size() - i] == from[from.size() - i]; ++i)
    shape[shape.size() - i] = from[from.size() - i];
  QC_ASSIGN(const int64_t wanted, checkedNumElements(shape, sizeOf(c.type(0).dtype)));
  QC_ASSIGN(const int64_t own, checkedNumElements(c.type(0).shape, sizeOf(c.type(0).dtype)));
  if (c.type(0).isStatic() && isStatic(shape) && own != wanted)
    return fail(ErrorCode::kInvalidModel, "reshape: {} has {} elements, [{}] has {}", describe(c, 0), own, toString(shape), wanted);
  TensorType type = c.type(0).withShape(shape);
  if (type.isQuantized() && type.quant->perChannel()) {
    QC_TRY(requireStatic(c, 0));
    QC_TRY(requireNoBlocks(c, 0));
    const int axis = isStatic(shape) ? reshapedAxis(c.type(0).sizes(), qc::sizesOf(shape), type.quant->axis) : -1;
    if (axis < 0) return fail(ErrorCode::kUnsupported, "reshape of {} cuts the dim that has one scale each", describe(c, 0));
    auto quant = std::make_shared<QuantParams>(*type.quant);
    quant->axis = axis;
    type.quant = std::move(quant);
  }
  return Types{std::move(type)};
}

Result<Types> inferTranspose(const InferContext& c) {
  const Ints& perm = c.attrs.integers("perm");
  const TensorType& x = c.type(0);
  QC_TRY(requireLength(c, "perm", x.shape.size()));
  Shape shape(perm.size());
  std::vector<bool> seen(perm.size());
  for (size_t i = 0; i < perm.size(); ++i) {
    if (perm[i] < 0 || perm[i] >= x.rank() || nth(seen, perm[i]))
      return fail(ErrorCode::kInvalidModel, "transpose: `perm` is not a permutation of {} dims", x.rank());
    nth(seen, perm[i]) = true;
    shape[i] = nth(x.shape, perm[i]);
  }
  TensorType type = x.withShape(std::move(shape));
  if (type.isQuantized() && type.quant->perChannel()) {
    auto quant = std::make_shared<QuantParams>(*type.quant);
    if (quant->blockSize) {
      if (!x.isStatic()) QC_TRY(requireNoBlocks(c, 0));
      permuteBlocks(*quant, x.sizes(), perm);
    }
    quant->axis = static_cast<int>(std::find(perm.begin(), perm.end(), quant->axis) - perm.begin());
    type.quant = std::move(quant);
  }
  return Types{std::move(type)};
}

// ---- concat, split ----------------------------------------------------------------------------

Result<Types> inferConcat(const InferContext& c) {
  if (c.operands.empty()) return fail(ErrorCode::kInvalidModel, "concat of nothing");
  const TensorType& first = c.type(0);
  QC_TRY(requireAxis(c, "axis", first.rank()));
  const auto axis = usize(c.attrs.integer("axis"));
  Shape shape = first.shape;
  DimExpr total = 0;
  bool wasFree = false;
  for (size_t i = 0; i < c.operands.size(); ++i) {
    const auto operand = static_cast<int>(i);
    if (!c.has(operand)) return fail(ErrorCode::kInvalidModel, "concat: operand {} is missing", i);
    const TensorType& t = c.type(operand);
    if (t.rank() != first.rank() || t.dtype != first.dtype || t.isQuantized() != first.isQuantized() ||
        (t.isQuantized() && !(*t.quant == *first.quant)))
      return fail(ErrorCode::kInvalidModel, "concat: operand {} is {}, the first is {}", i, t.str(), first.str());
    for (size_t d = 0; d < shape.size(); ++d)
      if (d != axis && !compatible(shape[d], t.shape[d]))
        return fail(ErrorCode::kInvalidModel, "concat along {}: operand {} is {}, the first is {}", axis, i, t.str(), first.str());
    const bool sizes = total.constant() && t.shape[axis].isStatic();
    total = total + t.shape[axis].expr();
    wasFree = wasFree || t.shape[axis].wasFree();
    if (sizes && total.isUnknown()) return fail(ErrorCode::kResource, "concat along {}: the sizes up to operand {} overflow", axis, i);
    for (size_t d = 0; d < shape.size(); ++d)
      if (d != axis && !shape[d].isStatic()) shape[d] = t.shape[d];
    QC_TRY(requirePerTensor(c, operand));
  }
  shape[axis] = wasFree && total.constant() ? Dim::bound(*total.constant()) : Dim(total);
  return resultLike(c, std::move(shape));
}

Result<Types> inferSplit(const InferContext& c) {
  const TensorType& x = c.type(0);
  QC_TRY(requireAxis(c, "axis", x.rank()));
  QC_TRY(requirePerTensor(c, 0));
  const auto axis = usize(c.attrs.integer("axis"));
  DimExpr total = 0;
  Types types;
  QC_ASSIGN(const Shape pieces, shapeOf(c, "sizes"));
  for (const Dim& piece : pieces) {
    total = total + piece.expr();
    if (isStatic(pieces) && total.isUnknown()) return fail(ErrorCode::kInvalidModel, "split: a piece of size {}", piece.str());
    Shape shape = x.shape;
    shape[axis] = piece.isStatic() ? sizedBy(x.shape[axis], piece.size()) : piece;
    types.push_back(x.withShape(std::move(shape)));
  }
  if (types.empty()) return fail(ErrorCode::kInvalidModel, "split into nothing");
  if (x.shape[axis].isStatic() && total.constant() && x.shape[axis].size() != *total.constant())
    return fail(ErrorCode::kInvalidModel, "split: the pieces add up to {}, dim {} of {} is not that", total.str(), axis, describe(c, 0));
  return checkedResults(std::move(types));
}

// ---- slice ------------------------------------------------------------------------------------

Result<Types> inferSlice(const InferContext& c) {
  const TensorType& x = c.type(0);
  QC_TRY(requirePerTensor(c, 0));
  const auto rank = x.shape.size();
  for (const char* name : {"starts", "sizes", "steps"}) QC_TRY(requireLength(c, name, rank));
  QC_ASSIGN(Shape shape, shapeOf(c, "sizes"));
  const std::vector<DimExpr> starts = c.attrs.dims("starts");
  for (size_t d = 0; d < rank; ++d) {
    const int64_t step = c.attrs.integers("steps")[d];
    if (!shape[d].isStatic() || !starts[d].constant()) {
      if (step == 0) return fail(ErrorCode::kInvalidModel, "slice: dim {} has a step of 0", d);
      continue;
    }
    const int64_t start = *starts[d].constant(), size = shape[d].size();
    // A step beyond any tensor would overflow the arithmetic below.
    if (size < 0 || step == 0 || step < -kMaxTensorBytes || step > kMaxTensorBytes)
      return fail(ErrorCode::kInvalidModel, "slice: dim {} has size {} and step {}", d, size, step);
    // As free as the dim was; one element of many is one for every size of it.
    if (size != 1 || (start == 0 && step == 1 && x.shape[d] == Dim(size))) shape[d] = sizedBy(x.shape[d], size);
    if (x.shape[d].isStatic() && size > 0) {
      const int64_t dim = x.shape[d].size();
      // The last element is start + (size - 1) * step; compare without overflow.
      const bool inside = start >= 0 && start < dim && (step > 0 ? (size - 1) <= (dim - 1 - start) / step : (size - 1) <= start / -step);
      if (!inside)
        return fail(ErrorCode::kInvalidModel, "slice of dim {}: {} elements from {} by {} leave the {} that {} has", d, size, start, step,
                    dim, describe(c, 0));
    }
  }
  return resultLike(c, std::move(shape));
}

// ---- pad --------------------------------------------------------------------------------------

Result<Types> inferPad(const InferContext& c) {
  const TensorType& x = c.type(0);
  QC_TRY(requirePerTensor(c, 0));
  QC_TRY(requireOneOf(c, "mode", {"constant", "reflect", "edge", "wrap"}));
  QC_TRY(requireLength(c, "pads", 2 * x.shape.size()));
  const std::vector<DimExpr> pads = c.attrs.dims("pads");
  const std::string& mode = c.attrs.string("mode");
  Shape shape = x.shape;
  for (size_t d = 0; d < shape.size(); ++d) {
    const DimExpr &first = pads[d], &last = pads[d + shape.size()];
    constexpr int64_t kLimit = int64_t{1} << 40;
    const int64_t before = first.constant().value_or(0), after = last.constant().value_or(0);
    if (before < 0 || after < 0 || before > kLimit || after > kLimit)
      return fail(ErrorCode::kInvalidModel, "pad: dim {} by {} and {}", d, first.str(), last.str());
    if (first == 0 && last == 0) continue;
    if (!shape[d].isStatic() || !first.constant() || !last.constant()) {
      shape[d] = shape[d].expr() + first + last;
      continue;
    }
    const int64_t dim = shape[d].size();
    if (dim == 0 && mode != "constant")
      return fail(ErrorCode::kInvalidModel, "pad in mode {}: dim {} of {} is empty and cannot grow by {} and {}", mode, d, describe(c, 0),
                  before, after);
    shape[d] = sizedBy(shape[d], std::min(dim, kMaxTensorBytes) + before + after);
  }
  return resultLike(c, std::move(shape));
}

// ---- expand, tile -----------------------------------------------------------------------------

Result<Types> inferExpand(const InferContext& c) {
  const TensorType& x = c.type(0);
  QC_TRY(requirePerTensor(c, 0));
  QC_ASSIGN(const Shape shape, shapeOf(c, "shape"));
  if (static_cast<int>(shape.size()) < x.rank())
    return fail(ErrorCode::kInvalidModel, "expand of {} to fewer dims: [{}]", describe(c, 0), toString(shape));
  for (size_t i = shape.size() - x.shape.size(), d = 0; i < shape.size(); ++i, ++d)
    if (x.shape[d] != Dim(1) && !compatible(x.shape[d], shape[i]))
      return fail(ErrorCode::kInvalidModel, "expand of {} to [{}]", describe(c, 0), toString(shape));
  return resultLike(c, shape);
}

Result<Types> inferTile(const InferContext& c) {
  const TensorType& x = c.type(0);
  QC_TRY(requirePerTensor(c, 0));
  QC_TRY(requireLength(c, "repeats", x.shape.size()));
  Shape shape;
  QC_ASSIGN(const Shape repeats, shapeOf(c, "repeats"));
  for (size_t d = 0; d < x.shape.size(); ++d) {
    if (repeats[d].isStatic() && repeats[d].size() > (int64_t{1} << 31))
      return fail(ErrorCode::kInvalidModel, "tile: dim {} repeated {} times", d, repeats[d].size());
    if (x.shape[d].isStatic() && x.shape[d].size() > (int64_t{1} << 31)) return fail(ErrorCode::kResource, "tile of {}", describe(c, 0));
    const Dim size(x.shape[d].expr() * repeats[d].expr());
    shape.push_back(size.isStatic() ? sizedBy(x.shape[d], size.size()) : size);
  }
  return resultLike(c, std::move(shape));
}

// ---- depth_to_space, space_to_depth -----------------------------------------------------------

Result<Types> inferDepthSpace(const InferContext& c, bool toSpace) {
  const TensorType& x = c.type(0);
  QC_TRY(requirePerTensor(c, 0));
  QC_TRY(requireLayout(c));
  QC_TRY(requireRank(c, 0, 4, 4));
  const int64_t block = c.attrs.integer("blocksize");
  if (block < 1 || block > 1024) return fail(ErrorCode::kInvalidModel, "{}: blocksize {}", c.op, block);
  const auto channel = usize(channelAxisOf(c.attrs, 4));
  Shape shape = x.shape;
  for (size_t d = 1; d < 4; ++d) {
    const int64_t factor = d == channel ? block * block : block;
    const bool divides = toSpace == (d == channel);
    if (!shape[d].isStatic()) {
      shape[d] = divides ? floorDiv(shape[d].expr(), factor) : shape[d].expr() * factor;
      continue;
    }
    if (shape[d].size() > kMaxTensorBytes) return fail(ErrorCode::kResource, "{}: {} is too large", c.op, describe(c, 0));
    if (divides && shape[d].size() % factor)
      return fail(ErrorCode::kInvalidModel, "{}: dim {} of {} is not a multiple of {}", c.op, d, describe(c, 0), factor);
    shape[d] = sizedBy(shape[d], divides ? shape[d].size() / factor : shape[d].size() * factor);
  }
  return resultLike(c, std::move(shape));
}

}  // namespace qc
