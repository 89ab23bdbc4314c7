// ONNX forms of the ops whose attributes hold sizes, which are operands there: an initializer where they are known, else what
// export_dims.h makes of free dims.
#include <algorithm>
#include <cmath>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/exporter.h"
#include "frontend/onnx/slice_bounds.h"
#include "frontend/onnx/tensor.h"
#include "ir/ops/resize.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

Dims dimsOf(const Value* v) {
  Dims dims;
  for (const Dim& d : v->type().shape) dims.push_back(d.expr());
  return dims;
}

// x and a list of sizes.
OnnxExportRow withSizes(const char* op, const char* attr) {
  return [=](OnnxExporter& e, const Node& n) -> Status {
    QC_ASSIGN(const std::string sizes, e.dims(n.attrs().dims(attr)));
    e.add(n, op, {e.name(n.operand(0)), sizes}, e.resultNames(n));
    return {};
  };
}

Status split(OnnxExporter& e, const Node& n) {
  QC_ASSIGN(const std::string sizes, e.dims(n.attrs().dims("sizes")));
  setInt(e.add(n, "Split", {e.name(n.operand(0)), sizes}, e.resultNames(n)), "axis", n.integer("axis"));
  return {};
}

// A target of 1 keeps the input's own dim.
Status expand(OnnxExporter& e, const Node& n) {
  const Dims own = dimsOf(n.operand(0));
  Dims target = n.attrs().dims("shape");
  for (size_t i = 1; i <= own.size(); ++i)
    if (DimExpr& wanted = target[target.size() - i]; !wanted.constant() && wanted == own[own.size() - i]) wanted = 1;
  QC_ASSIGN(const std::string shape, e.dims(target));
  e.add(n, "Expand", {e.name(n.operand(0)), shape}, e.resultNames(n));
  return {};
}

// With 0 for a dim that is copied and -1 for the one that is left; nothing where these do not say it exactly.
std::optional<Ints> copiedAndInferred(const Dims& from, const Dims& to) {
  Ints target;
  DimExpr others = 1;
  int rest = -1;
  for (size_t i = 0; i < to.size(); ++i) {
    const bool copied = !to[i].constant() && i < from.size() && from[i] == to[i];
    if (to[i] == 0 || (!to[i].constant() && !copied && rest >= 0)) return std::nullopt;
    target.push_back(to[i].constant().value_or(copied ? 0 : -1));
    if (target.back() == -1)
      rest = static_cast<int>(i);
    else
      others = others * to[i];
  }
  if (rest >= 0 && floorDiv(product(from), others) != nth(to, rest)) return std::nullopt;
  return target;
}

// The places in `longer` of dims of 1 that `shorter` lacks; nothing where more differs.
std::optional<Ints> addedOnes(const Dims& shorter, const Dims& longer) {
  Ints axes;
  size_t i = 0;
  for (size_t k = 0; k < longer.size(); ++k) {
    if (i < shorter.size() && shorter[i] == longer[k])
      ++i;
    else if (longer[k] == 1)
      axes.push_back(static_cast<int64_t>(k));
    else
      return std::nullopt;
  }
  return i == shorter.size() ? std::optional(axes) : std::nullopt;
}

// Ops that need no target: a -1 beside a dim that is copied has no meaning in tensors without elements.
bool reshapedWithoutTarget(OnnxExporter& e, const Node& n, const Dims& from, const Dims& to) {
  const std::string x = e.name(n.operand(0));
  if (const auto axes = addedOnes(from, to)) {
    e.add(n, "Unsqueeze", {x, e.ints(*axes)}, e.resultNames(n));
    return true;
  }
  if (const auto axes = addedOnes(to, from)) {
    e.add(n, "Squeeze", {x, e.ints(*axes)}, e.resultNames(n));
    return true;
  }
  for (size_t axis = 0; to.size() == 2 && axis <= from.size(); ++axis) {
    const auto cut = from.begin() + static_cast<std::ptrdiff_t>(axis);
    if (product(Dims(from.begin(), cut)) != to[0] || product(Dims(cut, from.end())) != to[1]) continue;
    setInt(e.add(n, "Flatten", {x}, e.resultNames(n)), "axis", static_cast<int64_t>(axis));
    return true;
  }
  return false;
}

// A size of 0 is copied from the input there unless it says otherwise.
Status reshape(OnnxExporter& e, const Node& n) {
  Dims to = n.attrs().dims("shape");
  // One size that no expression says is what the others leave.
  const auto isUnknown = [](const DimExpr& e) { return e.isUnknown(); };
  if (std::ranges::count_if(to, isUnknown) == 1) std::ranges::replace_if(to, isUnknown, DimExpr(-1));
  const Dims from = dimsOf(n.operand(0));
  const std::optional<Ints> target = copiedAndInferred(from, to);
  const auto has = [&](int64_t size) { return target && std::ranges::count(*target, size) > 0; };
  if (has(0) && has(-1) && reshapedWithoutTarget(e, n, from, to)) return {};
  std::string shape;
  if (target) {
    shape = e.ints(*target);
  } else {
    QC_ASSIGN(shape, e.dims(to));
  }
  auto& proto = e.add(n, "Reshape", {e.name(n.operand(0)), shape}, e.resultNames(n));
  if (target) return {};
  e.needOpset(14);
  setInt(proto, "allowzero", 1);
  return {};
}

// Dims that stay whole are left out where they are free.
Status slice(OnnxExporter& e, const Node& n) {
  const Dims own = dimsOf(n.operand(0)), starts = n.attrs().dims("starts"), sizes = n.attrs().dims("sizes");
  const Ints& steps = n.integers("steps");
  Dims begins, ends;
  Ints axes, strides;
  for (size_t d = 0; d < own.size(); ++d) {
    if (!own[d].constant() && starts[d] == 0 && sizes[d] == own[d] && steps[d] == 1) continue;
    const SliceBounds bounds = sliceBounds(own[d], {starts[d], sizes[d], steps[d]});
    begins.push_back(bounds.start);
    ends.push_back(bounds.end);
    axes.push_back(static_cast<int64_t>(d));
    strides.push_back(bounds.step);
  }
  if (axes.empty()) {
    e.add(n, "Identity", e.operandNames(n), e.resultNames(n));
    return {};
  }
  QC_ASSIGN(const std::string first, e.dims(begins));
  QC_ASSIGN(const std::string behind, e.dims(ends));
  e.add(n, "Slice", {e.name(n.operand(0)), first, behind, e.ints(axes), e.ints(strides)}, e.resultNames(n));
  return {};
}

// Whether a size that is a symbol was computed in float as the scale times the dim, rounded down.
bool isScaledInFloat(const Node& n, const DimExpr& from, float scale, const DimExpr& to) {
  const Node* decides = n.previous();
  while (decides && !(decides->is("size_of") && decides->attrs().dims("sizes") == Dims{to})) decides = decides->previous();
  const Node* scaled = decides ? decides->operand(0)->producer() : nullptr;
  while (scaled && (scaled->is("cast") || scaled->is("floor"))) scaled = scaled->operand(0)->producer();
  if (!scaled || !scaled->is("mul")) return false;
  const int at = followsFromDims(scaled->operand(0)) ? 0 : 1;
  const Tensor* factor = scaled->operand(1 - at)->constant();
  const auto dims = followsFromDims(scaled->operand(at)) ? dimValuesOf(scaled->operand(at)) : std::nullopt;
  return dims && dims->elements == Dims{from} && factor && factor->numElements() == 1 && factor->at(0) == static_cast<double>(scale);
}

// Sizes where the scales follow from them, or are those that proportions are kept within; else scales, from which ONNX computes the same
// sizes.
Status resize(OnnxExporter& e, const Node& n) {
  const std::vector<double>& scales = n.attrs().reals("scales");
  const Dims from = dimsOf(n.operand(0)), to = n.attrs().dims("sizes"), wanted = n.attrs().dims("wanted");
  const bool keeps = !wanted.empty();
  bool follows = true, reached = true;
  bool derived = false, ofSizes = true;  // a scale that is that of the sizes, as all others are
  for (size_t d = 0; d < scales.size(); ++d) {
    if (scales[d] == 0) {
      derived = true;
      continue;
    }
    const auto in = from[d].constant(), out = to[d].constant();
    const auto scale = static_cast<float>(scales[d]);
    reached = reached && (resizedSize(from[d], scale) == to[d] || isScaledInFloat(n, from[d], scale, to[d]));
    if (!in || !out) {
      follows = false;
      ofSizes = ofSizes && std::floor(scales[d]) == scales[d] && to[d] == from[d] * static_cast<int64_t>(scales[d]);
      continue;
    }
    const bool own = scales[d] == static_cast<double>(*out) / static_cast<double>(std::max<int64_t>(*in, 1));
    follows = follows && own;
    ofSizes = ofSizes && own;
  }
  if (!keeps && (derived ? !ofSizes : !follows && !reached))
    return fail(ErrorCode::kUnsupported, "a resize whose sizes do not follow from its scales")
        .at(n.location())
        .help("save as .qir instead");
  const bool crops = n.string("coordinate") == "tf_crop_and_resize";
  const std::vector<double>& box = n.attrs().reals("roi");
  const std::vector<float> floats(scales.begin(), scales.end());
  Ints axes;
  Dims within;
  for (size_t d = 0; d < scales.size(); ++d) {
    if (keeps && wanted[d] == 0) continue;
    axes.push_back(static_cast<int64_t>(d));
    if (keeps) within.push_back(wanted[d]);
  }
  std::vector<float> roi;
  for (size_t first = 0; first < box.size(); first += scales.size())
    for (const int64_t axis : axes) roi.push_back(static_cast<float>(box[first + usize(axis)]));
  std::vector<std::string> inputs = {e.name(n.operand(0)),
                                     crops ? e.initializer("roi", Tensor::ofFloats({static_cast<int64_t>(roi.size())}, roi)) : ""};
  if (keeps || derived) {
    QC_ASSIGN(const std::string sizes, e.dims(keeps ? within : to));
    inputs.insert(inputs.end(), {"", sizes});
  } else if (follows) {
    inputs.insert(inputs.end(), {"", e.ints(*constants(to))});
  } else {
    inputs.push_back(e.initializer("scales", Tensor::ofFloats({static_cast<int64_t>(floats.size())}, floats)));
  }
  auto& proto = e.add(n, "Resize", inputs, e.resultNames(n));
  static constexpr std::pair<const char*, const char*> kCarried[] = {{"mode", "mode"},
                                                                     {"coordinate", "coordinate_transformation_mode"},
                                                                     {"nearest", "nearest_mode"},
                                                                     {"cubic_a", "cubic_coeff_a"},
                                                                     {"exclude_outside", "exclude_outside"},
                                                                     {"extrapolation", "extrapolation_value"}};
  for (const auto& [ours, theirs] : kCarried) setAttr(proto, theirs, *n.attrs().find(ours));
  if (keeps) {
    setAttr(proto, "keep_aspect_ratio_policy", n.string("policy"));
    setAttr(proto, "axes", axes);
    e.needOpset(18);
  }
  if (n.string("coordinate") == "half_pixel_symmetric") e.needOpset(19);
  if (n.integer("antialias")) {
    setInt(proto, "antialias", 1);
    e.needOpset(18);
  }
  return {};
}

Status dimValues(OnnxExporter& e, const Node& n) {
  QC_ASSIGN(std::string values, e.dims(n.attrs().dims("values")));
  const Ints& shape = n.integers("shape");
  if (const DType dtype = n.attrs().dtype("dtype"); dtype != DType::s64) values = e.castTo(dtype, n, values, "cast");
  if (shape.size() == 1)
    e.add(n, "Identity", {values}, e.resultNames(n));
  else
    e.add(n, "Reshape", {values, e.ints(shape)}, e.resultNames(n));
  return {};
}

}  // namespace

void addShapeExportRows(OnnxExportRows& rows) {
  rows.insert({{"reshape", reshape},
               {"expand", expand},
               {"tile", withSizes("Tile", "repeats")},
               {"split", split},
               {"slice", slice},
               {"resize", resize},
               {"dims", dimValues}});
}

}  // namespace qc
