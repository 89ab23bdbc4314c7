// Resize and Upsample, read.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "frontend/onnx/converters.h"
#include "ir/ops/resize.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

// roi over all dims: starts, then ends; whole dims where the operand names no axis.
Result<std::vector<double>> cropBox(OnnxNode& n, size_t rank, const std::vector<size_t>& axes) {
  QC_ASSIGN(const Tensor* box, n.constant(1, "roi"));
  if (box->numElements() != static_cast<int64_t>(2 * axes.size()))
    return n.error(ErrorCode::kInvalidModel, "{} numbers in roi", box->numElements());
  std::vector<double> roi(rank, 0.0);
  roi.resize(2 * rank, 1.0);
  for (size_t i = 0; i < axes.size(); ++i) {
    roi[axes[i]] = box->at(static_cast<int64_t>(i));
    roi[axes[i] + rank] = box->at(static_cast<int64_t>(i + axes.size()));
  }
  return roi;
}

// How much larger a dim becomes; 0: that depends on free sizes.
double ratio(const DimExpr& to, const DimExpr& from) {
  if (to.constant() && from.constant())
    return static_cast<double>(*to.constant()) / static_cast<double>(std::max<int64_t>(*from.constant(), 1));
  const auto factor = floorDiv(to, from).constant();
  return factor && to == from * *factor ? static_cast<double>(*factor) : 0;
}

// What a float makes of a free dim, where no fraction says it: computed when the dim is bound.
Result<DimExpr> scaledInFloat(OnnxNode& n, const DimExpr& dim, float scale) {
  QC_ASSIGN(Value * size, n.create("cast", {n.dimValues({1}, {dim})}, {{"to", DType::f32}}));
  QC_ASSIGN(size, n.create("mul", {size, n.scalar(scale)}));
  QC_ASSIGN(size, n.create("floor", {size}));
  QC_ASSIGN(size, n.create("cast", {size}, {{"to", DType::s64}}));
  QC_ASSIGN(const auto sizes, n.sizesFrom(size));
  if (!sizes) return n.error(ErrorCode::kUnsupported, "a scale of {} for the free dim {}", scale, dim.str());
  return sizes->front();
}

Status resize(OnnxNode& n) {
  const Dims dims = n.dims(0);
  const size_t rank = dims.size();
  const bool upsample = n.op() == "Upsample";
  QC_ASSIGN(std::string mode, n.string("mode", "nearest"));
  if (mode == "bilinear" || mode == "trilinear") mode = "linear";
  // Opset 10 and Upsample sample at o / scale and take the floor.
  const bool old = upsample || n.opset() < 11;
  QC_ASSIGN(const std::string coordinate, n.string("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"));
  QC_ASSIGN(const std::string nearest, n.string("nearest_mode", old ? "floor" : "round_prefer_floor"));
  QC_ASSIGN(const double cubic, n.real("cubic_coeff_a", -0.75));
  QC_ASSIGN(const int64_t exclude, n.integer("exclude_outside", 0));
  QC_ASSIGN(const int64_t antialias, n.integer("antialias", 0));
  QC_ASSIGN(const std::string policy, n.string("keep_aspect_ratio_policy", "stretch"));
  QC_ASSIGN(const double extrapolation, n.real("extrapolation_value", 0.0));
  if (policy != "stretch" && policy != "not_larger" && policy != "not_smaller")
    return n.error(ErrorCode::kInvalidModel, "keep_aspect_ratio_policy '{}'", policy);
  std::vector<double> scales(rank, 1.0);
  const auto present = [&](int i) { return n.input(i) && !(n.type(i).isStatic() && n.type(i).numElements() == 0); };
  const int scalesAt = old ? 1 : 2;
  const bool keeps = policy != "stretch" && !old && present(3);
  Dims sizes = dims, proportional(keeps ? rank : 0, 0);
  std::vector<size_t> axes(rank);
  std::iota(axes.begin(), axes.end(), 0);
  if (n.has("axes")) {
    QC_ASSIGN(const Ints raw, n.integers("axes"));
    axes.clear();
    for (const int64_t a : raw) {
      QC_ASSIGN(const int64_t axis, n.axis(a, static_cast<int64_t>(rank)));
      axes.push_back(usize(axis));
    }
  }
  std::vector<double> roi;
  if (coordinate == "tf_crop_and_resize") {
    QC_ASSIGN(roi, cropBox(n, rank, axes));
  }
  if (!old && present(3)) {
    QC_ASSIGN(const Dims wanted, n.constantDims(3, "sizes"));
    if (wanted.size() != axes.size()) return n.error(ErrorCode::kInvalidModel, "{} sizes", wanted.size());
    for (size_t i = 0; i < axes.size(); ++i) {
      sizes[axes[i]] = wanted[i];
      scales[axes[i]] = keeps ? 0 : ratio(wanted[i], dims[axes[i]]);
      if (!keeps) continue;
      if (wanted[i].constant().value_or(1) < 1) return n.error(ErrorCode::kInvalidModel, "a size of {}", wanted[i].str());
      proportional[axes[i]] = wanted[i];
    }
    if (keeps) sizes = proportionalSizes(dims, proportional, policy == "not_larger");
    for (const DimExpr& size : sizes) {
      if (keeps && size.isUnknown()) return n.error(ErrorCode::kUnsupported, "no expression says the sizes by keep_aspect_ratio_policy");
      if (size.constant().value_or(0) > 1'000'000'000) return n.error(ErrorCode::kInvalidModel, "a size of {}", size.str());
    }
  } else {
    std::vector<double> wanted;
    if (present(scalesAt)) {
      QC_ASSIGN(const Tensor* t, n.constant(scalesAt, "scales"));
      for (int64_t i = 0; i < t->numElements(); ++i) wanted.push_back(t->at(i));
    } else {
      QC_ASSIGN(wanted, n.reals("scales"));
    }
    if (wanted.size() != axes.size()) return n.error(ErrorCode::kInvalidModel, "{} scales", wanted.size());
    for (size_t i = 0; i < axes.size(); ++i) {
      scales[axes[i]] = wanted[i];
      const DimExpr& dim = dims[axes[i]];
      if (!(wanted[i] > 0)) return n.error(ErrorCode::kInvalidModel, "a scale of {}", wanted[i]);
      const auto size = resizedSize(dim, static_cast<float>(wanted[i]));
      if (!size && dim.constant()) return n.error(ErrorCode::kInvalidModel, "a scale of {}", wanted[i]);
      if (size) {
        sizes[axes[i]] = *size;
      } else {
        QC_ASSIGN(sizes[axes[i]], scaledInFloat(n, dim, static_cast<float>(wanted[i])));
      }
    }
  }
  QC_ASSIGN(Value * y, n.create("resize", {n.input(0)},
                                {{"sizes", sizes},
                                 {"scales", scales},
                                 {"policy", keeps ? policy : "stretch"},
                                 {"wanted", proportional},
                                 {"mode", mode},
                                 {"coordinate", coordinate},
                                 {"nearest", nearest},
                                 {"cubic_a", cubic},
                                 {"exclude_outside", exclude},
                                 {"antialias", antialias},
                                 {"roi", roi},
                                 {"extrapolation", extrapolation}}));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxResizeOps() {
  static const OnnxOp kOps[] = {
      {.name = "Resize", .minInputs = 1, .maxInputs = 4, .convert = resize, .freeDims = true},
      {.name = "Upsample", .minInputs = 1, .maxInputs = 2, .convert = resize, .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
