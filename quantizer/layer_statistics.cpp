#include "quantizer/layer_statistics.h"

#include <algorithm>
#include <cmath>

namespace qc {
namespace {

int64_t valueOr(const std::vector<int64_t>& list, size_t i, int64_t otherwise) { return i < list.size() ? list[i] : otherwise; }

}  // namespace

bool allFinite(std::span<const float> values) {
  float sum = 0;  // of zeros, or not a number
  for (const float v : values) sum += v * 0;
  return sum == 0;
}

bool LayerStatistics::isFinite() const {
  return allFinite(gram) && std::all_of(sum.begin(), sum.end(), [](double v) { return std::isfinite(v); });
}

uint64_t scramble(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::optional<LayerSampler> LayerSampler::of(const Node& layer, const SamplerOptions& options) {
  const Tensor* weight = layer.operand("w") ? layer.operand("w")->constant() : nullptr;
  const TensorType& x = layer.operand(0)->type();
  if (!weight || weight->dtype() != DType::f32 || weight->numElements() == 0) return std::nullopt;
  LayerSampler s;
  s.options_ = options;
  const std::vector<int64_t>& w = weight->sizes();
  if (layer.is("conv")) {
    if (layer.string("layout") == "channels_last") return std::nullopt;
    s.statistics_.groups = layer.integer("group");
    s.channels_ = w[1];
    for (size_t i = 0; i + 2 < w.size(); ++i)
      s.axes_.push_back({w[i + 2], valueOr(layer.integers("strides"), i, 1), valueOr(layer.integers("dilations"), i, 1),
                         valueOr(layer.integers("pads"), i, 0), valueOr(layer.integers("pads"), i + w.size() - 2, 0)});
    s.free_ = !isStatic(Shape(x.shape.begin() + 2, x.shape.end()));
    if (!s.free_) {
      std::vector<int64_t> sizes{0, 0};
      for (size_t d = 2; d < x.shape.size(); ++d) sizes.push_back(x.shape[d].size());
      s.resize(sizes);
    }
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
  int64_t taps = 1, plane = 1, outputs = 1;
  for (const Axis& a : axes_) {
    taps *= a.kernel;
    plane *= a.in;
    outputs *= a.out;
  }
  const int64_t image = position / outputs * statistics_.groups * channels_ * plane;
  for (int64_t tap = 0; tap < taps; ++tap) {
    int64_t offset = image, scale = 1, restTap = tap, restOut = position % outputs;
    bool inside = true;
    for (auto a = axes_.rbegin(); a != axes_.rend(); ++a) {
      const int64_t at = restOut % a->out * a->stride - a->pad + restTap % a->kernel * a->dilation;
      inside = inside && at >= 0 && at < a->in;
      offset += at * scale;
      scale *= a->in;
      restTap /= a->kernel;
      restOut /= a->out;
    }
    taps_.push_back(inside ? offset : -1);
  }
}

// Plane by plane, so that neighbours in memory are read together.
void LayerSampler::gather(const float* x, std::span<const int64_t> positions) {
  const auto count = static_cast<int64_t>(positions.size());
  if (axes_.empty()) {
    for (int64_t p = 0; p < count; ++p) sums_.set(p, 0, x + nth(positions, p) * statistics_.depth);
    return;
  }
  taps_.clear();
  for (const int64_t position : positions) findTaps(position);
  const int64_t taps = static_cast<int64_t>(taps_.size()) / count;
  int64_t planeSize = 1;
  for (const Axis& a : axes_) planeSize *= a.in;
  for (int64_t g = 0; g < statistics_.groups; ++g)
    for (int64_t i = 0; i < statistics_.depth; i += taps, x += planeSize)
      for (int64_t tap = 0; tap < taps; ++tap) {
        float* to = &sums_.at(0, g, i + tap);
        for (int64_t p = 0; p < count; ++p) {
          const int64_t place = nth(taps_, p * taps + tap);
          to[p * ProductSums::kLanes] = place < 0 ? 0.0f : x[place];
        }
      }
}

bool LayerSampler::fits(const TensorRef& input) const {
  if (input.sizes.empty()) return false;
  if (axes_.empty()) return true;
  bool same = input.sizes.size() == axes_.size() + 2;
  for (size_t i = 0; same && i < axes_.size(); ++i) same = input.sizes[i + 2] == axes_[i].in && axes_[i].out > 0;
  return same;
}

void LayerSampler::resize(std::span<const int64_t> sizes) {
  if (sizes.size() != axes_.size() + 2) return;
  for (size_t i = 0; i < axes_.size(); ++i) {
    Axis& a = axes_[i];
    const int64_t room = sizes[i + 2] + a.pad + a.padBehind - (a.kernel - 1) * a.dilation - 1;
    a.in = sizes[i + 2];
    a.out = room < 0 ? 0 : room / a.stride + 1;
  }
}

void LayerSampler::add(const TensorRef& input, int64_t sample) {
  if (free_) resize(input.sizes);
  if (!fits(input) || !allFinite(input)) return;
  int64_t positions = axes_.empty() ? input.numElements() / std::max<int64_t>(1, statistics_.depth) : input.sizes[0];
  for (const Axis& a : axes_) positions *= a.out;
  const int64_t wanted = std::min(positions, options_.positionsPerSample);
  std::vector<int64_t> drawn;
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t first = i * positions / wanted, width = (i + 1) * positions / wanted - first;
    drawn.push_back(first + static_cast<int64_t>(scramble(static_cast<uint64_t>(sample * 1000003 + i)) % static_cast<uint64_t>(width)));
  }
  for (std::span<const int64_t> rest(drawn); !rest.empty();) {
    const auto count = std::min(rest.size(), usize(sums_.room()));
    gather(input.as<float>(), rest.first(count));
    sums_.add(static_cast<int64_t>(count));
    rest = rest.subspan(count);
  }
  statistics_.positions += wanted;
  statistics_.samples += wanted > 0;
}

LayerStatistics LayerSampler::take() && {
  statistics_.gram = sums_.products();
  statistics_.sum = sums_.sums();
  return std::move(statistics_);
}

std::vector<float> missingMean(const Tensor& w, const LayerStatistics& x, const Tensor& rounded, const LayerStatistics& seen) {
  const int64_t channels = w.sizes()[0], perGroup = channels / x.groups;
  std::vector<float> missing;
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < x.depth; ++i) {
      const auto at = usize(c * x.depth + i);
      const int64_t input = c / perGroup * x.depth + i;
      sum += static_cast<double>(w.as<float>()[at]) * x.mean(input) - static_cast<double>(rounded.as<float>()[at]) * seen.mean(input);
    }
    missing.push_back(static_cast<float>(sum * x.trust()));
  }
  return missing;
}

}  // namespace qc
