#include "ir/packed_layout.h"

#include <algorithm>
#include <cstring>

namespace qc {
namespace {

// Position of channel c of a panel among its columns.
int64_t permuted(const Packing& p, int64_t c) {
  const int64_t lanes = p.lanes;
  if (p.columns == Packing::Columns::natural) return c;
  const int64_t vectors = p.columns == Packing::Columns::quad ? 4 : 2;
  const int64_t block = c / (vectors * lanes), inBlock = c % (vectors * lanes);
  const int64_t quartet = inBlock / (4 * vectors), vector = inBlock / 4 % vectors;
  return block * vectors * lanes + vector * lanes + quartet * 4 + inBlock % 4;
}

std::vector<int64_t> listOr(const AttrDict& attrs, std::string_view name, size_t count, int64_t byDefault) {
  const Attr* attr = attrs.find(name);
  const auto* list = attr ? std::get_if<std::vector<int64_t>>(attr) : nullptr;
  return list && !list->empty() ? *list : std::vector<int64_t>(count, byDefault);
}

int64_t outputSize(int64_t in, int64_t before, int64_t after, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t room = in + before + after - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

template <class T>
void scatter(const PackedLayout& layout, const ConvGeometry& conv, T* packed, T* dense, bool toPacked, int64_t copy, int64_t half) {
  std::vector<int64_t> places;  // of an output's weights behind its first: the same for every output
  for (int64_t ic = 0; ic < conv.groupChannels(); ++ic)
    for (int64_t ky = 0; ky < conv.kernelRows(); ++ky)
      for (int64_t kx = 0; kx < conv.kernelW; ++kx) places.push_back(layout.index(0, ic, ky, kx) - layout.index(0, 0, 0, 0));
  for (int64_t o = 0; o < conv.outputs; ++o) {
    T* slots = packed + layout.index(o, 0, 0, 0, copy, half);
    for (const int64_t place : places) {
      if (toPacked)
        slots[place] = *dense++;
      else
        *dense++ = slots[place];
    }
  }
}

void scatterAs(const PackedLayout& layout, const ConvGeometry& conv, DType dtype, void* packed, void* dense, bool toPacked,
               int64_t copy = 0, int64_t half = 0) {
  switch (sizeOf(dtype)) {
    case 1: return scatter(layout, conv, static_cast<uint8_t*>(packed), static_cast<uint8_t*>(dense), toPacked, copy, half);
    case 2: return scatter(layout, conv, static_cast<uint16_t*>(packed), static_cast<uint16_t*>(dense), toPacked, copy, half);
    default: return scatter(layout, conv, static_cast<uint32_t*>(packed), static_cast<uint32_t*>(dense), toPacked, copy, half);
  }
}

// The first or second of two s8 whose sum is the weight.
Tensor halfOf(const Tensor& weights, int half) {
  Tensor part(DType::s8, weights.sizes());
  for (int64_t i = 0; i < weights.numElements(); ++i) {
    const int w = weights.dtype() == DType::s8 ? nth(weights.as<int8_t>(), i) : nth(weights.as<int16_t>(), i);
    QC_CHECK(w >= -256 && w <= 254, "weight {} has no two halves", w);
    const int first = w >> 1;
    nth(part.mutableAs<int8_t>(), i) = static_cast<int8_t>(half ? w - first : first);
  }
  return part;
}

}  // namespace

bool ConvGeometry::isMatrixProduct() const {
  return kernelRows() == 1 && kernelW == 1 && strideD == 1 && strideH == 1 && strideW == 1 && !isPadded();
}

Result<ConvGeometry> ConvGeometry::of(const std::vector<int64_t>& xSizes, const std::vector<int64_t>& weightShape, const AttrDict& attrs) {
  const auto mismatch = [&](std::string_view what) {
    return fail(ErrorCode::kUnsupported, "{}: input [{}], weights [{}]", what, fmt::join(xSizes, ","), fmt::join(weightShape, ","));
  };
  constexpr int64_t kLimit = int64_t{1} << 31;
  const auto within = [](const std::vector<int64_t>& v, int64_t least) {
    return std::all_of(v.begin(), v.end(), [&](int64_t x) { return x >= least && x < kLimit; });
  };
  ConvGeometry g;
  if (xSizes.empty() || weightShape.size() < 2) return mismatch("input and weights do not fit");
  if (!within(xSizes, 0) || !within(weightShape, 1)) return mismatch("sizes out of range");
  g.outputs = weightShape[0];
  g.channels = xSizes.back();
  if (weightShape.size() == 2) {
    if (g.channels != weightShape[1]) return mismatch("inner sizes differ");
    for (size_t i = 0; i + 1 < xSizes.size(); ++i) g.inW *= xSizes[i];
    g.outW = g.inW;
    return g;
  }
  const size_t spatial = weightShape.size() - 2;
  if (spatial > 3 || xSizes.size() != spatial + 2) return mismatch("convolution over other than 1 to 3 spatial dims");
  const Attr* group = attrs.find("group");
  g.groups = group && std::holds_alternative<int64_t>(*group) ? std::get<int64_t>(*group) : 1;
  const std::vector<int64_t> strides = listOr(attrs, "strides", spatial, 1), dilations = listOr(attrs, "dilations", spatial, 1);
  const std::vector<int64_t> pads = listOr(attrs, "pads", 2 * spatial, 0);
  if (strides.size() != spatial || dilations.size() != spatial || pads.size() != 2 * spatial)
    return mismatch("attributes of the wrong length");
  if (!within(strides, 1) || !within(dilations, 1) || !within(pads, 0)) return mismatch("strides, dilations or pads out of range");
  if (g.groups < 1 || g.channels % g.groups || g.outputs % g.groups || g.channels / g.groups != weightShape[1])
    return mismatch("channels and groups do not fit");
  g.batch = xSizes[0];
  const size_t w = spatial - 1;  // of W; H and D are in front of it
  g.inW = xSizes[1 + w], g.kernelW = weightShape[2 + w], g.strideW = strides[w], g.dilationW = dilations[w];
  g.padLeft = pads[w], g.padRight = pads[spatial + w];
  if (spatial >= 2) {
    const size_t h = w - 1;
    g.inH = xSizes[1 + h], g.kernelH = weightShape[2 + h], g.strideH = strides[h], g.dilationH = dilations[h];
    g.padTop = pads[h], g.padBottom = pads[spatial + h];
  }
  if (spatial == 3) {
    g.inD = xSizes[1], g.kernelD = weightShape[2], g.strideD = strides[0], g.dilationD = dilations[0];
    g.padFront = pads[0], g.padBack = pads[spatial];
  }
  g.outW = outputSize(g.inW, g.padLeft, g.padRight, g.kernelW, g.strideW, g.dilationW);
  g.outH = outputSize(g.inH, g.padTop, g.padBottom, g.kernelH, g.strideH, g.dilationH);
  g.outD = outputSize(g.inD, g.padFront, g.padBack, g.kernelD, g.strideD, g.dilationD);
  return g;
}

std::vector<int64_t> ConvGeometry::resultSizes(const std::vector<int64_t>& xSizes, const std::vector<int64_t>& weightShape) const {
  std::vector<int64_t> sizes = xSizes;
  sizes.back() = outputs;
  if (weightShape.size() == 3) sizes[1] = outW;
  if (weightShape.size() == 4) sizes[1] = outH, sizes[2] = outW;
  if (weightShape.size() == 5) sizes[1] = outD, sizes[2] = outH, sizes[3] = outW;
  return sizes;
}

int64_t PackedLayout::column(int64_t channel, int64_t copy) const {
  const int64_t group = channel / conv_.groupOutputs(), inGroup = copy * conv_.groupOutputs() + channel % conv_.groupOutputs();
  const int64_t panel = inGroup / p_.panel;
  return (group * panels() + panel) * p_.panel + permuted(p_, inGroup % p_.panel);
}

int64_t PackedLayout::index(int64_t channel, int64_t ic, int64_t ky, int64_t kx, int64_t copy, int64_t half) const {
  const int64_t col = column(channel, copy);
  const int64_t run = p_.rowRuns ? ky : ky * conv_.kernelW + kx;
  const int64_t inRun = p_.rowRuns ? kx * conv_.groupChannels() + ic : ic;
  const int64_t k = run * paddedRun() + inRun;
  const int64_t inHalf = k / p_.group * (p_.panel * p_.group) + col % p_.panel * p_.group + k % p_.group;
  return col / p_.panel * panelElements() + half * halfElements() + inHalf;
}

Tensor PackedLayout::pack(const Tensor& weights) const {
  if (p_.halves > 1) {
    Tensor packed(p_.element, {size()});
    for (int half = 0; half < p_.halves; ++half) {
      Tensor part = halfOf(weights, half);
      for (int64_t copy = 0; copy < p_.copies; ++copy)
        scatterAs(*this, conv_, p_.element, packed.mutableData(), part.mutableData(), true, copy, half);
    }
    return packed;
  }
  Tensor source = weights;
  if (weights.dtype() != p_.element) {
    const bool halves = weights.dtype() == DType::f32 && p_.element == DType::f16;
    QC_CHECK(halves || (weights.dtype() == DType::s8 && p_.element == DType::s16), "weights of {} packed as {}", toString(weights.dtype()),
             toString(p_.element));
    source = Tensor(p_.element, weights.sizes());
    if (halves)
      std::transform(weights.as<float>().begin(), weights.as<float>().end(), static_cast<uint16_t*>(source.mutableData()), floatToHalf);
    else
      std::copy(weights.as<int8_t>().begin(), weights.as<int8_t>().end(), source.mutableAs<int16_t>().begin());
  }
  QC_CHECK(source.numElements() == conv_.outputs * conv_.depth(), "weights do not fit the convolution");
  Tensor packed(p_.element, {size()});
  for (int64_t copy = 0; copy < p_.copies; ++copy)
    scatterAs(*this, conv_, p_.element, packed.mutableData(), const_cast<void*>(source.data()), true, copy);
  return packed;
}

Tensor PackedLayout::unpack(const Tensor& packed) const {
  const std::vector<int64_t> sizes{conv_.outputs, conv_.groupChannels(), conv_.kernelRows(), conv_.kernelW};
  Tensor dense(p_.element, sizes);
  scatterAs(*this, conv_, p_.element, const_cast<void*>(packed.data()), dense.mutableData(), false);
  if (p_.halves == 1) return dense;
  Tensor second(p_.element, sizes), sum(DType::s16, sizes);
  scatterAs(*this, conv_, p_.element, const_cast<void*>(packed.data()), second.mutableData(), false, 0, 1);
  for (size_t i = 0; i < sum.as<int16_t>().size(); ++i)
    sum.mutableAs<int16_t>()[i] = static_cast<int16_t>(dense.as<int8_t>()[i] + second.as<int8_t>()[i]);
  return sum;
}

Tensor PackedLayout::packChannels(const Tensor& perChannel) const {
  Tensor packed(perChannel.dtype(), {columns()});
  QC_CHECK(sizeOf(perChannel.dtype()) == 4, "per-channel data are s32 or f32");
  const auto* from = static_cast<const uint32_t*>(perChannel.data());
  auto* to = static_cast<uint32_t*>(packed.mutableData());
  for (int64_t copy = 0; copy < p_.copies; ++copy)
    for (int64_t c = 0; c < conv_.outputs; ++c) to[column(c, copy)] = from[perChannel.numElements() == 1 ? 0 : c];
  return packed;
}

}  // namespace qc
