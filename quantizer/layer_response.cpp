#include "quantizer/layer_response.h"

#include <algorithm>

#include "ir/packed_layout.h"

namespace qc {
namespace {

constexpr int64_t kLargestProducts = int64_t{1} << 23;  // elements of the products

// Where each tap of the kernel reads, for each position of the result: a place in a plane of the input, or -1 in the padding.
std::vector<int64_t> tapsOf(const ConvGeometry& g) {
  std::vector<int64_t> taps;
  for (int64_t oz = 0; oz < g.outD; ++oz)
    for (int64_t oy = 0; oy < g.outH; ++oy)
      for (int64_t ox = 0; ox < g.outW; ++ox)
        for (int64_t kz = 0; kz < g.kernelD; ++kz)
          for (int64_t ky = 0; ky < g.kernelH; ++ky)
            for (int64_t kx = 0; kx < g.kernelW; ++kx) {
              const int64_t z = oz * g.strideD - g.padFront + kz * g.dilationD, y = oy * g.strideH - g.padTop + ky * g.dilationH,
                            x = ox * g.strideW - g.padLeft + kx * g.dilationW;
              const bool inside = z >= 0 && y >= 0 && x >= 0 && z < g.inD && y < g.inH && x < g.inW;
              taps.push_back(inside ? (z * g.inH + y) * g.inW + x : -1);
            }
  return taps;
}

}  // namespace

std::optional<LayerResponseSampler> LayerResponseSampler::of(const Node& layer, int64_t positionsPerSample) {
  const Tensor* weight = layer.operand("w") ? layer.operand("w")->constant() : nullptr;
  if (!weight || weight->dtype() != DType::f32 || weight->numElements() == 0) return std::nullopt;
  LayerResponseSampler s;
  s.isConv_ = layer.is("conv");
  if (s.isConv_ ? layer.string("layout") == "channels_last" : !layer.is("linear")) return std::nullopt;
  s.weightShape_ = weight->sizes();
  s.attrs_ = layer.attrs();
  s.outputs_ = s.weightShape_[0];
  s.positionsPerSample_ = positionsPerSample;
  s.inputs_.groups = s.isConv_ ? layer.integer("group") : 1;
  s.inputs_.depth = weight->numElements() / s.outputs_;
  if (s.inputs_.groups < 1 || s.outputs_ % s.inputs_.groups) return std::nullopt;
  const int64_t size = s.inputs_.depth + s.outputs_ / s.inputs_.groups;
  if (s.inputs_.groups * size * size > kLargestProducts) return std::nullopt;
  s.sums_ = ProductSums(s.inputs_.groups, size, true);
  return s;
}

// Vectors of inputs and, behind them, of results.
void LayerResponseSampler::gather(const float* x, const float* y, std::span<const int64_t> positions) {
  const int64_t depth = inputs_.depth, perGroup = outputs_ / inputs_.groups,
                taps = isConv_ ? numElements(weightShape_) / outputs_ / weightShape_[1] : 1;
  for (int64_t p = 0; p < static_cast<int64_t>(positions.size()); ++p) {
    const int64_t image = nth(positions, p) / outPlane_, at = nth(positions, p) % outPlane_;
    for (int64_t g = 0; g < inputs_.groups; ++g) {
      for (int64_t i = 0; i < depth; ++i) {
        const int64_t tap = isConv_ ? nth(taps_, at * taps + i % taps) : 0;
        const int64_t plane = image * planes_ + g * (depth / taps) + i / taps;
        sums_.at(p, g, i) = tap < 0 ? 0.0f : x[plane * inPlane_ + tap];
      }
      for (int64_t o = 0; o < perGroup; ++o) sums_.at(p, g, depth + o) = y[(image * outputs_ + g * perGroup + o) * outPlane_ + at];
    }
  }
}

void LayerResponseSampler::add(const TensorRef& input, const TensorRef& wanted, int64_t sample) {
  if (!allFinite(input) || !allFinite(wanted)) return;
  int64_t positions = 0;
  if (isConv_) {
    if (input.sizes.size() != weightShape_.size()) return;
    std::vector<int64_t> last(input.sizes.begin(), input.sizes.end());  // channels last, as the geometry has them
    std::rotate(last.begin() + 1, last.begin() + 2, last.end());
    const Result<ConvGeometry> g = ConvGeometry::of(last, weightShape_, attrs_);
    if (!g) return;
    planes_ = g->channels;
    inPlane_ = g->inD * g->inH * g->inW;
    outPlane_ = g->outD * g->outH * g->outW;
    taps_ = tapsOf(*g);
    positions = g->batch * outPlane_;
  } else {
    planes_ = inputs_.depth;
    positions = input.numElements() / inputs_.depth;
  }
  if (positions * outputs_ != wanted.numElements()) return;
  const int64_t count = std::min(positions, positionsPerSample_);
  std::vector<int64_t> drawn;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = i * positions / count, width = (i + 1) * positions / count - first;
    drawn.push_back(first + static_cast<int64_t>(scramble(static_cast<uint64_t>(sample * 1000003 + i)) % static_cast<uint64_t>(width)));
  }
  for (std::span<const int64_t> rest(drawn); !rest.empty();) {
    const auto some = std::min(rest.size(), usize(sums_.room()));
    gather(input.as<float>(), wanted.as<float>(), rest.first(some));
    sums_.add(static_cast<int64_t>(some));
    rest = rest.subspan(some);
  }
  inputs_.positions += count;
  inputs_.samples += count > 0;
}

LayerResponse LayerResponseSampler::take() && {
  const int64_t depth = inputs_.depth, perGroup = outputs_ / inputs_.groups, size = depth + perGroup;
  const std::vector<float> products = sums_.products();
  const std::vector<double> sums = sums_.sums();
  LayerResponse r;
  for (int64_t g = 0; g < inputs_.groups; ++g)
    for (int64_t i = 0; i < size; ++i) {
      const float* row = products.data() + (g * size + i) * size;
      std::vector<float>& to = i < depth ? inputs_.gram : r.cross;
      to.insert(to.end(), row, row + depth);
      (i < depth ? inputs_.sum : r.sum).push_back(nth(sums, g * size + i));
    }
  r.inputs = std::move(inputs_);
  return r;
}

}  // namespace qc
