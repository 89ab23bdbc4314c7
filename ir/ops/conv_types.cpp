#include "ir/ops/conv_types.h"

#include "ir/ops/dynamic.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

std::vector<int64_t> kernelOf(const Shape& w) {
  std::vector<int64_t> kernel;
  for (size_t i = 2; i < w.size(); ++i) kernel.push_back(w[i].size());
  return kernel;
}

struct Inferred {
  Shape shape;
  Dim channels;
  int64_t depth = 0;  // terms of a sum
  int64_t group = 1;
};

// Ranks, static weights and group; the spatial part is the caller's.
Result<Window> inferOperands(const InferContext& c, bool transposed) {
  const TensorType &x = c.type(kX), &w = c.type(kW);
  QC_TRY(requireRank(c, kX, 3, 2 + kMaxSpatial));
  QC_TRY(requireRank(c, kW, x.rank(), x.rank()));
  if (!w.isStatic()) return fail(ErrorCode::kUnsupported, "'{}' needs weights of known size, got {}", c.op, w.str());
  QC_TRY(checkedNumElements(w.shape, 8));
  const int64_t group = c.attrs.integer("group");
  // O of conv, I of conv_transpose: in both, the first dim of w is split among the groups.
  if (group < 1 || w.shape[0].size() % group != 0)
    return fail(ErrorCode::kInvalidModel, "'{}': group={} does not divide the {} {} channels of w", c.op, group, w.shape[0].size(),
                transposed ? "input" : "output");
  QC_ASSIGN(Window window, Window::of(c, kernelOf(w.shape)));
  const Dim channels = nth(x.shape, channelAxisOf(c.attrs, x.rank()));
  int64_t expected = w.shape[0].size();
  if (!transposed && __builtin_mul_overflow(w.shape[1].size(), group, &expected))
    return fail(ErrorCode::kInvalidModel, "'{}': group={} is too large", c.op, group);
  if (!compatible(channels, Dim(expected)))
    return fail(ErrorCode::kInvalidModel, "'{}': x {} has {} channels, w {} with group={} takes {}", c.op, x.str(), channels.str(), w.str(),
                group, expected);
  return window;
}

Result<Inferred> inferConvShape(const InferContext& c) {
  QC_ASSIGN(const Window window, inferOperands(c, false));
  const TensorType &x = c.type(kX), &w = c.type(kW);
  const bool last = isChannelsLast(c.attrs);
  std::vector<Dim> spatial = spatialDims(x.shape, last);
  for (size_t i = 0; i < spatial.size(); ++i) {
    QC_ASSIGN(spatial[i], slidingSize(c, window, static_cast<int>(i), spatial[i]));
  }
  const Dim channels = w.shape[0];
  QC_ASSIGN(const int64_t depth, checkedNumElements({w.shape[1], Dim(window.taps())}));
  return Inferred{spatialShape(last, x.shape[0], channels, spatial), channels, depth, c.attrs.integer("group")};
}

Result<Inferred> inferTransposedShape(const InferContext& c) {
  QC_ASSIGN(const Window window, inferOperands(c, true));
  const TensorType &x = c.type(kX), &w = c.type(kW);
  const bool last = isChannelsLast(c.attrs);
  std::vector<Dim> spatial = spatialDims(x.shape, last);
  const auto& outputPadding = c.attrs.integers("output_padding");
  if (!outputPadding.empty() && outputPadding.size() != spatial.size())
    return fail(ErrorCode::kInvalidModel, "'{}': output_padding={} should have {} values", c.op, toString(Attr(outputPadding)),
                spatial.size());
  for (size_t i = 0; i < spatial.size(); ++i) {
    const int64_t extra = outputPadding.empty() ? 0 : outputPadding[i];
    if (extra < 0 || extra > int64_t{1} << 31) return fail(ErrorCode::kInvalidModel, "'{}': output_padding holds {}", c.op, extra);
    if (!spatial[i].isStatic()) {
      spatial[i] =
          (spatial[i].expr() - 1) * window.stride[i] + window.extent(static_cast<int>(i)) + extra - window.padBegin[i] - window.padEnd[i];
      continue;
    }
    const int64_t in = spatial[i].size();
    int64_t size = 0;
    if (__builtin_mul_overflow(in - 1, window.stride[i], &size) || size > kMaxTensorBytes)
      return fail(ErrorCode::kResource, "'{}': spatial dim {} of {} with stride {} gives too large a result", c.op, i, in,
                  window.stride[i]);
    size += window.extent(static_cast<int>(i)) + extra - window.padBegin[i] - window.padEnd[i];
    if (in == 0 || size < 1)
      return fail(ErrorCode::kInvalidModel, "'{}': spatial dim {} of {} gives a result of size {} (stride {}, kernel {}, padding {})", c.op,
                  i, in, size, window.stride[i], window.kernel[i], window.padBegin[i] + window.padEnd[i]);
    spatial[i] = sizedBy(spatial[i], size);
  }
  const int64_t group = c.attrs.integer("group");
  int64_t outputs = 0;
  if (__builtin_mul_overflow(w.shape[1].size(), group, &outputs))
    return fail(ErrorCode::kInvalidModel, "'{}': group={} is too large", c.op, group);
  QC_ASSIGN(const int64_t depth, checkedNumElements({Dim(w.shape[0].size() / group), Dim(window.taps())}));
  return Inferred{spatialShape(last, x.shape[0], Dim(outputs), spatial), Dim(outputs), depth, group};
}

}  // namespace

Result<Types> inferConv(const InferContext& c) {
  QC_ASSIGN(Inferred result, inferConvShape(c));
  return floatProductResult(c, std::move(result.shape), result.channels);
}

Result<Types> inferConvTranspose(const InferContext& c) {
  QC_ASSIGN(Inferred result, inferTransposedShape(c));
  return floatProductResult(c, std::move(result.shape), result.channels);
}

Result<Types> inferQuantizedConv(const InferContext& c) {
  QC_ASSIGN(const Inferred result, inferConvShape(c));
  QC_ASSIGN(Types types, quantizedProductResult(c, result.shape, result.channels, 0));
  QC_TRY(requireInt32Sums(c, result.depth, result.channels.size(), [&](int64_t i) { return i / result.depth; }));
  return types;
}

Result<Types> inferQuantizedConvTranspose(const InferContext& c) {
  QC_ASSIGN(const Inferred result, inferTransposedShape(c));
  QC_ASSIGN(Types types, quantizedProductResult(c, result.shape, result.channels, 1));
  const Shape& w = c.type(kW).shape;
  const int64_t slices = w[1].size(), perGroup = w[0].size() / result.group;
  const int64_t taps = perGroup ? result.depth / perGroup : 1;
  QC_TRY(requireInt32Sums(c, result.depth, result.channels.size(),
                          [&](int64_t i) { return i / taps % slices + i / (taps * slices) / perGroup * slices; }));
  return types;
}

Result<Types> inferDynamicConv(const InferContext& c) {
  QC_ASSIGN(const Inferred result, inferConvShape(c));
  const TensorType &x = c.type(kX), &w = c.type(kW);
  if (x.isQuantized() || !isInteger(x.dtype) || sizeOf(x.dtype) != 1)
    return fail(ErrorCode::kInvalidModel, "'{}' takes plain 8-bit integers, got {}", c.op, describe(c, kX));
  if (!w.isQuantized() || sizeOf(w.dtype) != 1 || w.quant->blockSize || (w.quant->perChannel() && w.quant->axis != 0))
    return fail(ErrorCode::kInvalidModel, "'{}' takes weights quantized to at most 8 bits, per tensor or per channel on axis 0; got {}",
                c.op, w.str());
  QC_TRY(checkQuantParams(*w.quant, w.shape));
  QC_TRY(requireDynamicSums(c, x.dtype, *w.quant, result.depth));
  const auto scalar = [&](int operand, DType dtype) {
    const TensorType& t = c.type(operand);
    return !t.isQuantized() && t.dtype == dtype && (t.shape.empty() || (t.shape.size() == 1 && t.shape[0] == Dim(1)));
  };
  if (!scalar(kScale, DType::f32) || !scalar(kZeroPoint, DType::s32))
    return fail(ErrorCode::kInvalidModel, "'{}' takes one f32 scale and one s32 zero point, got {} and {}", c.op, describe(c, kScale),
                describe(c, kZeroPoint));
  if (c.has(kBias)) {
    if (c.type(kBias).isQuantized() || c.type(kBias).dtype != DType::f32)
      return fail(ErrorCode::kInvalidModel, "'{}' takes an f32 bias, got {}", c.op, describe(c, kBias));
    QC_TRY(requireVector(c, kBias, result.channels));
  }
  return checkedResults({TensorType(DType::f32, result.shape)});
}

}  // namespace qc
