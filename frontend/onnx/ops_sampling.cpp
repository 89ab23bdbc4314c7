// ONNX ops that read images at positions which data gives, or put together what was cut from them.
#include <algorithm>
#include <utility>

#include "frontend/onnx/converters.h"
#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/window.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

// The modes had other names below opset 20.
std::string modeNow(const std::string& mode) { return mode == "bilinear" ? "linear" : mode == "bicubic" ? "cubic" : mode; }

Status gridSample(OnnxNode& n) {
  QC_ASSIGN(const std::string mode, n.string("mode", "linear"));
  QC_ASSIGN(const std::string padding, n.string("padding_mode", "zeros"));
  QC_ASSIGN(const int64_t aligned, n.integer("align_corners", 0));
  QC_ASSIGN(Value * y, n.create("grid_sample", {n.input(0), n.input(1)},
                                {{"mode", modeNow(mode)}, {"padding_mode", padding}, {"align_corners", aligned}}));
  return n.setOutput(y);
}

// Opset 10 has no half pixels.
Status roiAlign(OnnxNode& n) {
  const std::string byDefault = n.opset() < 16 ? "output_half_pixel" : "half_pixel";
  QC_ASSIGN(const std::string coordinate, n.string("coordinate_transformation_mode", byDefault));
  QC_ASSIGN(const std::string mode, n.string("mode", "avg"));
  QC_ASSIGN(const int64_t height, n.integer("output_height", 1));
  QC_ASSIGN(const int64_t width, n.integer("output_width", 1));
  QC_ASSIGN(const int64_t samples, n.integer("sampling_ratio", 0));
  QC_ASSIGN(const double scale, n.real("spatial_scale", 1.0));
  QC_ASSIGN(Value * y, n.create("roi_align", {n.input(0), n.input(1), n.input(2)},
                                {{"mode", mode},
                                 {"output_height", height},
                                 {"output_width", width},
                                 {"sampling_ratio", samples},
                                 {"spatial_scale", scale},
                                 {"coordinate_transformation_mode", coordinate}}));
  return n.setOutput(y);
}

// Places of elements as positions between -1 and 1 of a dim, by the centres of the elements or by the outermost ones.  Of one element
// alone, which is both of the outermost, implementations differ: for PyTorch it lies at 0, for ONNX Runtime at 1, for ONNX's reference at
// -1, as here.
Result<Value*> positionsOf(OnnxNode& n, Value* place, const DimExpr& size, bool aligned) {
  QC_ASSIGN(place, n.create("mul", {place, n.scalar(2)}));
  if (!aligned) {
    QC_ASSIGN(place, n.create("add", {place, n.scalar(1)}));
  }
  const DimExpr steps = aligned ? max(size - 1, 1) : size;
  QC_ASSIGN(Value * count, n.create("cast", {n.dimValues({}, {steps})}, {{"to", DType::f32}}));
  QC_ASSIGN(Value * share, n.create("div", {place, count}));
  return n.create("sub", {share, n.scalar(1)});
}

// 0, step, 2 * step, ...: so many places, f32.
Result<Value*> placesAlong(OnnxNode& n, const DimExpr& count, int64_t step = 1) {
  QC_ASSIGN(Value * place, countedUp(n, 0, count, step));
  return n.create("cast", {place}, {{"to", DType::f32}});
}

// theta [N, d, d + 1] times the positions of the elements: [N, sizes.., d], innermost dim first.
Status affineGrid(OnnxNode& n) {
  QC_ASSIGN(const Dims sizes, n.constantDims(1, "the size"));
  QC_ASSIGN(const int64_t aligned, n.integer("align_corners", 0));
  const auto rank = static_cast<int64_t>(sizes.size()) - 2;
  if (rank < 2 || rank > 3) return n.error(ErrorCode::kInvalidModel, "{} sizes", sizes.size());
  int64_t known = 1;
  for (int64_t d = 0; d < rank; ++d) {
    const int64_t size = nth(sizes, d + 2).constant().value_or(1);
    if (size < 1 || size > (int64_t{1} << 24) / known) return n.error(ErrorCode::kInvalidModel, "a grid of size {}", size);
    known *= size;
  }
  if (n.type(0).dtype != DType::f32) return n.error(ErrorCode::kUnsupported, "theta of {}", n.type(0).str());
  Dims grid(sizes.begin() + 2, sizes.end());
  const DimExpr elements = product(grid);
  grid.emplace_back(1);
  std::vector<Value*> columns;
  for (int64_t d = rank - 1; d >= 0; --d) {
    Dims along(grid.size(), 1);
    nth(along, d) = nth(grid, d);
    QC_ASSIGN(Value * column, placesAlong(n, nth(grid, d)));
    QC_ASSIGN(column, positionsOf(n, column, nth(grid, d), aligned != 0));
    QC_ASSIGN(column, n.reshapeToDims(column, along));
    QC_ASSIGN(columns.emplace_back(), n.create("expand", {column}, {{"shape", grid}}));
  }
  QC_ASSIGN(columns.emplace_back(), n.create("expand", {n.scalar(1)}, {{"shape", grid}}));
  QC_ASSIGN(Value * positions, n.create("concat", std::move(columns), {{"axis", rank}}));
  QC_ASSIGN(positions, n.reshapeToDims(positions, {1, elements, rank + 1}));
  QC_ASSIGN(Value * turned, n.create("transpose", {n.input(0)}, {{"perm", Ints{0, 2, 1}}}));
  QC_ASSIGN(Value * y, n.create("matmul", {positions, turned}));
  Dims shape{n.dims(0)[0]};
  shape.insert(shape.end(), sizes.begin() + 2, sizes.end());
  shape.emplace_back(rank);
  QC_ASSIGN(y, n.reshapeToDims(y, std::move(shape)));
  return n.setOutput(y);
}

// Blocks added up where they were cut from: a transposed convolution whose kernels are one element of a block each.
Status col2Im(OnnxNode& n) {
  QC_ASSIGN(const Dims image, n.constantDims(1, "the image's shape"));
  QC_ASSIGN(const Ints block, n.constantInts(2, "the block's shape"));
  const size_t rank = image.size();
  QC_ASSIGN(const Ints dilations, n.integers("dilations", Ints(rank, 1)));
  QC_ASSIGN(const Ints strides, n.integers("strides", Ints(rank, 1)));
  QC_ASSIGN(Ints pads, n.integers("pads", Ints(2 * rank, 0)));
  if (rank == 0 || block.size() != rank || dilations.size() != rank || strides.size() != rank || pads.size() != 2 * rank ||
      n.type(0).rank() != 3)
    return n.error(ErrorCode::kInvalidModel, "an image of {} dims, a block of {}, input {}", rank, block.size(), n.type(0).str());
  constexpr int64_t kMax = int64_t{1} << 24;
  int64_t elements = 1;
  Dims blocks;
  Ints left(rank, 0);          // what no block reaches, where the strides leave a rest, is padding of the result
  Dims more(2 * rank + 4, 0);  // of a free size: zeros behind it
  bool isOpen = false;
  for (size_t d = 0; d < rank; ++d) {
    for (const int64_t v : {image[d].constant().value_or(1), block[d], dilations[d], strides[d]})
      if (v < 1 || v > kMax) return n.error(ErrorCode::kInvalidModel, "a size of {}", v);
    for (const int64_t v : {pads[d], pads[d + rank]})
      if (v < 0 || v > kMax) return n.error(ErrorCode::kInvalidModel, "a pad of {}", v);
    elements *= block[d];
    const DimExpr steps = image[d] + pads[d] + pads[d + rank] - (block[d] - 1) * dilations[d] - 1;
    if (steps.constant().value_or(0) < 0 || elements > kMax)
      return n.error(ErrorCode::kInvalidModel, "a block of {} in dim {} of {}", block[d], d, image[d].str());
    blocks.push_back(floorDiv(steps, strides[d]) + 1);
    const DimExpr rest = mod(steps, strides[d]);
    left[d] = rest.constant().value_or(0);
    if (rest.constant()) continue;
    isOpen = true;
    const int64_t behind = std::exchange(pads[d + rank], 0);
    more[rank + 4 + d] = behind == 0 ? rest : max(rest - behind, 0);
  }
  QC_ASSIGN(const int64_t rows, n.fixedSize(n.dims(0)[1], "the number of rows"));
  if (rows % elements != 0) return n.error(ErrorCode::kInvalidModel, "{} rows for blocks of {}", rows, elements);
  if (rows * elements > kMax) return n.error(ErrorCode::kUnsupported, "{} rows for blocks of {}", rows, elements);
  Dims shape{n.dims(0)[0], rows};
  shape.insert(shape.end(), blocks.begin(), blocks.end());
  QC_ASSIGN(Value * x, n.reshapeToDims(n.input(0), std::move(shape)));
  Ints kernel{rows, 1};
  kernel.insert(kernel.end(), block.begin(), block.end());
  Tensor ones(DType::f32, kernel);
  std::fill_n(ones.mutableAs<float>().data(), ones.numElements(), 0.0f);
  for (int64_t r = 0; r < rows; ++r) nth(ones.mutableAs<float>(), r * elements + r % elements) = 1;
  QC_ASSIGN(
      Value * y,
      n.create("conv_transpose", {x, n.constantValue(std::move(ones))},
               {{"strides", strides}, {"pads", pads}, {"dilations", dilations}, {"output_padding", left}, {"group", rows / elements}}));
  if (isOpen) {
    QC_ASSIGN(y, n.create("pad", {y}, {{"pads", more}}));
    Dims whole = OnnxNode::dims(y);
    std::copy(image.begin(), image.end(), whole.begin() + 2);
    QC_ASSIGN(y, n.create("slice", {y}, {{"starts", Dims(whole.size(), 0)}, {"sizes", whole}, {"steps", Ints(whole.size(), 1)}}));
  }
  return n.setOutput(y);
}

// ---- convolution of what is sampled --------------------------------------------------------------

// Where the taps of a window lie in one spatial dim, in elements, and then between -1 and 1 by the edges of x: [.., taps * rows, columns,
// 1]. d: 0, along the rows, or 1; offsets [.., taps, 2, rows, columns].
Result<Value*> sampledAt(OnnxNode& n, Value* offsets, const OnnxWindow& w, int64_t d) {
  const Dims dims = OnnxNode::dims(offsets);
  const DimExpr rows = dims[3], columns = dims[4];
  const int64_t taps = w.kernel[0] * w.kernel[1];
  Tensor tap(DType::f32, {taps, 1, 1});
  for (int64_t t = 0; t < taps; ++t)
    nth(tap.mutableAs<float>(), t) =
        static_cast<float>((d == 0 ? t / w.kernel[1] : t % w.kernel[1]) * nth(w.dilations, d) - nth(w.pads, d));
  QC_ASSIGN(Value * begin, placesAlong(n, d == 0 ? rows : columns, nth(w.strides, d)));
  QC_ASSIGN(begin, n.reshapeToDims(begin, d == 0 ? Dims{rows, 1} : Dims{1, columns}));
  QC_ASSIGN(Value * place, n.create("add", {n.constantValue(std::move(tap)), begin}));
  Dims one = dims;
  one[2] = 1;
  QC_ASSIGN(Value * moved, n.create("slice", {offsets}, {{"starts", Dims{0, 0, d, 0, 0}}, {"sizes", one}, {"steps", Ints(5, 1)}}));
  QC_ASSIGN(moved, n.reshapeToDims(moved, {dims[0], taps, rows, columns}));
  QC_ASSIGN(place, n.create("add", {moved, place}));
  QC_ASSIGN(place, positionsOf(n, place, nth(n.dims(0), 2 + d), false));
  return n.reshapeToDims(place, {dims[0], rows * taps, columns, 1});
}

// A convolution whose taps are moved by offsets: x is sampled where they lie, times a mask, and a product over channels and taps remains.
// Channels that share their offsets become images of their own.
Status deformConv(OnnxNode& n) {
  QC_ASSIGN(const Ints kernel, onnxKernel(n, 1));
  QC_ASSIGN(const OnnxWindow w, onnxWindow(n, kernel));
  QC_ASSIGN(const int64_t group, n.integer("group", 1));
  QC_ASSIGN(const int64_t shares, n.integer("offset_group", 1));
  if (n.type(0).rank() != 4) return n.error(ErrorCode::kUnsupported, "input {}; images of two dims are supported", n.type(0).str());
  if (n.type(0).dtype != DType::f32) return n.error(ErrorCode::kUnsupported, "input {}", n.type(0).str());
  if (w.kernel != kernel) return n.error(ErrorCode::kInvalidModel, "kernel_shape differs from the weight {}", n.type(1).str());
  QC_ASSIGN(const int64_t channels, n.fixedSize(n.dims(0)[1], "the number of channels"));
  if (shares < 1 || channels % shares != 0) return n.error(ErrorCode::kInvalidModel, "offset_group {} for {} channels", shares, channels);
  const int64_t taps = kernel[0] * kernel[1];
  const auto holds = [&](int operand, int64_t count) { return n.type(operand).rank() == 4 && n.dims(operand)[1] == DimExpr(count); };
  if (!holds(2, shares * taps * 2)) return n.error(ErrorCode::kInvalidModel, "offsets {} for {} taps", n.type(2).str(), shares * taps);
  if (n.input(4) && !holds(4, shares * taps))
    return n.error(ErrorCode::kInvalidModel, "mask {} for {} taps", n.type(4).str(), shares * taps);
  const Dims x = n.dims(0), moved = n.dims(2);
  for (size_t d = 0; d < 2; ++d) {
    const DimExpr windows = floorDiv(x[2 + d] + w.pads[d] + w.pads[2 + d] - (kernel[d] - 1) * w.dilations[d] - 1, w.strides[d]) + 1;
    if (windows.constant() && moved[2 + d].constant() && !(windows == moved[2 + d]))
      return n.error(ErrorCode::kInvalidModel, "offsets {} for {} windows in dim {}", n.type(2).str(), windows.str(), 2 + d);
  }
  const DimExpr images = x[0] * shares, rows = moved[2], columns = moved[3];
  QC_ASSIGN(Value * offsets, n.reshapeToDims(n.input(2), {images, taps, 2, rows, columns}));
  QC_ASSIGN(Value * down, sampledAt(n, offsets, w, 0));
  QC_ASSIGN(Value * across, sampledAt(n, offsets, w, 1));
  QC_ASSIGN(Value * grid, n.create("concat", {across, down}, {{"axis", int64_t{3}}}));
  QC_ASSIGN(Value * sampled, n.reshapeToDims(n.input(0), {images, channels / shares, x[2], x[3]}));
  QC_ASSIGN(sampled, n.create("grid_sample", {sampled, grid}));
  if (n.input(4)) {
    QC_ASSIGN(Value * mask, n.reshapeToDims(n.input(4), {images, 1, rows * taps, columns}));
    QC_ASSIGN(sampled, n.create("mul", {sampled, mask}));
  }
  QC_ASSIGN(sampled, n.reshapeToDims(sampled, {x[0], channels * taps, rows, columns}));
  QC_ASSIGN(const int64_t filters, n.fixedSize(n.dims(1)[0], "the number of filters"));
  QC_ASSIGN(const int64_t depth, n.fixedSize(n.dims(1)[1], "the number of channels of a group"));
  QC_ASSIGN(Value * weight, n.reshape(n.input(1), {filters, depth * taps, 1, 1}));
  QC_ASSIGN(Value * y, n.create("conv", {sampled, weight, n.input(3)},
                                {{"strides", Ints{1, 1}}, {"pads", Ints(4, 0)}, {"dilations", Ints{1, 1}}, {"group", group}}));
  return n.setOutput(y);
}

}  // namespace

std::span<const OnnxOp> onnxSamplingOps() {
  static const OnnxOp kOps[] = {
      {.name = "GridSample", .minInputs = 2, .maxInputs = 2, .convert = gridSample, .freeDims = true},
      {.name = "RoiAlign", .minInputs = 3, .maxInputs = 3, .convert = roiAlign, .freeDims = true},
      {.name = "AffineGrid", .minInputs = 2, .maxInputs = 2, .convert = affineGrid, .freeDims = true},
      {.name = "DeformConv", .minInputs = 3, .maxInputs = 5, .convert = deformConv, .freeDims = true},
      {.name = "Col2Im", .minInputs = 3, .maxInputs = 3, .convert = col2Im, .freeDims = true},
  };
  return kOps;
}

}  // namespace qc
