// resize and q.resize: ONNX Resize with sizes and scales of full rank; a scale of 0 is that of the sizes, which may be free, or with a
// `policy` that keeps proportions the one that serves all dims with a `wanted` size.  Every dim has, for each result coordinate, a short
// list of taps (source index, weight); a result is the sum over all combinations of taps, outermost dim slowest, where the weight of a
// combination is the product of its taps' weights from the outermost dim inwards.  All of it in float32, every operation rounded by itself,
// so that a kernel can match the bits.  Coordinates as in ONNX's text, float32. With antialias, a dim that shrinks has the taps of the
// filter stretched over the elements that a result stands for, normalised. tf_crop_and_resize samples the box `roi` (starts, then ends, as
// fractions of each dim); what lies outside x is `extrapolation`. Tests: tests/unit/resize_ops_test.cpp.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "ir/batch_dims.h"
#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/gradients.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/resize.h"
#include "ir/ops/strided_copy.h"
#include "ir/qmath.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

float sourceCoordinate(const std::string& mode, int64_t o, float scale, int64_t in, int64_t out) {
  const auto x = static_cast<float>(o);
  if (mode == "asymmetric") return x / scale;
  if (mode == "align_corners") return out == 1 ? 0.0f : x * static_cast<float>(in - 1) / static_cast<float>(out - 1);
  if (mode == "tf_half_pixel_for_nn") return (x + 0.5f) / scale;
  if (mode == "pytorch_half_pixel" && out <= 1) return 0.0f;
  const float halfPixel = (x + 0.5f) / scale - 0.5f;
  if (mode != "half_pixel_symmetric") return halfPixel;
  const float adjustment = static_cast<float>(out) / (scale * static_cast<float>(in)), centre = static_cast<float>(in) / 2;
  return centre * (1 - adjustment) + halfPixel;
}

float nearestIndex(const std::string& mode, float x) {
  if (mode == "floor") return std::floor(x);
  if (mode == "ceil") return std::ceil(x);
  return mode == "round_prefer_ceil" ? std::floor(x + 0.5f) : std::ceil(x - 0.5f);
}

// ONNX's roi of one dim; the whole dim unless the coordinate mode crops.
struct Crop {
  float start = 0, end = 1;
  bool active = false;

  Crop(const AttrDict& attrs, size_t dim) {
    const auto& roi = attrs.reals("roi");
    active = attrs.string("coordinate") == "tf_crop_and_resize";
    if (!active) return;
    start = static_cast<float>(roi[dim]);
    end = static_cast<float>(roi[dim + roi.size() / 2]);
  }
  bool isWhole() const { return start == 0 && end == 1; }
  float coordinate(int64_t o, int64_t in, int64_t out) const {
    const auto last = static_cast<float>(in - 1);
    if (out <= 1) return 0.5f * (start + end) * last;
    return start * last + static_cast<float>(o) * (end - start) * last / static_cast<float>(out - 1);
  }
};

// The scale of a dim: its own, or that of the sizes.
float scaleOf(const AttrDict& attrs, size_t dim, std::span<const int64_t> in, std::span<const int64_t> out) {
  const double own = attrs.reals("scales")[dim];
  if (own != 0) return static_cast<float>(own);
  const auto ratio = [&](size_t d, double to) { return static_cast<float>(to / static_cast<double>(std::max<int64_t>(in[d], 1))); };
  const std::vector<DimExpr> wanted = attrs.dims("wanted");
  if (wanted.empty() || wanted[dim] == 0) return ratio(dim, static_cast<double>(out[dim]));
  const bool notLarger = attrs.string("policy") == "not_larger";
  std::optional<float> common;
  for (size_t d = 0; d < wanted.size(); ++d) {
    const int64_t to = wanted[d].constant().value_or(0);
    if (to == 0) continue;
    const float scale = ratio(d, static_cast<double>(to));
    common = !common ? scale : notLarger ? std::min(*common, scale) : std::max(*common, scale);
  }
  return common.value_or(1.0f);
}

// The filter of the mode, `stretch` elements of the source long where it is one of the result's.
std::vector<ResizeTap> stretchedTaps(float x, int64_t in, float scale, bool cubic, float a, bool excludeOutside) {
  const float base = std::ceil(x) - 1, fraction = x - base, stretch = std::min(scale, 1.0f);
  const auto reach = static_cast<int64_t>(std::ceil((cubic ? 2.0f : 1.0f) / stretch));
  const auto filter = [&](float d) {
    d = std::abs(d);
    if (!cubic) return std::max(1.0f - d, 0.0f);
    if (d <= 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
    return d < 2 ? ((a * d - 5 * a) * d + 8 * a) * d - 4 * a : 0.0f;
  };
  std::vector<ResizeTap> taps;
  float sum = 0;
  for (int64_t k = 1 - reach; k <= reach; ++k) {
    const int64_t index = static_cast<int64_t>(base) + k;
    const bool outside = index < 0 || index >= in;
    const float weight = outside && excludeOutside ? 0.0f : filter((static_cast<float>(k) - fraction) * stretch);
    taps.push_back({std::clamp<int64_t>(index, 0, in - 1), weight});
    sum += weight;
  }
  for (ResizeTap& tap : taps) tap.weight /= sum;
  return taps;
}

std::vector<ResizeTap> cubicTaps(float x, int64_t in, float a, bool excludeOutside) {
  const float base = std::floor(x), t = x - base;
  const auto outer = [&](float d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  const auto inner = [&](float d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
  const float weights[4] = {outer(t + 1), inner(t), inner(1 - t), outer(2 - t)};
  std::vector<ResizeTap> taps;
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    const int64_t index = static_cast<int64_t>(base) - 1 + k;
    const bool outside = index < 0 || index >= in;
    const float weight = outside && excludeOutside ? 0.0f : weights[k];
    taps.push_back({std::clamp<int64_t>(index, 0, in - 1), weight});
    sum += weight;
  }
  if (excludeOutside)
    for (ResizeTap& tap : taps) tap.weight /= sum;
  return taps;
}

// Of a resize that keeps proportions: the sizes are those that its policy gives.
Status checkProportions(const InferContext& c) {
  QC_TRY(requireOneOf(c, "policy", {"stretch", "not_larger", "not_smaller"}));
  const std::vector<DimExpr> wanted = c.attrs.dims("wanted"), sizes = c.attrs.dims("sizes");
  const bool keeps = c.attrs.string("policy") != "stretch";
  if (wanted.size() != (keeps ? sizes.size() : 0))
    return fail(ErrorCode::kInvalidModel, "{}: `wanted` has {} entries with policy {}", c.op, wanted.size(), c.attrs.string("policy"));
  if (!keeps) return {};
  std::vector<DimExpr> dims;
  for (const Dim& dim : c.type(0).shape) dims.push_back(dim.expr());
  const std::vector<DimExpr> own = proportionalSizes(dims, wanted, c.attrs.string("policy") == "not_larger");
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (wanted[d] == 0) continue;
    const auto is = sizes[d].constant(), should = own[d].constant();
    if (c.attrs.reals("scales")[d] != 0 || wanted[d].constant().value_or(1) < 0 || (is && should && *is != *should))
      return fail(ErrorCode::kInvalidModel, "{}: dim {} to size {} at scale {}, in proportion it is {} at scale 0", c.op, d, sizes[d].str(),
                  c.attrs.reals("scales")[d], own[d].str());
  }
  return {};
}

Result<Types> inferSizes(const InferContext& c, bool quantizedOp) {
  const TensorType& x = c.type(0);
  QC_TRY(requireLayout(c));
  QC_TRY(requireOneOf(c, "mode", {"nearest", "linear", "cubic"}));
  QC_TRY(requireOneOf(c, "coordinate",
                      {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric", "tf_half_pixel_for_nn",
                       "tf_crop_and_resize"}));
  QC_TRY(requireOneOf(c, "nearest", {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}));
  if (c.attrs.integer("antialias") && c.attrs.string("mode") == "nearest")
    return fail(ErrorCode::kInvalidModel, "{}: antialias in mode nearest", c.op);
  const std::vector<DimExpr> wanted = c.attrs.dims("sizes");
  Shape sizes(wanted.begin(), wanted.end());
  const auto& scales = c.attrs.reals("scales");
  if (sizes.size() != x.shape.size() || scales.size() != x.shape.size())
    return fail(ErrorCode::kInvalidModel, "{}: `sizes` and `scales` need {} entries for {}", c.op, x.rank(), describe(c, 0));
  QC_TRY(checkProportions(c));
  const auto& roi = c.attrs.reals("roi");
  if (c.attrs.string("coordinate") == "tf_crop_and_resize" &&
      (roi.size() != 2 * sizes.size() ||
       !std::all_of(roi.begin(), roi.end(), [](double r) { return std::isfinite(static_cast<float>(r)); })))
    return fail(ErrorCode::kInvalidModel, "{}: `roi` needs {} finite entries for {}", c.op, 2 * sizes.size(), describe(c, 0));
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d].isStatic()) sizes[d] = sizedBy(x.shape[d], sizes[d].size());
    const auto scale = static_cast<float>(scales[d]);
    if (wanted[d].constant().value_or(0) < 0 || (scales[d] != 0 && !(scale > 0)) || !std::isfinite(scale))
      return fail(ErrorCode::kInvalidModel, "{}: dim {} to size {} at scale {}", c.op, d, wanted[d].str(), scales[d]);
    if (x.shape[d] == Dim(0) && sizes[d].isStatic() && sizes[d].size() > 0)
      return fail(ErrorCode::kInvalidModel, "{} of the empty {}", c.op, describe(c, 0));
  }
  if (quantizedOp) {
    QC_TRY(requirePerTensor8Bit(c, 0));
    const QuantPtr& to = c.attrs.quant("to");
    QC_TRY(requirePerTensorTo(to));
    return checkedResults({TensorType(to, sizes)});
  }
  if (x.isQuantized() && (x.quant->perChannel() || c.attrs.string("mode") != "nearest"))
    return fail(ErrorCode::kUnsupported, "resize in mode {} of {}", c.attrs.string("mode"), describe(c, 0));
  if (c.attrs.string("mode") != "nearest" && x.dtype != DType::f32)
    return fail(ErrorCode::kUnsupported, "resize in mode {} of {}", c.attrs.string("mode"), describe(c, 0));
  return checkedResults({x.withShape(sizes)});
}

// Calls write(result element, weighted sum of what read(element offset) gives), or with `outside` where nothing is sampled.
template <class Read, class Write>
void forEachResult(const EvalContext& c, float outside, const Read& read, const Write& write) {
  const Ints in(c.in(0).sizes.begin(), c.in(0).sizes.end()), out(c.out().sizes.begin(), c.out().sizes.end());
  const Ints strides = denseStrides(in);
  std::vector<std::vector<std::vector<ResizeTap>>> taps;
  for (size_t d = 0; d < in.size(); ++d) taps.push_back(resizeTaps(c.node.attrs(), d, in, out));
  struct Corner {
    int64_t offset;
    float weight;
  };
  Ints at(out.size(), 0);
  std::vector<Corner> corners, grown;
  const int64_t n = numElements(out);
  for (int64_t i = 0; i < n; ++i) {
    corners.assign(1, {0, 1.0f});
    for (size_t d = 0; d < at.size(); ++d) {
      const auto& list = nth(taps[d], at[d]);
      grown.clear();
      for (const Corner& corner : corners)
        for (const ResizeTap& tap : list) grown.push_back({corner.offset + tap.index * strides[d], corner.weight * tap.weight});
      corners.swap(grown);
    }
    float sum = outside;
    for (size_t k = 0; k < corners.size(); ++k) {
      const float term = corners[k].weight * read(corners[k].offset);
      sum = k ? sum + term : term;
    }
    write(i, sum);
    for (size_t d = at.size(); d-- > 0;) {
      if (++at[d] < out[d]) break;
      at[d] = 0;
    }
  }
}

Status evalNearest(const EvalContext& c) {
  const Ints in(c.in(0).sizes.begin(), c.in(0).sizes.end()), out(c.out().sizes.begin(), c.out().sizes.end());
  const Ints strides = denseStrides(in);
  std::vector<std::vector<std::vector<ResizeTap>>> taps;
  for (size_t d = 0; d < in.size(); ++d) taps.push_back(resizeTaps(c.node.attrs(), d, in, out));
  const int64_t bytes = sizeOf(c.in(0).dtype), n = numElements(out);
  const char* from = c.in(0).as<char>();
  std::array<char, 8> outside{};
  const double extrapolation = c.node.real("extrapolation");
  const QuantPtr& quant = c.inType(0).quant;
  storeElement(c.in(0).dtype, outside.data(), 0,
               quant ? qmath::quantize(static_cast<float>(extrapolation), quant->scale(), quant->zeroPoint(),
                                       static_cast<int32_t>(quant->qmin), static_cast<int32_t>(quant->qmax))
                     : extrapolation);
  char* to = c.out().as<char>();
  Ints at(out.size(), 0);
  for (int64_t i = 0; i < n; ++i) {
    int64_t offset = 0;
    for (size_t d = 0; d < at.size() && offset >= 0; ++d) {
      const auto& list = nth(taps[d], at[d]);
      offset = list.empty() ? -1 : offset + list.front().index * strides[d];
    }
    std::memcpy(to + i * bytes, offset < 0 ? outside.data() : from + offset * bytes, usize(bytes));
    for (size_t d = at.size(); d-- > 0;) {
      if (++at[d] < out[d]) break;
      at[d] = 0;
    }
  }
  return {};
}

Status evalResize(const EvalContext& c) {
  if (c.node.string("mode") == "nearest") return evalNearest(c);
  const float* x = c.in(0).as<float>();
  float* y = c.out().as<float>();
  forEachResult(
      c, static_cast<float>(c.node.real("extrapolation")), [&](int64_t offset) { return x[offset]; },
      [&](int64_t i, float v) { y[i] = v; });
  return {};
}

Status evalQuantizedResize(const EvalContext& c) {
  const QuantParams& from = *c.inType(0).quant;
  const QuantParams& to = *c.outType().quant;
  const float multiplier = from.scale() / to.scale();
  forEachResult(
      c, static_cast<float>(c.node.real("extrapolation")) / from.scale(),
      [&](int64_t offset) { return static_cast<float>(loadElement(c.in(0).dtype, c.in(0).data, offset) - from.zeroPoint()); },
      [&](int64_t i, float v) {
        storeElement(c.out().dtype, c.out().data, i,
                     qmath::roundClamp(v * multiplier, to.zeroPoint(), static_cast<int32_t>(to.qmin), static_cast<int32_t>(to.qmax)));
      });
  return {};
}

}  // namespace

template <typename Real>
std::optional<std::pair<int64_t, int64_t>> fractionOf(Real scale, bool up) {
  constexpr int64_t kLargestDivisor = 64, kTried = 1 << 14;
  for (int64_t q = 1; q <= kLargestDivisor; ++q) {
    const double p = std::round(static_cast<double>(scale) * static_cast<double>(q));
    if (!(p >= 1 && p <= 1e6) || static_cast<Real>(p / static_cast<double>(q)) != scale) continue;
    const auto numerator = static_cast<int64_t>(p);
    // What the rounding of products does is tried, not proved.
    for (int64_t n = 1; n <= kTried; ++n) {
      const Real product = static_cast<Real>(n) * scale;
      const int64_t whole = (n * numerator + (up ? q - 1 : 0)) / q;
      if ((up ? std::ceil(product) : std::floor(product)) != static_cast<Real>(whole)) return std::nullopt;
    }
    return std::pair(numerator, q);
  }
  return std::nullopt;
}
template std::optional<std::pair<int64_t, int64_t>> fractionOf(float, bool);
template std::optional<std::pair<int64_t, int64_t>> fractionOf(double, bool);

std::optional<DimExpr> resizedSize(const DimExpr& dim, float scale) {
  constexpr float kLargest = 1e9f;
  if (const auto size = dim.constant()) {
    const float scaled = static_cast<float>(*size) * scale;
    return scaled >= 0 && scaled <= kLargest ? std::optional(DimExpr(static_cast<int64_t>(scaled))) : std::nullopt;
  }
  const auto fraction = fractionOf(scale);
  return fraction ? std::optional(floorDiv(dim * fraction->first, fraction->second)) : std::nullopt;
}

std::vector<DimExpr> proportionalSizes(std::span<const DimExpr> dims, std::span<const DimExpr> wanted, bool notLarger) {
  std::vector<DimExpr> sizes(dims.begin(), dims.end());
  for (size_t d = 0; d < sizes.size(); ++d) {
    std::optional<DimExpr> size;
    for (size_t by = 0; by < dims.size() && wanted[d] != 0; ++by) {
      if (wanted[by] == 0) continue;
      const DimExpr from = dims[by] == 0 ? 1 : dims[by];
      const DimExpr other = by == d ? wanted[d] : floorDiv(wanted[by] * dims[d] * 2 + from, from * 2);
      size = !size ? other : notLarger ? min(*size, other) : max(*size, other);
    }
    if (size) sizes[d] = *size;
  }
  return sizes;
}

std::vector<std::vector<ResizeTap>> resizeTaps(const AttrDict& attrs, size_t dim, std::span<const int64_t> ins,
                                               std::span<const int64_t> outs) {
  const int64_t in = ins[dim], out = outs[dim];
  const float scale = scaleOf(attrs, dim, ins, outs);
  const std::string& mode = attrs.string("mode");
  const Crop crop(attrs, dim);
  const bool stretched = attrs.integer("antialias") != 0 && scale < 1;
  const auto cubicA = static_cast<float>(attrs.real("cubic_a"));
  const bool excludeOutside = attrs.integer("exclude_outside") != 0;
  std::vector<std::vector<ResizeTap>> taps;
  for (int64_t o = 0; o < out; ++o) {
    if (in == out && scale == 1.0f && crop.isWhole()) {
      taps.push_back({{o, 1.0f}});
      continue;
    }
    // The borders repeat, so that far outside is as good as a few elements outside; then every conversion is defined.
    const float far = static_cast<float>(in) + 4;
    const float wanted = crop.active ? crop.coordinate(o, in, out) : sourceCoordinate(attrs.string("coordinate"), o, scale, in, out);
    if (crop.active && !(wanted >= 0 && wanted <= static_cast<float>(in - 1))) {
      taps.emplace_back();
      continue;
    }
    const float x = std::isnan(wanted) ? 0.0f : std::clamp(wanted, -far, far);
    if (stretched) {
      taps.push_back(stretchedTaps(x, in, scale, mode == "cubic", cubicA, excludeOutside));
    } else if (mode == "nearest") {
      const auto index = std::clamp<int64_t>(static_cast<int64_t>(nearestIndex(attrs.string("nearest"), x)), 0, in - 1);
      taps.push_back({{index, 1.0f}});
    } else if (mode == "linear") {
      const float inside = std::clamp(x, 0.0f, static_cast<float>(in - 1)), low = std::floor(inside);
      const auto first = std::min(static_cast<int64_t>(low), in - 1);
      const int64_t second = std::min(first + 1, in - 1);
      const float fraction = inside - low;
      taps.push_back({{first, 1.0f - fraction}, {second, fraction}});
    } else {
      taps.push_back(cubicTaps(x, in, cubicA, excludeOutside));
    }
  }
  return taps;
}

void registerResizeOps(OpRegistry& r) {
  OpDef def;
  def.name = "resize";
  def.summary = "nearest, linear or cubic interpolation to given sizes";
  def.operands = {{"x"}};
  def.attrs = {perDimAttr("sizes"),
               {"scales", AttrKind::reals, std::nullopt, AttrMeaning::perDim},
               stringAttr("policy", "stretch"),
               {"wanted", AttrKind::dims, Attr(std::vector<int64_t>{}), AttrMeaning::perDim},
               stringAttr("mode", "nearest"),
               stringAttr("coordinate", "half_pixel"),
               stringAttr("nearest", "round_prefer_floor"),
               realAttr("cubic_a", -0.75),
               integerAttr("exclude_outside", 0),
               integerAttr("antialias", 0),
               {"roi", AttrKind::reals, Attr(std::vector<double>{}), AttrMeaning::perDimPair},
               realAttr("extrapolation", 0.0),
               layoutAttr()};
  def.attrs.front().neutral = kWholeDim;
  def.traits = kPure;
  def.infer = [](const InferContext& c) { return inferSizes(c, false); };
  def.eval = evalResize;
  def.batch = batchOfResize;
  OpDef quantized = def;
  def.gradient = resizeGradient;
  r.add(std::move(def));
  quantized.name = "q.resize";
  quantized.summary = "interpolation of 8-bit integers, rounded once";
  quantized.attrs.push_back(resultQuantAttr(true));
  quantized.infer = [](const InferContext& c) { return inferSizes(c, true); };
  quantized.eval = evalQuantizedResize;
  r.add(std::move(quantized));
}

}  // namespace qc
