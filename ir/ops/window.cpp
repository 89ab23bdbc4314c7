#include "ir/ops/window.h"

#include <algorithm>

namespace qc {
namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 31;  // of any kernel size, stride, dilation or pad

Status checkList(const InferContext& c, std::string_view name, size_t count, int64_t low) {
  if (!c.attrs.find(name)) return {};
  const auto& list = c.attrs.integers(name);
  if (!list.empty() && list.size() != count)
    return fail(ErrorCode::kInvalidModel, "'{}': {}={} should have {} values", c.op, name, toString(Attr(list)), count);
  for (const int64_t v : list)
    if (v < low || v > kMaxWindow)
      return fail(ErrorCode::kInvalidModel, "'{}': {}={} holds {}, which is not in {}..{}", c.op, name, toString(Attr(list)), v, low,
                  kMaxWindow);
  return {};
}

}  // namespace

Window Window::of(const AttrDict& attrs, const std::vector<int64_t>& kernel) {
  Window w;
  w.rank = static_cast<int>(kernel.size());
  const auto fill = [&](std::string_view name, std::array<int64_t, kMaxSpatial>& to, size_t from) {
    if (!attrs.find(name)) return;
    const auto& list = attrs.integers(name);
    for (size_t i = 0; i < kernel.size() && from + i < list.size(); ++i) to[i] = list[from + i];
  };
  std::copy(kernel.begin(), kernel.end(), w.kernel.begin());
  fill("strides", w.stride, 0);
  fill("dilations", w.dilation, 0);
  fill("pads", w.padBegin, 0);
  fill("pads", w.padEnd, kernel.size());
  return w;
}

Result<Window> Window::of(const InferContext& c, const std::vector<int64_t>& kernel) {
  if (kernel.empty() || kernel.size() > kMaxSpatial)
    return fail(ErrorCode::kUnsupported, "'{}' works on 1 to 3 spatial dims, got {}", c.op, kernel.size());
  for (const int64_t k : kernel)
    if (k < 1 || k > kMaxWindow) return fail(ErrorCode::kInvalidModel, "'{}': kernel {} has a size of {}", c.op, toString(Attr(kernel)), k);
  QC_TRY(checkList(c, "strides", kernel.size(), 1));
  QC_TRY(checkList(c, "dilations", kernel.size(), 1));
  QC_TRY(checkList(c, "pads", 2 * kernel.size(), 0));
  if (c.attrs.find("layout")) {
    QC_TRY(requireLayout(c));
  }
  const Window w = of(c.attrs, kernel);
  QC_TRY(checkedNumElements(toShape(kernel)));
  return w;
}

Result<Dim> slidingSize(const InferContext& c, const Window& w, int i, Dim in, bool ceilMode) {
  const size_t s = usize(i);
  if (!in.isStatic()) {
    const DimExpr stride = w.stride[s], padded = in.expr() + w.padBegin[s] + w.padEnd[s], room = padded - w.extent(i);
    if (!ceilMode) return Dim(floorDiv(room, stride) + 1);
    return w.padEnd[s] < w.extent(i) ? Dim(min(ceilDiv(room, stride) + 1, ceilDiv(in.expr() + w.padBegin[s], stride))) : Dim::unknown();
  }
  if (in.size() > kMaxTensorBytes) return fail(ErrorCode::kResource, "'{}': spatial size {} is too large", c.op, in.size());
  const int64_t stride = w.stride[s], begin = in.size() + w.padBegin[s], room = begin + w.padEnd[s] - w.extent(i);
  const int64_t whole = room / stride, rest = room % stride;  // towards 0
  int64_t size = (ceilMode ? whole + (rest > 0 ? 1 : 0) : whole - (rest < 0 ? 1 : 0)) + 1;
  if (ceilMode && (size - 1) * stride >= begin) --size;
  if (size <= 0)
    return fail(ErrorCode::kInvalidModel,
                "'{}': a window of {} (kernel {}, dilation {}) does not fit into spatial dim {} of {} + padding {}", c.op, w.extent(i),
                w.kernel[s], w.dilation[s], i, in.size(), w.padBegin[s] + w.padEnd[s]);
  return sizedBy(in, size);
}

Shape spatialShape(bool channelsLast, Dim batch, Dim channels, const std::vector<Dim>& spatial) {
  Shape shape{batch};
  if (!channelsLast) shape.push_back(channels);
  shape.insert(shape.end(), spatial.begin(), spatial.end());
  if (channelsLast) shape.push_back(channels);
  return shape;
}

std::vector<Dim> spatialDims(const Shape& shape, bool channelsLast) {
  return channelsLast ? std::vector<Dim>(shape.begin() + 1, shape.end() - 1) : std::vector<Dim>(shape.begin() + 2, shape.end());
}

SpatialView::SpatialView(std::span<const int64_t> sizes, bool channelsLast) {
  const size_t rank = sizes.size() - 2, first = channelsLast ? 1 : 2;
  batch = sizes[0];
  channels = channelsLast ? sizes.back() : sizes[1];
  for (size_t i = 0; i < rank; ++i) size[kMaxSpatial - rank + i] = sizes[first + i];
  channelStride = channelsLast ? 1 : pixels();
  int64_t step = channelsLast ? channels : 1;
  for (size_t i = kMaxSpatial; i-- > 0; step *= size[i]) stride[i] = step;
  batchStride = channels * pixels();
}

Window alignedToView(const Window& w) {
  Window v;
  v.rank = kMaxSpatial;
  for (size_t i = 0; i < usize(w.rank); ++i) {
    const size_t to = kMaxSpatial - usize(w.rank) + i;
    v.kernel[to] = w.kernel[i];
    v.stride[to] = w.stride[i];
    v.dilation[to] = w.dilation[i];
    v.padBegin[to] = w.padBegin[i];
    v.padEnd[to] = w.padEnd[i];
  }
  return v;
}

}  // namespace qc
