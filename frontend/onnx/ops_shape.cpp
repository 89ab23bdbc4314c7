// ONNX ops that move data, and those that answer questions about shapes, which are constants here.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/slice_bounds.h"
#include "frontend/onnx/window.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

constexpr int64_t kMaxPad = int64_t{1} << 40;

Status shape(OnnxNode& n) {
  const Dims sizes = n.dims(0);
  const auto rank = static_cast<int64_t>(sizes.size());
  QC_ASSIGN(int64_t start, n.integer("start", 0));
  QC_ASSIGN(int64_t end, n.integer("end", rank));
  const auto clamped = [&](int64_t v) { return std::clamp<int64_t>(v < 0 ? v + rank : v, 0, rank); };
  start = clamped(start);
  end = std::max(clamped(end), start);
  return n.setOutput(n.dimValues({end - start}, Dims(sizes.begin() + start, sizes.begin() + end)));
}

Status size(OnnxNode& n) { return n.setOutput(n.dimValues({}, {product(n.dims(0))})); }

Status reshape(OnnxNode& n) {
  Dims wanted;
  if (n.opset() >= 5 && n.input(1)) {
    QC_ASSIGN(wanted, n.constantDims(1, "the target shape", OnnxNode::Sign::target));
  } else {
    QC_ASSIGN(const Ints given, n.integers("shape"));
    wanted.assign(given.begin(), given.end());
  }
  QC_ASSIGN(const int64_t allowZero, n.integer("allowzero", 0));
  const Dims sizes = n.dims(0);
  if (std::any_of(wanted.begin(), wanted.end(), [](const DimExpr& e) { return e.isUnknown(); })) {
    const Dims decided = n.freshSizes(wanted.size());
    QC_TRY(n.create("size_of", {n.input(1), n.input(0)}, {{"sizes", decided}, {"copies", int64_t{allowZero == 0}}}));
    for (size_t i = 0; i < wanted.size(); ++i)
      if (wanted[i].isUnknown() || wanted[i] == -1) wanted[i] = decided[i];
  }
  DimExpr known = 1;
  int rest = -1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == 0 && !allowZero) {
      if (i >= sizes.size()) return n.error(ErrorCode::kInvalidModel, "dim {} is to be copied from an input of {} dims", i, sizes.size());
      wanted[i] = sizes[i];
    }
    const int64_t size = wanted[i].constant().value_or(0);
    if (size < -1 || (size == -1 && rest >= 0)) return n.error(ErrorCode::kInvalidModel, "target shape {}", toString(Attr(wanted)));
    if (size == -1) {
      rest = static_cast<int>(i);
      continue;
    }
    known = known * wanted[i];
    if (known.constant().value_or(0) > (int64_t{1} << 40)) return n.error(ErrorCode::kResource, "a target of more than 2^40 elements");
  }
  if (rest >= 0) {
    const DimExpr total = product(sizes);
    if (known == 0 || mod(total, known).constant().value_or(0) != 0)
      return n.error(ErrorCode::kInvalidModel, "{} elements do not divide into the target", total.str());
    nth(wanted, rest) = floorDiv(total, known);
  }
  QC_ASSIGN(Value * y, n.reshapeToDims(n.input(0), wanted));
  return n.setOutput(y);
}

Status flattenToMatrix(OnnxNode& n) {
  const Dims sizes = n.dims(0);
  QC_ASSIGN(const int64_t raw, n.integer("axis", 1));
  const auto rank = static_cast<int64_t>(sizes.size());
  const int64_t axis = raw < 0 ? raw + rank : raw;
  if (axis < 0 || axis > rank) return n.error(ErrorCode::kInvalidModel, "axis {} of {} dims", raw, rank);
  const std::span<const DimExpr> all = sizes;
  QC_ASSIGN(Value * y, n.reshapeToDims(n.input(0), Dims{product(all.first(usize(axis))), product(all.subspan(usize(axis)))}));
  return n.setOutput(y);
}

Status squeeze(OnnxNode& n) {
  QC_ASSIGN(auto axes, n.intsFrom(1, "axes"));
  const Dims sizes = n.dims(0);
  Ints drop;
  Dims kept;
  if (axes) {
    QC_ASSIGN(drop, n.axes(std::move(*axes), static_cast<int64_t>(sizes.size())));
  }
  for (size_t d = 0; d < sizes.size(); ++d) {
    const bool named = std::find(drop.begin(), drop.end(), static_cast<int64_t>(d)) != drop.end();
    if (named && sizes[d].constant().value_or(1) != 1) return n.error(ErrorCode::kInvalidModel, "dim {} has size {}", d, sizes[d].str());
    if (!axes && n.isDecided(sizes[d]))
      return n.error(ErrorCode::kUnsupported, "no axes are named, and whether dim {} is 1 depends on {}", d, sizes[d].str());
    const bool isOpen = !axes && !sizes[d].constant() && !(sizes[d] - 2).isNonNegative();
    const bool isOne = isOpen ? n.holdsAsTaken({Assumption::Kind::equal, sizes[d], 1, {}}) : sizes[d] == 1;
    if (!(axes ? named : isOne)) kept.push_back(sizes[d]);
  }
  QC_ASSIGN(Value * y, n.reshapeToDims(n.input(0), kept));
  return n.setOutput(y);
}

Status unsqueeze(OnnxNode& n) {
  QC_ASSIGN(auto axes, n.intsFrom(1, "axes"));
  if (!axes) return n.error(ErrorCode::kInvalidModel, "axes are missing");
  Dims sizes = n.dims(0);
  QC_ASSIGN(const Ints at, n.axes(*axes, static_cast<int64_t>(sizes.size() + axes->size())));
  for (const int64_t a : at) sizes.insert(sizes.begin() + a, 1);
  QC_ASSIGN(Value * y, n.reshapeToDims(n.input(0), sizes));
  return n.setOutput(y);
}

Status transpose(OnnxNode& n) {
  Ints reversed(usize(n.type(0).rank()));
  std::iota(reversed.rbegin(), reversed.rend(), 0);
  QC_ASSIGN(const Ints perm, n.integers("perm", reversed));
  QC_ASSIGN(Value * y, n.create("transpose", {n.input(0)}, {{"perm", perm}}));
  return n.setOutput(y);
}

Status concat(OnnxNode& n) {
  QC_ASSIGN(const int64_t raw, n.integer("axis"));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  std::vector<Value*> operands;
  for (int i = 0; i < n.numInputs(); ++i) {
    if (!n.input(i)) return n.error(ErrorCode::kInvalidModel, "input {} is missing", i);
    // An empty piece says nothing, and may have other dims in older exports.
    if (n.type(i).isStatic() && n.type(i).numElements() == 0 && n.numInputs() > 1 && n.type(i).rank() == 1) continue;
    operands.push_back(n.input(i));
  }
  if (operands.empty()) return n.setOutput(n.input(0));
  QC_ASSIGN(Value * y, n.create("concat", std::move(operands), {{"axis", axis}}));
  return n.setOutput(y);
}

Status split(OnnxNode& n) {
  QC_ASSIGN(const int64_t raw, n.integer("axis", 0));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank()));
  Dims sizes;
  if (n.input(1)) {
    QC_ASSIGN(sizes, n.constantDims(1, "split"));
  } else if (n.has("split")) {
    QC_ASSIGN(const Ints given, n.integers("split"));
    sizes.assign(given.begin(), given.end());
  } else {
    const DimExpr dim = nth(n.dims(0), axis);
    QC_ASSIGN(const int64_t pieces, n.integer("num_outputs", n.numOutputs()));
    if (pieces < 1 || pieces > 65536) return n.error(ErrorCode::kInvalidModel, "{} pieces", pieces);
    const DimExpr piece = ceilDiv(dim, pieces);
    for (int64_t i = 0; i < pieces; ++i) sizes.push_back(max(min(dim - piece * i, piece), 0));
  }
  QC_ASSIGN(auto results, n.createAll("split", {n.input(0)}, {{"axis", axis}, {"sizes", std::move(sizes)}}));
  return n.setOutputs(std::move(results));
}

Status slice(OnnxNode& n) {
  Value* x = n.input(0);
  const Dims dims = n.dims(0);
  const auto rank = static_cast<int64_t>(dims.size());
  Dims starts, ends;
  Ints axes, steps;
  if (n.opset() >= 10) {
    QC_ASSIGN(starts, n.constantDims(1, "starts", OnnxNode::Sign::any));
    QC_ASSIGN(ends, n.constantDims(2, "ends", OnnxNode::Sign::any));
    if (n.input(3)) {
      QC_ASSIGN(axes, n.constantInts(3, "axes"));
    }
    if (n.input(4)) {
      QC_ASSIGN(steps, n.constantInts(4, "steps"));
    }
  } else {
    QC_ASSIGN(const Ints first, n.integers("starts"));
    QC_ASSIGN(const Ints behind, n.integers("ends"));
    starts.assign(first.begin(), first.end());
    ends.assign(behind.begin(), behind.end());
    QC_ASSIGN(axes, n.integers("axes", Ints()));
  }
  if (axes.empty()) {
    axes.resize(starts.size());
    std::iota(axes.begin(), axes.end(), 0);
  }
  if (steps.empty()) steps.assign(starts.size(), 1);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    return n.error(ErrorCode::kInvalidModel, "starts, ends, axes and steps differ in length");
  Dims allStarts(dims.size(), 0), allSizes = dims;
  Ints allSteps(dims.size(), 1);
  for (size_t i = 0; i < axes.size(); ++i) {
    QC_ASSIGN(const int64_t axis, n.axis(axes[i], rank));
    if (steps[i] == 0) return n.error(ErrorCode::kInvalidModel, "a step of 0");
    SliceBounds bounds{starts[i], ends[i], steps[i]};
    auto cut = sliceCut(nth(dims, axis), bounds);
    if (!cut || cut->start.isUnknown() || cut->size.isUnknown()) {  // by names all are short enough to work with
      QC_ASSIGN(x, n.withNamedSizes(x, {axis}));
      QC_ASSIGN(bounds.start, n.named(bounds.start));
      QC_ASSIGN(bounds.end, n.named(bounds.end));
      cut = sliceCut(nth(x->type().shape, axis).expr(), bounds);
    }
    if (!cut) return n.error(cut.error().code(), "{}", cut.error().message());
    nth(allStarts, axis) = cut->start;
    nth(allSizes, axis) = cut->size;
    nth(allSteps, axis) = cut->step;
  }
  QC_ASSIGN(Value * y, n.create("slice", {x}, {{"starts", allStarts}, {"sizes", allSizes}, {"steps", allSteps}}));
  return n.setOutput(y);
}

Status pad(OnnxNode& n) {
  QC_ASSIGN(const std::string mode, n.string("mode", "constant"));
  const auto rank = usize(n.type(0).rank());
  Dims given, pads(2 * rank, 0);
  double value = 0;
  if (n.opset() >= 11) {
    QC_ASSIGN(given, n.constantDims(1, "pads", OnnxNode::Sign::any));
    if (n.input(2)) {
      QC_ASSIGN(value, n.constantScalar(2, "the pad value"));
    }
  } else {
    QC_ASSIGN(const Ints fixed, n.integers("pads"));
    given.assign(fixed.begin(), fixed.end());
    QC_ASSIGN(value, n.real("value", 0.0));
  }
  if (n.input(3)) {
    QC_ASSIGN(const Ints axes, n.constantInts(3, "axes"));
    if (given.size() != 2 * axes.size()) return n.error(ErrorCode::kInvalidModel, "{} pads for {} axes", given.size(), axes.size());
    for (size_t i = 0; i < axes.size(); ++i) {
      QC_ASSIGN(const int64_t axis, n.axis(axes[i], static_cast<int64_t>(rank)));
      nth(pads, axis) = given[i];
      pads[usize(axis) + rank] = given[i + axes.size()];
    }
  } else {
    if (given.size() != 2 * rank) return n.error(ErrorCode::kInvalidModel, "{} pads for {} dims", given.size(), rank);
    pads = given;
  }
  for (const DimExpr& p : pads)
    if (const int64_t size = p.constant().value_or(0); size < -kMaxPad || size > kMaxPad)
      return n.error(ErrorCode::kInvalidModel, "a pad of {}", size);
  QC_ASSIGN(Value * x, cropped(n, pads));
  QC_ASSIGN(Value * y, n.create("pad", {x}, {{"pads", pads}, {"mode", mode}, {"value", value}}));
  return n.setOutput(y);
}

Status expand(OnnxNode& n) {
  QC_ASSIGN(Dims wanted, n.constantDims(1, "the target shape"));
  const Dims sizes = n.dims(0);
  // Broadcasting goes both ways: a 1 in the target keeps the input's dim.
  if (wanted.size() < sizes.size()) wanted.insert(wanted.begin(), sizes.size() - wanted.size(), DimExpr(1));
  for (size_t i = 0; i < sizes.size(); ++i) {
    DimExpr& w = wanted[wanted.size() - 1 - i];
    const DimExpr& own = sizes[sizes.size() - 1 - i];
    if (w == 1) w = own;
    if (!w.constant() && own.constant().value_or(1) != 1) w = own;  // or it would not broadcast
    // At most 1, as what is left of the first slice of something: 1, but where there is nothing to slice.
    if (!w.constant() && !own.constant() && min(w, 1) == w && n.holdsAsTaken({Assumption::Kind::equal, w, 1, {}})) w = own;
    if (!w.constant() && !own.constant() && n.isDecided(w)) w = max(w, own) * min(min(w, own), 1);
  }
  QC_ASSIGN(Value * y, n.create("expand", {n.input(0)}, {{"shape", wanted}}));
  return n.setOutput(y);
}

Status tile(OnnxNode& n) {
  QC_ASSIGN(const Dims repeats, n.constantDims(1, "repeats"));
  QC_ASSIGN(Value * y, n.create("tile", {n.input(0)}, {{"repeats", repeats}}));
  return n.setOutput(y);
}

Status constantOfShape(OnnxNode& n) {
  QC_ASSIGN(const Dims shape, n.constantDims(0, "the shape"));
  Tensor value = Tensor::ofFloats({1}, std::vector{0.0f});
  if (n.has("value")) {
    QC_ASSIGN(value, n.tensor("value"));
  }
  if (value.numElements() != 1) return n.error(ErrorCode::kInvalidModel, "value is {}", value.type().str());
  Value* one = n.constantValue(value.reshaped({}));
  QC_ASSIGN(Value * y, n.create("expand", {one}, {{"shape", shape}}));
  return n.setOutput(y);
}

// Of a length that follows from free dims: start + delta * (0, 1, 2, ...).
Status freeRange(OnnxNode& n) {
  std::array<DimExpr, 3> bounds;
  for (int i = 0; i < 3; ++i) {
    const auto known = dimValuesOf(n.input(i));  // floats that are whole numbers as well
    QC_ASSIGN(const Dims bound, known ? Result<Dims>(known->elements) : n.constantDims(i, "a bound", OnnxNode::Sign::any));
    if (bound.size() != 1) return n.error(ErrorCode::kInvalidModel, "a bound of {} values", bound.size());
    nth(bounds, i) = bound.front();
  }
  const auto& [start, limit, delta] = bounds;
  DimExpr length = DimExpr::unknown();
  if (const int64_t step = delta.constant().value_or(0); step != 0) {
    const DimExpr way = step > 0 ? limit - start : start - limit;
    length = ceilDiv(way.isNonNegative() ? way : max(way, 0), std::abs(step));
  } else if (mod(limit - start, delta) == 0 && n.holdsAsTaken({Assumption::Kind::atMost, 1, delta, {}})) {
    length = floorDiv(limit - start, delta);  // as where each of an EmbeddingBag's bags begins
  }
  if (length.isUnknown()) return n.error(ErrorCode::kUnsupported, "a step of {} from {} to {}", delta.str(), start.str(), limit.str());
  const DType dtype = n.type(0).dtype;
  QC_ASSIGN(Value * y, countedUp(n, start, length, delta));
  if (dtype != DType::s64) {
    QC_ASSIGN(y, n.create("cast", {y}, {{"to", dtype}}));
  }
  return n.setOutput(y);
}

Status range(OnnxNode& n) {
  const auto isOpen = [&](int i) { return followsFromDims(n.input(i)) || (!n.input(i)->constant() && isInteger(n.type(i).dtype)); };
  if (isOpen(0) || isOpen(1) || isOpen(2)) return freeRange(n);
  QC_ASSIGN(const double start, n.constantScalar(0, "start"));
  QC_ASSIGN(const double limit, n.constantScalar(1, "limit"));
  QC_ASSIGN(const double delta, n.constantScalar(2, "delta"));
  const double count = std::max(std::ceil((limit - start) / delta), 0.0);
  if (!(delta != 0) || std::isnan(limit - start) || std::isnan(delta))
    return n.error(ErrorCode::kInvalidModel, "from {} to {} by {}", start, limit, delta);
  if (!(count < (1 << 24))) return n.error(ErrorCode::kResource, "from {} to {} by {}: {} elements", start, limit, delta, count);
  Tensor t(n.type(0).dtype, {static_cast<int64_t>(count)});
  void* data = t.mutableData();
  for (int64_t i = 0; i < t.numElements(); ++i) storeElement(t.dtype(), data, i, start + static_cast<double>(i) * delta);
  return n.setOutput(n.constantValue(std::move(t)));
}

// Where the index is the place along the new dim, or that less the depth.
Status oneHotOfFreeDepth(OnnxNode& n, int64_t axis) {
  QC_ASSIGN(const Dims depth, n.constantDims(1, "depth"));
  if (depth.size() != 1) return n.error(ErrorCode::kInvalidModel, "{} depths", depth.size());
  Dims wide = n.dims(0), along(wide.size() + 1, 1);
  wide.insert(wide.begin() + axis, DimExpr(1));
  nth(along, axis) = depth[0];
  QC_ASSIGN(Value * index, n.create("cast", {n.input(0)}, {{"to", DType::s64}}));
  QC_ASSIGN(index, n.create("reshape", {index}, {{"shape", wide}}));
  QC_ASSIGN(Value * place, countedUp(n, 0, depth[0]));
  QC_ASSIGN(place, n.create("reshape", {place}, {{"shape", along}}));
  QC_ASSIGN(Value * hot, n.create("equal", {index, place}));
  QC_ASSIGN(place, n.create("sub", {place, n.dimValues({}, depth)}));
  QC_ASSIGN(Value * fromEnd, n.create("equal", {index, place}));
  QC_ASSIGN(hot, n.create("or", {hot, fromEnd}));
  const auto value = [&](int64_t k) {
    return n.create("slice", {n.input(2)}, {{"starts", Ints{k}}, {"sizes", Ints{1}}, {"steps", Ints{1}}});
  };
  QC_ASSIGN(Value * off, value(0));
  QC_ASSIGN(Value * on, value(1));
  QC_ASSIGN(Value * y, n.create("where", {hot, on, off}));
  return n.setOutput(y);
}

Status oneHot(OnnxNode& n) {
  QC_ASSIGN(const int64_t raw, n.integer("axis", -1));
  QC_ASSIGN(const int64_t axis, n.axis(raw, n.type(0).rank() + 1));
  if (followsFromDims(n.input(1))) return oneHotOfFreeDepth(n, axis);
  QC_ASSIGN(const int64_t depth, n.constantInteger(1, "depth"));
  QC_ASSIGN(Value * y, n.create("one_hot", {n.input(0), n.input(2)}, {{"axis", axis}, {"depth", depth}}));
  return n.setOutput(y);
}

// column - row >= k, or <= k for the lower half
Status triluOfFreeDiagonal(OnnxNode& n, bool upper) {
  QC_ASSIGN(const Dims k, n.constantDims(1, "k", OnnxNode::Sign::any));
  const Dims dims = n.dims(0);
  if (k.size() != 1 || dims.size() < 2) return n.error(ErrorCode::kInvalidModel, "{} diagonals of {} dims", k.size(), dims.size());
  const DimExpr &rows = dims[dims.size() - 2], &columns = dims.back();
  QC_ASSIGN(Value * row, countedUp(n, k[0], rows));
  QC_ASSIGN(row, n.create("reshape", {row}, {{"shape", Dims{rows, 1}}}));
  QC_ASSIGN(Value * column, countedUp(n, 0, columns));
  QC_ASSIGN(Value * stays, upper ? n.create("less_equal", {row, column}) : n.create("less_equal", {column, row}));
  Tensor zero(n.type(0).dtype, {});
  storeElement(n.type(0).dtype, zero.mutableData(), 0, 0);
  QC_ASSIGN(Value * y, n.create("where", {stays, n.input(0), n.constantValue(std::move(zero))}));
  return n.setOutput(y);
}

Status trilu(OnnxNode& n) {
  QC_ASSIGN(const int64_t upper, n.integer("upper", 1));
  int64_t k = 0;
  if (n.input(1) && followsFromDims(n.input(1))) return triluOfFreeDiagonal(n, upper != 0);
  if (n.input(1)) {
    QC_ASSIGN(k, n.constantInteger(1, "k"));
  }
  QC_ASSIGN(Value * y, n.create("trilu", {n.input(0)}, {{"upper", upper}, {"k", k}}));
  return n.setOutput(y);
}

// Inference only: the data passes, the mask is all true.
Status dropout(OnnxNode& n) {
  if (n.input(2)) {
    QC_ASSIGN(const double training, n.constantScalar(2, "training_mode"));
    double ratio = 0.5;
    if (n.input(1)) {
      QC_ASSIGN(ratio, n.constantScalar(1, "ratio"));
    }
    if (training != 0 && ratio != 0) return n.error(ErrorCode::kUnsupported, "training mode").help("export the model in eval mode");
  }
  Value* mask = nullptr;
  if (n.outputUsed(1)) {
    const DType dtype = n.opset() < 10 ? n.type(0).dtype : DType::boolean;
    Tensor one(dtype, {});
    storeElement(dtype, one.mutableData(), 0, 1);
    QC_ASSIGN(mask, n.create("expand", {n.constantValue(std::move(one))}, {{"shape", n.dims(0)}}));
  }
  return n.setOutputs({n.input(0), mask});
}

}  // namespace

Result<Value*> countedUp(OnnxNode& n, const DimExpr& start, const DimExpr& count, const DimExpr& step) {
  QC_ASSIGN(Value * y, n.create("expand", {n.dimValues({}, {step})}, {{"shape", Dims{count}}}));
  QC_ASSIGN(y, n.create("cumsum", {y}, {{"axis", int64_t{0}}, {"exclusive", int64_t{1}}}));
  return n.create("add", {y, n.dimValues({}, {start})});
}

std::span<const OnnxOp> onnxShapeOps() {
  static const OnnxOp kOps[] = {
      {.name = "Shape", .minInputs = 1, .maxInputs = 1, .convert = shape, .freeDims = true},
      {.name = "Size", .minInputs = 1, .maxInputs = 1, .convert = size, .freeDims = true},
      {.name = "Reshape", .minInputs = 1, .maxInputs = 2, .convert = reshape, .freeDims = true},
      {.name = "Flatten", .minInputs = 1, .maxInputs = 1, .convert = flattenToMatrix, .freeDims = true},
      {.name = "Squeeze", .minInputs = 1, .maxInputs = 2, .convert = squeeze, .freeDims = true},
      {.name = "Unsqueeze", .minInputs = 1, .maxInputs = 2, .convert = unsqueeze, .freeDims = true},
      {.name = "Transpose", .minInputs = 1, .maxInputs = 1, .convert = transpose, .freeDims = true},
      {.name = "Concat", .minInputs = 1, .maxInputs = -1, .convert = concat, .freeDims = true},
      {.name = "Split", .minInputs = 1, .maxInputs = 2, .convert = split, .freeDims = true},
      {.name = "Slice", .minInputs = 1, .maxInputs = 5, .convert = slice, .freeDims = true},
      {.name = "Pad", .minInputs = 1, .maxInputs = 4, .convert = pad, .freeDims = true},
      {.name = "Expand", .minInputs = 2, .maxInputs = 2, .convert = expand, .freeDims = true},
      {.name = "Tile", .minInputs = 2, .maxInputs = 2, .convert = tile, .freeDims = true},
      {.name = "ConstantOfShape", .minInputs = 1, .maxInputs = 1, .convert = constantOfShape, .freeDims = true},
      {.name = "Range", .minInputs = 3, .maxInputs = 3, .convert = range, .freeDims = true},
      {.name = "OneHot", .minInputs = 3, .maxInputs = 3, .convert = oneHot, .freeDims = true},
      {.name = "Trilu", .minInputs = 1, .maxInputs = 2, .convert = trilu, .freeDims = true},
      {.name = "Dropout", .minInputs = 1, .maxInputs = 3, .convert = dropout, .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
