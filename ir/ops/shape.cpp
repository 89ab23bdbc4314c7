// Ops that move elements and compute nothing: reshape, transpose, concat, slice, split, pad, expand, tile, depth_to_space,
// space_to_depth, and the `const` node.  They take any dtype; per-tensor quantization passes through.
// Tests: tests/unit/shape_ops_test.cpp.
#include <algorithm>
#include <array>
#include <cstring>

#include "ir/batch_dims.h"
#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/gradients.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/movement.h"
#include "ir/ops/shape_types.h"
#include "ir/qmath.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

Status evalDims(const EvalContext& c) {
  const auto values = constants(c.node.attrs().dims("values"));
  if (!values) return fail(ErrorCode::kInvalidArgument, "{} follows from free dims", toString(*c.node.attrs().find("values")));
  for (int64_t i = 0; i < std::ssize(*values); ++i) {
    if (c.out().dtype == DType::s64)
      c.out().as<int64_t>()[i] = nth(*values, i);
    else
      storeElement(c.out().dtype, c.out().data, i, static_cast<double>(nth(*values, i)));
  }
  return {};
}

Status evalReshape(const EvalContext& c) {
  std::memcpy(c.out().data, c.in(0).data, usize(c.in(0).numElements() * sizeOf(c.in(0).dtype)));
  return {};
}

// The element that fills what no operand covers.
void storeFill(const EvalContext& c, void* to) {
  double value = c.node.real("value");
  if (const QuantPtr& q = c.outType().quant)
    value = qmath::quantize(static_cast<float>(value), q->scale(), q->zeroPoint(), static_cast<int32_t>(q->qmin),
                            static_cast<int32_t>(q->qmax));
  storeElement(c.out().dtype, to, 0, value);
}

Status evalBoxes(const EvalContext& c) {
  MovementShape shape{c.node.attrs(), {}, {}};
  for (const TensorRef& x : c.inputs) shape.in.push_back(sizesOf(x));
  for (const TensorRef& y : c.outputs) shape.out.push_back(sizesOf(y));
  for (const BoxCopy& b : boxesOf(c.node.op())(shape)) {
    const TensorRef& y = c.out(b.result);
    const int64_t bytes = sizeOf(y.dtype);
    std::array<char, 8> fill{};
    if (b.operand == BoxCopy::kFill) storeFill(c, fill.data());
    const char* from = b.operand == BoxCopy::kFill ? fill.data() : static_cast<const char*>(c.in(b.operand).data) + b.from * bytes;
    stridedCopy(b.box, from, static_cast<char*>(y.data) + b.to * bytes, bytes);
  }
  return {};
}

// Modes that repeat the input, dim by dim from the inner core: the slabs outside copy slabs that are complete in the dims before.
Status evalPad(const EvalContext& c) {
  const std::string& mode = c.node.string("mode");
  if (mode == "constant") return evalBoxes(c);
  const Ints& pads = c.node.integers("pads");
  const Ints from = denseStrides(sizesOf(c.in(0))), to = denseStrides(sizesOf(c.out()));
  const int64_t bytes = sizeOf(c.in(0).dtype);
  int64_t offset = 0;
  for (size_t d = 0; d < from.size(); ++d) offset += pads[d] * to[d];
  char* out = static_cast<char*>(c.out().data);
  stridedCopy({sizesOf(c.in(0)), from, to}, c.in(0).data, out + offset * bytes, bytes);
  Ints begin = {pads.begin(), pads.begin() + static_cast<ptrdiff_t>(from.size())}, extent = sizesOf(c.in(0));
  for (size_t d = 0; d < from.size(); ++d) {
    const int64_t dim = c.in(0).sizes[d], whole = c.out().sizes[d];
    Ints slab = extent;
    slab[d] = 1;
    int64_t base = 0;
    for (size_t k = 0; k < from.size(); ++k)
      if (k != d) base += begin[k] * to[k];
    for (int64_t i = 0; i < whole; ++i) {
      const int64_t source = padSource(i - pads[d], dim, mode) + pads[d];
      if (source != i) stridedCopy({slab, to, to}, out + (base + source * to[d]) * bytes, out + (base + i * to[d]) * bytes, bytes);
    }
    begin[d] = 0;
    extent[d] = whole;
  }
  return {};
}

AttrSpec neutralAt(int64_t entry, AttrSpec spec) {
  spec.neutral = entry;
  return spec;
}

}  // namespace

void registerShapeOps(OpRegistry& r) {
  const auto add = [&](const char* name, const char* summary, std::vector<AttrSpec> attrs, InferFn infer, EvalFn eval, GradientFn gradient,
                       BatchFn batch = {}, uint32_t traits = kMove) {
    OpDef def;
    def.name = name;
    def.summary = summary;
    def.operands = {{"x"}};
    def.attrs = std::move(attrs);
    def.traits = traits;
    def.infer = std::move(infer);
    def.eval = std::move(eval);
    def.gradient = std::move(gradient);
    def.batch = std::move(batch);
    r.add(std::move(def));
  };
  constexpr const char* kNoOperands = "it has no operands";
  OpDef constant;
  constant.name = "const";
  constant.summary = "a tensor of the graph's constant pool";
  constant.attrs = {stringAttr("view", "")};
  constant.infer = inferConst;
  constant.noGradient = kNoOperands;
  r.add(std::move(constant));
  OpDef dims;
  dims.name = "dims";
  dims.summary = "whole numbers that follow from free dims: a constant once these are bound";
  dims.attrs = {dimsAttr("values"), integersAttr("shape"), {"dtype", AttrKind::dtype, Attr(DType::s64), AttrMeaning::element}};
  dims.traits = kPure;
  dims.infer = inferDims;
  dims.eval = evalDims;
  dims.noGradient = kNoOperands;
  r.add(std::move(dims));
  add("reshape", "the same elements in other dims", {meaning(AttrMeaning::shape, dimsAttr("shape"))}, inferReshape, evalReshape,
      reshapeGradient, batchOfReshape, kMove | kView);
  add("transpose", "dims in another order: result dim i is operand dim perm[i]", {meaning(AttrMeaning::permutation, integersAttr("perm"))},
      inferTranspose, evalBoxes, transposeGradient, batchOfTranspose);
  add("split", "pieces along an axis", {axisAttr(), dimsAttr("sizes")}, inferSplit, evalBoxes, splitGradient, {}, kMove | kPermutable);
  add("slice", "a box with steps: y[i] = x[start + i * step]",
      {perDimAttr("starts"), neutralAt(kWholeDim, perDimAttr("sizes")), neutralAt(1, perDimAttr("steps", AttrKind::integers))}, inferSlice,
      evalBoxes, sliceGradient, {}, kMove | kPermutable);
  add("pad", "more elements around: constant, reflected, edge or wrapped",
      {meaning(AttrMeaning::perDimPair, dimsAttr("pads")), stringAttr("mode", "constant"), realAttr("value", 0.0)}, inferPad, evalPad,
      padGradient, {}, kMove | kPermutable);
  add("expand", "broadcast to a shape", {meaning(AttrMeaning::shape, dimsAttr("shape"))}, inferExpand, evalBoxes, expandGradient,
      batchOfExpand);
  add("tile", "repeated along each dim", {neutralAt(1, perDimAttr("repeats"))}, inferTile, evalBoxes, tileGradient, {},
      kMove | kPermutable);
  add(
      "depth_to_space", "blocks of channels become blocks of pixels", {integerAttr("blocksize"), stringAttr("mode", "DCR"), layoutAttr()},
      [](const InferContext& c) -> Result<Types> {
        QC_TRY(requireOneOf(c, "mode", {"DCR", "CRD"}));
        return inferDepthSpace(c, true);
      },
      evalBoxes, depthToSpaceGradient, leadingBatch);
  add(
      "space_to_depth", "blocks of pixels become blocks of channels", {integerAttr("blocksize"), layoutAttr()},
      [](const InferContext& c) { return inferDepthSpace(c, false); }, evalBoxes, spaceToDepthGradient, leadingBatch);
  OpDef concat;
  concat.name = "concat";
  concat.summary = "one after another along an axis";
  concat.operands = {{.name = "x", .variadic = true}};
  concat.attrs = {axisAttr()};
  concat.traits = kMove | kPermutable;
  concat.infer = inferConcat;
  concat.eval = evalBoxes;
  concat.gradient = concatGradient;
  r.add(std::move(concat));
}

}  // namespace qc
