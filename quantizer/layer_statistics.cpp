#include "quantizer/layer_statistics.h"

#include <algorithm>

namespace qc {
namespace {

int64_t valueOr(const std::vector<int64_t>& list, size_t i, int64_t otherwise) { return i < list.size() ? list[i] : otherwise; }

// Spreads choices over a sample without a pattern that could follow the rows of an image.
uint64_t scramble(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::optional<LayerSampler> LayerSampler::of(const Node& layer, const SamplerOptions& options) {
  const Tensor* weight = layer.operand(1) ? layer.operand(1)->constant() : nullptr;
  const TensorType& x = layer.operand(0)->type();
  if (!weight || !x.isStatic() || weight->dtype() != DType::f32 || weight->numElements() == 0) return std::nullopt;
  LayerSampler s;
  s.options_ = options;
  const std::vector<int64_t>& w = weight->sizes();
  if (layer.is("conv")) {
    if (layer.string("layout") == "channels_last") return std::nullopt;
    s.statistics_.groups = layer.integer("group");
    s.channels_ = w[1];
    const Shape& out = layer.result()->type().shape;
    for (size_t i = 0; i + 2 < w.size(); ++i)
      s.axes_.push_back({w[i + 2], valueOr(layer.integers("strides"), i, 1), valueOr(layer.integers("dilations"), i, 1),
                         valueOr(layer.integers("pads"), i, 0), x.sizes()[i + 2], out[i + 2].size()});
  } else if (!layer.is("linear")) {
    return std::nullopt;
  }
  LayerStatistics& t = s.statistics_;
  t.depth = weight->numElements() / w[0];
  s.sums_ = ProductSums(t.groups, t.depth, options.gram && t.groups * t.depth * t.depth <= options.largestGram);
  return s;
}

bool LayerSampler::looksLike(const LayerSampler& other) const {
  return options_ == other.options_ && axes_ == other.axes_ && channels_ == other.channels_ &&
         statistics_.groups == other.statistics_.groups && statistics_.depth == other.statistics_.depth;
}

void LayerSampler::findTaps(int64_t position) {
  int64_t taps = 1;
  for (const Axis& a : axes_) taps *= a.kernel;
  taps_.resize(static_cast<size_t>(taps));
  for (int64_t tap = 0; tap < taps; ++tap) {
    int64_t offset = 0, scale = 1, restTap = tap, restOut = position;
    bool inside = true;
    for (auto a = axes_.rbegin(); a != axes_.rend(); ++a) {
      const int64_t at = restOut % a->out * a->stride - a->pad + restTap % a->kernel * a->dilation;
      inside = inside && at >= 0 && at < a->in;
      offset += at * scale;
      scale *= a->in;
      restTap /= a->kernel;
      restOut /= a->out;
    }
    taps_[static_cast<size_t>(tap)] = inside ? offset : -1;
  }
}

void LayerSampler::gather(const float* x, int64_t position) {
  if (axes_.empty()) return sums_.set(0, x + position * statistics_.depth);
  int64_t planeSize = 1, outputs = 1;
  for (const Axis& a : axes_) {
    planeSize *= a.in;
    outputs *= a.out;
  }
  findTaps(position % outputs);
  const float* plane = x + position / outputs * statistics_.groups * channels_ * planeSize;
  for (int64_t g = 0; g < statistics_.groups; ++g)
    for (int64_t i = 0; i < statistics_.depth; plane += planeSize)
      for (const int64_t tap : taps_) sums_.at(g, i++) = tap < 0 ? 0.0f : plane[tap];
}

void LayerSampler::add(const TensorRef& input, int64_t sample) {
  int64_t positions = axes_.empty() ? input.numElements() / std::max<int64_t>(1, statistics_.depth) : input.sizes[0];
  for (const Axis& a : axes_) positions *= a.out;
  const int64_t wanted = std::min(positions, options_.positionsPerSample);
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t first = i * positions / wanted, width = (i + 1) * positions / wanted - first;
    const int64_t position =
        first + static_cast<int64_t>(scramble(static_cast<uint64_t>(sample * 1000003 + i)) % static_cast<uint64_t>(width));
    gather(input.as<float>(), position);
    sums_.next();
    ++statistics_.positions;
  }
}

LayerStatistics LayerSampler::take() && {
  statistics_.gram = sums_.products();
  statistics_.sum = sums_.sums();
  return std::move(statistics_);
}

}  // namespace qc
