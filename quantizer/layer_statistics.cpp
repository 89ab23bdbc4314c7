#include "quantizer/layer_statistics.h"

#include <algorithm>

#include "quantizer/multiversion.h"

namespace qc {
namespace {

constexpr int64_t kBlock = 32;  // positions that are summed in one go; a multiple of 4

// gram += rows^T rows, upper triangle.
QC_MULTIVERSION void addProducts(const float* rows, int64_t depth, float* gram) {
  for (int64_t i = 0; i < depth; ++i) {
    float* out = gram + i * depth;
    for (int64_t r = 0; r < kBlock; r += 4) {
      const float *a = rows + r * depth, *b = a + depth, *c = b + depth, *d = c + depth;
      const float ai = a[i], bi = b[i], ci = c[i], di = d[i];
      for (int64_t j = i; j < depth; ++j) out[j] += (ai * a[j] + bi * b[j]) + (ci * c[j] + di * d[j]);
    }
  }
}

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
  t.sum.assign(static_cast<size_t>(t.groups * t.depth), 0.0);
  if (options.gram && t.groups * t.depth * t.depth <= options.largestGram)
    t.gram.assign(static_cast<size_t>(t.groups * t.depth * t.depth), 0.0f);
  s.block_.assign(static_cast<size_t>(t.groups * kBlock * t.depth), 0.0f);
  return s;
}

void LayerSampler::gather(const float* x, int64_t position, float* rows) const {
  const int64_t depth = statistics_.depth, groups = statistics_.groups;
  if (axes_.empty()) {
    std::copy_n(x + position * depth, depth, rows);
    return;
  }
  int64_t plane = 1, outputs = 1, taps = 1;
  for (const Axis& a : axes_) {
    plane *= a.in;
    outputs *= a.out;
    taps *= a.kernel;
  }
  const float* image = x + position / outputs * groups * channels_ * plane;
  for (int64_t tap = 0; tap < taps; ++tap) {
    int64_t offset = 0, scale = 1, restTap = tap, restOut = position % outputs;
    bool inside = true;
    for (auto a = axes_.rbegin(); a != axes_.rend(); ++a) {
      const int64_t at = restOut % a->out * a->stride - a->pad + restTap % a->kernel * a->dilation;
      inside = inside && at >= 0 && at < a->in;
      offset += at * scale;
      scale *= a->in;
      restTap /= a->kernel;
      restOut /= a->out;
    }
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t c = 0; c < channels_; ++c)
        rows[g * kBlock * depth + c * taps + tap] = inside ? image[(g * channels_ + c) * plane + offset] : 0.0f;
  }
}

void LayerSampler::add(const TensorRef& input, int64_t sample) {
  int64_t positions = axes_.empty() ? input.numElements() / std::max<int64_t>(1, statistics_.depth) : input.sizes[0];
  for (const Axis& a : axes_) positions *= a.out;
  const int64_t wanted = std::min(positions, options_.positionsPerSample);
  for (int64_t i = 0; i < wanted; ++i) {
    const int64_t first = i * positions / wanted, width = (i + 1) * positions / wanted - first;
    const int64_t position =
        first + static_cast<int64_t>(scramble(static_cast<uint64_t>(sample * 1000003 + i)) % static_cast<uint64_t>(width));
    gather(input.as<float>(), position, block_.data() + filled_ * statistics_.depth);
    ++statistics_.positions;
    if (++filled_ == kBlock) flush();
  }
}

void LayerSampler::flush() {
  LayerStatistics& t = statistics_;
  for (int64_t g = 0; g < t.groups; ++g) {
    const float* rows = block_.data() + g * kBlock * t.depth;
    for (int64_t r = 0; r < kBlock; ++r)
      for (int64_t i = 0; i < t.depth; ++i) t.sum[static_cast<size_t>(g * t.depth + i)] += rows[r * t.depth + i];
    if (!t.gram.empty()) addProducts(rows, t.depth, t.gram.data() + g * t.depth * t.depth);
  }
  std::fill(block_.begin(), block_.end(), 0.0f);
  filled_ = 0;
}

LayerStatistics LayerSampler::take() && {
  flush();
  LayerStatistics& t = statistics_;
  for (int64_t g = 0; g < t.groups && !t.gram.empty(); ++g) {
    float* gram = t.gram.data() + g * t.depth * t.depth;
    for (int64_t i = 0; i < t.depth; ++i)
      for (int64_t j = 0; j < i; ++j) gram[i * t.depth + j] = gram[j * t.depth + i];
  }
  return std::move(t);
}

}  // namespace qc
