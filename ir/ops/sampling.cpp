// Ops that read an image at positions which data gives: grid_sample, roi_align.  Arithmetic in float, in double for f64, every operation
// rounded by itself.
//
//   grid_sample   x [N, C, d1 .. dk], grid [N, o1 .. ok, k] -> [N, C, o1 .. ok].  The last dim of the grid holds a position, innermost dim
//                 first, -1 and 1 being the ends of x.  As ONNX Runtime's: a position that lies outside is first moved inside by border and
//                 reflection, then its taps are, one by one; but of mode cubic the taps alone, weighted by the
//                 position where it is, which PyTorch does too.  A NaN of the grid makes a NaN of the result, but for mode nearest
//   roi_align     x [N, C, H, W], boxes [R, 4] (left, top, right, bottom), batch [R] -> [R, C, height, width]: the mean of samples
//                 spread evenly over each bin of a box, or the largest of their four weighted neighbours
//
// Tests: tests/unit/sampling_ops_test.cpp.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "ir/op_def.h"
#include "ir/ops/batches.h"
#include "ir/ops/convert.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/sampling.h"
#include "ir/ops/strided_copy.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;

template <class T>
std::vector<T> elementsOf(const TensorRef& t) {
  std::vector<T> all(usize(t.numElements()));
  loadElements(t.dtype, t.data, 0, 1, t.numElements(), all.data());
  return all;
}

// The arithmetic type of a float dtype: double for f64, else float.
template <class Visit>
Status withFloats(DType dtype, Visit&& visit) {
  return dtype == DType::f64 ? visit.template operator()<double>() : visit.template operator()<float>();
}

// ---- grid_sample ------------------------------------------------------------------------------

Result<Types> inferGridSample(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requirePlainFloat(c, 1));
  QC_TRY(requireRank(c, 0, 3));
  QC_TRY(requireRank(c, 1, c.type(0).rank(), c.type(0).rank()));
  QC_TRY(requireOneOf(c, "mode", {"linear", "nearest", "cubic"}));
  QC_TRY(requireOneOf(c, "padding_mode", {"zeros", "border", "reflection"}));
  const Shape &x = c.type(0).shape, &grid = c.type(1).shape;
  const auto spatial = static_cast<int64_t>(x.size()) - 2;
  if (!compatible(grid.back(), Dim(spatial)) || !compatible(grid.front(), x.front()))
    return fail(ErrorCode::kInvalidModel, "{}: {} does not hold positions in {} dims of {}", c.op, describe(c, 1), spatial, describe(c, 0));
  for (size_t d = 2; d < x.size(); ++d)
    if (x[d] == Dim(0)) return fail(ErrorCode::kInvalidModel, "{} of the empty {}", c.op, describe(c, 0));
  Shape shape{x[0], x[1]};
  shape.insert(shape.end(), grid.begin() + 1, grid.end() - 1);
  return checkedResults({c.type(0).withShape(std::move(shape))});
}

enum class Beyond : uint8_t { zeros, border, reflection };

// One dim of the image, as sampledTaps() has it.
struct SampledDim {
  Beyond beyond;
  ScalarExpr last, first, ends;  // the outer elements' number; where the image begins and ends

  SampledDim(Beyond beyond_, bool aligned)
      : beyond(beyond_),
        last(size() - 1.f),
        first(aligned ? 0.f : -0.5f),
        ends(aligned ? last : size() - 0.5f) {}  // -1 and 1 are the centres of the outer elements, or their edges

  static ScalarExpr grid() { return ScalarExpr::arg(0); }
  static ScalarExpr size() { return ScalarExpr::arg(1); }

  ScalarExpr isInside(const ScalarExpr& p) const { return expr::le(first, p) * expr::le(p, ends); }

  // Back and forth between the ends.  The remainder has no rounding where `p` has a fraction.
  ScalarExpr reflected(const ScalarExpr& p) const {
    const ScalarExpr range = ends - first, below = expr::lt(p, first), far = expr::select(below, first - p, p - ends);
    const ScalarExpr turns = floor(far / range), rest = far - turns * range, isOdd = turns - 2.f * floor(turns / 2.f);
    const ScalarExpr turned = expr::select(expr::eq(below, isOdd), ends - rest, first + rest);
    return expr::select(expr::lt(0.f, range), expr::select(isInside(p), p, turned), first);
  }

  // Where the positions go that lie outside.
  ScalarExpr inside(const ScalarExpr& p) const {
    if (beyond == Beyond::zeros) return p;
    if (beyond == Beyond::reflection) return reflected(p);
    return expr::select(isInside(p), p, expr::clamp(p, 0.f, last));
  }

  // Of a whole number.  NaN counts as far outside.
  ScalarExpr indexOf(const ScalarExpr& whole) const {
    if (beyond == Beyond::zeros) return expr::select(expr::le(0.f, whole) * expr::le(whole, last), whole, -1.f);
    return expr::min(expr::max(beyond == Beyond::reflection ? reflected(whole) : whole, 0.f), last);
  }

  static ScalarExpr floor(const ScalarExpr& x) { return expr::unary(ScalarExpr::Op::floor, x); }
};

template <class T>
struct Sampler {
  struct Tap {
    std::vector<int64_t> indices;  // by position; -1: outside, where there are zeros
    std::vector<T> weights;
  };
  std::vector<std::vector<Tap>> dims;  // outermost first
  Ints strides;

  // The weighted sum over dim d and those inside it, at a position.
  T sum(const T* plane, size_t d, int64_t position) const {
    if (d == dims.size()) return *plane;
    T all = 0;
    for (const Tap& tap : dims[d]) {
      const int64_t index = nth(tap.indices, position);
      all += nth(tap.weights, position) * (index < 0 ? T(0) : sum(plane + index * nth(strides, d), d + 1, position));
    }
    return all;
  }
};

template <class T>
Status sampleGrid(const EvalContext& c) {
  const std::vector<T> x = elementsOf<T>(c.in(0)), grid = elementsOf<T>(c.in(1));
  const Ints in(c.in(0).sizes.begin(), c.in(0).sizes.end()), spatial(in.begin() + 2, in.end());
  const std::vector<SampledTap> taps = sampledTaps(c.node);
  const auto rank = std::ssize(spatial), all = std::ssize(grid) / rank;
  const int64_t plane = numElements(spatial), channels = in[1], positions = in[0] == 0 ? 0 : all / in[0];
  Sampler<T> sampler{.dims = {}, .strides = denseStrides(spatial)};
  for (int64_t d = 0; d < rank; ++d) {
    const auto size = static_cast<T>(nth(spatial, d));
    std::vector<T> along(usize(all)), whole(usize(all));
    for (int64_t i = 0; i < all; ++i) nth(along, i) = nth(grid, i * rank + rank - 1 - d);
    const auto compute = [&](const ScalarExpr& expression, std::vector<T>& to) {
      ExprProgram(expression).run<T>(std::array{std::as_const(along).data(), &size}, std::array{1, 0}, to.data(), all);
    };
    sampler.dims.emplace_back();
    for (const SampledTap& tap : taps) {
      auto& [indices, weights] = sampler.dims.back().emplace_back();
      compute(tap.index, whole);
      for (const T index : whole) indices.push_back(std::min(static_cast<int64_t>(index), nth(spatial, d) - 1));
      compute(tap.weight, weights = std::vector<T>(usize(all)));
    }
  }
  std::vector<T> y(usize(c.out().numElements()));
  for (int64_t n = 0; n < in[0]; ++n)
    for (int64_t k = 0; k < channels; ++k)
      for (int64_t i = 0; i < positions; ++i)
        nth(y, (n * channels + k) * positions + i) = sampler.sum(x.data() + (n * channels + k) * plane, 0, n * positions + i);
  storeElements(c.out().dtype, y.data(), c.out().data, 0, std::ssize(y));
  return {};
}

Status evalGridSample(const EvalContext& c) {
  return withFloats(c.in(0).dtype, [&]<class T>() { return sampleGrid<T>(c); });
}

// ---- roi_align --------------------------------------------------------------------------------

Result<Types> inferRoiAlign(const InferContext& c) {
  QC_TRY(requirePlainFloat(c, 0));
  QC_TRY(requireRank(c, 0, 4, 4));
  QC_TRY(requireSameDType(c, 1, 0));
  QC_TRY(requireRank(c, 1, 2, 2));
  const Shape &x = c.type(0).shape, &boxes = c.type(1).shape;
  if (!compatible(boxes[1], Dim(4))) return fail(ErrorCode::kInvalidModel, "{}: {} does not hold boxes of 4 numbers", c.op, describe(c, 1));
  QC_TRY(requireVector(c, 2, boxes[0]));
  if (c.type(2).dtype != DType::s64 && c.type(2).dtype != DType::s32)
    return fail(ErrorCode::kInvalidModel, "{}: {} must be s32 or s64", c.op, describe(c, 2));
  QC_TRY(requireOneOf(c, "mode", {"avg", "max"}));
  QC_TRY(requireOneOf(c, "coordinate_transformation_mode", {"half_pixel", "output_half_pixel"}));
  const int64_t height = c.attrs.integer("output_height"), width = c.attrs.integer("output_width"),
                samples = c.attrs.integer("sampling_ratio");
  if (height < 1 || width < 1 || height > kMaxTensorBytes || width > kMaxTensorBytes)
    return fail(ErrorCode::kInvalidModel, "{} to {}x{}", c.op, height, width);
  if (samples < 0 || samples > kMaxBin) return fail(ErrorCode::kInvalidModel, "{}: {} samples for each side of a bin", c.op, samples);
  return checkedResults({c.type(0).withShape({boxes[0], x[1], Dim(height), Dim(width)})});
}

// A sample of an image: four neighbours with their weights.  Beyond the image by more than a pixel there are zeros.
template <class T>
struct FourNeighbours {
  std::array<int64_t, 4> offsets{};
  std::array<T, 4> weights{};

  FourNeighbours(T y, T x, int64_t height, int64_t width) {
    if (!(y >= -1 && y <= static_cast<T>(height) && x >= -1 && x <= static_cast<T>(width))) return;
    const auto [top, bottom, low] = split(y, height);
    const auto [left, right, near] = split(x, width);
    offsets = {top * width + left, top * width + right, bottom * width + left, bottom * width + right};
    weights = {(1 - low) * (1 - near), (1 - low) * near, low * (1 - near), low * near};
  }

 private:
  struct Split {
    int64_t below, above;
    T share;  // of the one above
  };
  static Split split(T at, int64_t size) {
    at = std::max(at, T(0));
    const auto whole = static_cast<int64_t>(at);
    if (whole >= size - 1) return {size - 1, size - 1, 0};
    return {whole, whole + 1, at - static_cast<T>(whole)};
  }
};

// One side of a box: where its bins begin, how long they are, how many samples each has.
template <class T>
struct Side {
  T start, bin;
  int64_t samples;

  T at(int64_t bin_, int64_t sample) const {
    return start + static_cast<T>(bin_) * bin + (static_cast<T>(sample) + T(0.5)) * bin / static_cast<T>(samples);
  }
};

template <class T>
Result<Side<T>> sideOf(const Node& node, T from, T to, int64_t bins) {
  const auto scale = static_cast<T>(node.real("spatial_scale"));
  const bool halfPixel = node.string("coordinate_transformation_mode") == "half_pixel";
  const T offset = halfPixel ? T(0.5) : T(0), start = from * scale - offset;
  T length = to * scale - offset - start;
  if (!halfPixel) length = std::max(length, T(1));
  const T bin = length / static_cast<T>(bins);
  if (!std::isfinite(start) || !std::isfinite(bin)) return fail(ErrorCode::kInvalidData, "a box from {} to {}", from, to);
  int64_t samples = node.integer("sampling_ratio");
  if (samples == 0) {
    if (bin > kMaxBin) return fail(ErrorCode::kInvalidData, "a box from {} to {}, more than {} samples for each bin", from, to, kMaxBin);
    samples = static_cast<int64_t>(std::ceil(std::max(bin, T(0))));
  }
  return Side<T>{start, bin, samples};
}

template <class T>
Status alignBoxes(const EvalContext& c) {
  const std::vector<T> x = elementsOf<T>(c.in(0)), boxes = elementsOf<T>(c.in(1));
  const std::vector<int64_t> batch = elementsOf<int64_t>(c.in(2));
  const int64_t images = c.in(0).sizes[0], channels = c.in(0).sizes[1], height = c.in(0).sizes[2], width = c.in(0).sizes[3];
  const int64_t rows = c.out().sizes[2], columns = c.out().sizes[3];
  const bool largest = c.node.string("mode") == "max";
  std::vector<T> y(usize(c.out().numElements()));
  for (int64_t r = 0; r < std::ssize(batch); ++r) {
    const int64_t image = nth(batch, r);
    if (image < 0 || image >= images) return fail(ErrorCode::kInvalidData, "box {} is of image {}, there are {}", r, image, images);
    const T* box = &nth(boxes, 4 * r);
    QC_ASSIGN(const Side<T> down, sideOf(c.node, box[1], box[3], rows));
    QC_ASSIGN(const Side<T> across, sideOf(c.node, box[0], box[2], columns));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        std::vector<FourNeighbours<T>> samples;
        for (int64_t v = 0; v < down.samples && height > 0 && width > 0; ++v)
          for (int64_t u = 0; u < across.samples; ++u) samples.emplace_back(down.at(i, v), across.at(j, u), height, width);
        for (int64_t k = 0; k < channels; ++k) {
          const T* plane = x.data() + (image * channels + k) * height * width;
          T sum = 0, most = std::numeric_limits<T>::lowest();
          for (const auto& [offsets, weights] : samples)
            for (size_t n = 0; n < 4; ++n) {
              const T term = weights[n] * plane[offsets[n]];
              sum += term;
              most = std::max(most, term);
            }
          const T mean = samples.empty() ? T(0) : sum / static_cast<T>(samples.size());
          nth(y, ((r * channels + k) * rows + i) * columns + j) = !largest ? mean : samples.empty() ? T(0) : most;
        }
      }
  }
  storeElements(c.out().dtype, y.data(), c.out().data, 0, std::ssize(y));
  return {};
}

Status evalRoiAlign(const EvalContext& c) {
  return withFloats(c.in(0).dtype, [&]<class T>() { return alignBoxes<T>(c); });
}

}  // namespace

std::vector<SampledTap> sampledTaps(const Node& gridSample) {
  const std::string &mode = gridSample.string("mode"), &padding = gridSample.string("padding_mode");
  const bool aligned = gridSample.integer("align_corners") != 0;
  const SampledDim dim(padding == "zeros" ? Beyond::zeros : padding == "border" ? Beyond::border : Beyond::reflection, aligned);
  const ScalarExpr from = SampledDim::grid() + 1.f, size = SampledDim::size();
  ScalarExpr p = aligned ? from / 2.f * dim.last : (from * size - 1.f) / 2.f;
  if (mode == "nearest") return {{dim.indexOf(dim.inside(expr::unary(ScalarExpr::Op::round, p))), 1.f}};
  if (mode == "linear") p = dim.inside(p);
  const ScalarExpr base = SampledDim::floor(p), t = p - base;
  if (mode == "linear") return {{dim.indexOf(base), 1.f - t}, {dim.indexOf(base + 1.f), t}};
  constexpr float a = -0.75f;
  const auto outer = [&](const ScalarExpr& d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
  const auto inner = [&](const ScalarExpr& d) { return ((a + 2) * d - (a + 3)) * d * d + 1.f; };
  return {{dim.indexOf(base - 1.f), outer(t + 1.f)},
          {dim.indexOf(base), inner(t)},
          {dim.indexOf(base + 1.f), inner(1.f - t)},
          {dim.indexOf(base + 2.f), outer(2.f - t)}};
}

void registerSamplingOps(OpRegistry& r) {
  constexpr const char* kNoGradient = "none is built through positions that data gives";
  OpDef grid;
  grid.name = "grid_sample";
  grid.summary = "x at the positions of a grid";
  grid.operands = {{"x"}, {"grid"}};
  grid.attrs = {stringAttr("mode", "linear"), stringAttr("padding_mode", "zeros"), integerAttr("align_corners", 0)};
  grid.infer = inferGridSample;
  grid.eval = evalGridSample;
  grid.noGradient = kNoGradient;
  grid.batch = leadingBatch;
  r.add(std::move(grid));

  OpDef boxes;
  boxes.name = "roi_align";
  boxes.summary = "samples of x over the bins of boxes, averaged";
  boxes.operands = {{"x"}, {"boxes"}, {"batch"}};
  boxes.attrs = {stringAttr("mode", "avg"),      integerAttr("output_height", 1),
                 integerAttr("output_width", 1), integerAttr("sampling_ratio", 0),
                 realAttr("spatial_scale", 1),   stringAttr("coordinate_transformation_mode", "half_pixel")};
  boxes.infer = inferRoiAlign;
  boxes.eval = evalRoiAlign;
  boxes.noGradient = kNoGradient;
  r.add(std::move(boxes));
}

}  // namespace qc
