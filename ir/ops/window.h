// The geometry of ops that slide a window over 1 to 3 spatial dims: conv, conv_transpose and the pools.  One place checks the
// attributes and computes result sizes; the evaluations walk windows through it.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "ir/ops/infer_util.h"

namespace qc {

constexpr int kMaxSpatial = 3;

struct Window {
  int rank = 0;  // spatial dims
  std::array<int64_t, kMaxSpatial> kernel{1, 1, 1}, stride{1, 1, 1}, dilation{1, 1, 1}, padBegin{}, padEnd{};

  // strides, pads (begins then ends) and dilations of the node; [] means ones or zeros.  Refuses negative and absurd values.
  static Result<Window> of(const InferContext& c, const std::vector<int64_t>& kernel);
  // The same from a node that was checked when it was built.
  static Window of(const AttrDict& attrs, const std::vector<int64_t>& kernel);

  int64_t extent(int i) const { return nth(dilation, i) * (nth(kernel, i) - 1) + 1; }
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
};

// Result size of one dim for conv and pools: floor((in + pads - extent) / stride) + 1.  With ceilMode the division rounds up, and a last
// window that would start behind the input and its leading pad is dropped: the formula of ONNX's pools, as ONNX Runtime and PyTorch compute
// it.  The window may then be longer than what it slides over, a window of 2 with a stride of 2 over 1 element: it ends outside, and its
// taps there count for nothing.  Only a size of 0 or less is refused.  A symbolic `in` gives the formula.
Result<Dim> slidingSize(const InferContext& c, const Window& w, int i, Dim in, bool ceilMode = false);

// [N, C, spatial...] or [N, spatial..., C] by layout.
Shape spatialShape(bool channelsLast, Dim batch, Dim channels, const std::vector<Dim>& spatial);
std::vector<Dim> spatialDims(const Shape& shape, bool channelsLast);

// A tensor of a spatial op as batch, channels and up to three spatial sizes (missing ones are 1 in front, so that 1-d data is a
// row), with the strides of its layout.
struct SpatialView {
  int64_t batch = 1, channels = 1;
  std::array<int64_t, kMaxSpatial> size{1, 1, 1};
  int64_t batchStride = 0, channelStride = 0;
  std::array<int64_t, kMaxSpatial> stride{};

  SpatialView(std::span<const int64_t> sizes, bool channelsLast);
  int64_t pixels() const { return size[0] * size[1] * size[2]; }
  // Offset of pixel (z, y, x), which counts row-major over the spatial dims, in batch item n.
  int64_t pixelOffset(int64_t n, int64_t z, int64_t y, int64_t x) const {
    return n * batchStride + z * stride[0] + y * stride[1] + x * stride[2];
  }
};

// A window with its dims moved to the back, to go with a SpatialView.
Window alignedToView(const Window& w);

// One batch item between its tensor and a dense [pixels][channels] buffer.
template <class T, class S, class Convert>
void readPixels(const SpatialView& v, const S* data, int64_t n, T* out, Convert&& convert) {
  const S* base = data + n * v.batchStride;
  const int64_t pixels = v.pixels();
  if (v.channelStride == 1) {
    for (int64_t i = 0; i < pixels * v.channels; ++i) out[i] = convert(base[i], i % v.channels);
    return;
  }
  // Spatial dims are dense in both layouts, so the pixel index itself is the offset.
  for (int64_t c = 0; c < v.channels; ++c)
    for (int64_t p = 0; p < pixels; ++p) out[p * v.channels + c] = convert(base[c * v.channelStride + p], c);
}
template <class T, class S>
void writePixels(const SpatialView& v, const T* pixels, int64_t n, S* data) {
  S* base = data + n * v.batchStride;
  const int64_t count = v.pixels();
  if (v.channelStride == 1) {
    std::copy(pixels, pixels + count * v.channels, base);
    return;
  }
  for (int64_t c = 0; c < v.channels; ++c)
    for (int64_t p = 0; p < count; ++p) base[c * v.channelStride + p] = pixels[p * v.channels + c];
}

}  // namespace qc
