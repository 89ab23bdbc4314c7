#include "passes/quantize/channel_noise.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "passes/graph_util.h"
#include "quantizer/observers/multiversion.h"

namespace qc {
namespace {

constexpr double kWorthwhileOnOne = 0.1;  // of the noise: one sample does not tell what the next is like

constexpr int64_t kOutputsAtOnce = 8;  // outputs: their sums do not wait for each other
struct OutputSums {
  double largest[kOutputsAtOnce] = {}, square[kOutputsAtOnce] = {};
};

// Of the scaled weights of `count` outputs, each summed in order; lanes beyond repeat the last.
QC_MULTIVERSION void addOutputs(const float* w, const double* scale, int64_t perOutput, int64_t count, OutputSums& sums) {
  OutputSums s = sums;
  int64_t first[kOutputsAtOnce];
  for (int64_t k = 0; k < kOutputsAtOnce; ++k) first[k] = std::min(k, count - 1) * perOutput;
  for (int64_t i = 0; i < perOutput; ++i)
    for (int64_t k = 0; k < kOutputsAtOnce; ++k) {
      const double v = static_cast<double>(std::fabs(w[first[k] + i])) * scale[i];
      s.largest[k] = s.largest[k] < v ? v : s.largest[k];
      s.square[k] += v * v;
    }
  sums = s;
}

// The variance that rounding adds to the results of the readers, times 12: each rounded number adds the square of its step.
double expectedNoise(const std::vector<Node*>& readers, const ChannelStatistics& x, const std::vector<double>& s, double weightSteps) {
  double low = 0, high = 0, noise = 0;
  for (size_t j = 0; j < s.size(); ++j) {
    low = std::min(low, x.min[j] / s[j]);
    high = std::max(high, x.max[j] / s[j]);
  }
  const double step = (high - low) / 255;
  for (const Node* reader : readers) {
    const InputChannels layout(*reader);
    const auto w = floatConstant(reader->operand("w"))->as<float>();
    std::vector<double> scale(usize(layout.perOutput));
    for (int64_t group = 0; group < layout.outputs; group += layout.outputsPerGroup) {
      double energy = 0;  // of what one output reads
      for (int64_t i = 0; i < layout.perOutput; ++i) {
        const size_t j = layout.of(usize(group * layout.perOutput + i));
        nth(scale, i) = s[j];
        energy += x.square[j] / (s[j] * s[j]);
      }
      const int64_t end = std::min(layout.outputs, group + layout.outputsPerGroup);
      for (int64_t o = group; o < end; o += kOutputsAtOnce) {
        const int64_t count = std::min(kOutputsAtOnce, end - o);
        OutputSums sums;
        addOutputs(w.data() + o * layout.perOutput, scale.data(), layout.perOutput, count, sums);
        for (int64_t k = 0; k < count; ++k)
          noise += step * step * sums.square[k] + sums.largest[k] * sums.largest[k] * 4 / (weightSteps * weightSteps) * energy;
      }
    }
  }
  return noise;
}

// How much the results of the readers change with the square of channel j: the sum of the squares of its weights.
std::vector<double> squaredWeights(const std::vector<Node*>& readers, size_t channels) {
  std::vector<double> squares(channels, 0.0);
  for (const Node* reader : readers) {
    const InputChannels layout(*reader);
    const auto w = floatConstant(reader->operand("w"))->as<float>();
    layout.each([&](size_t at, size_t channel) { squares[channel] += static_cast<double>(w[at]) * w[at]; });
  }
  return squares;
}

std::vector<double> factors(const std::vector<double>& weights, const ChannelStatistics& x, double a) {
  constexpr double kMaxFactor = 1e3;
  std::vector<double> s(x.max.size(), 1.0);
  double logs = 0;
  int64_t counted = 0;
  for (size_t j = 0; j < s.size(); ++j) {
    const double largest = std::max(std::fabs(x.min[j]), std::fabs(x.max[j]));
    if (!(largest > 0 && weights[j] > 0)) continue;
    s[j] = std::pow(largest, a) / std::pow(weights[j], 1 - a);
    logs += std::log(s[j]);
    ++counted;
  }
  const double mean = counted ? std::exp(logs / static_cast<double>(counted)) : 1.0;
  for (size_t j = 0; j < s.size(); ++j) {
    const bool dead = !(std::max(std::fabs(x.min[j]), std::fabs(x.max[j])) > 0 && weights[j] > 0);
    s[j] = dead ? 1.0 : static_cast<double>(static_cast<float>(std::clamp(s[j] / mean, 1 / kMaxFactor, kMaxFactor)));
  }
  return s;
}

double largestOf(const ChannelStatistics& x, size_t j) { return std::max(std::fabs(x.min[j]), std::fabs(x.max[j])); }

// Only channels above that share of the largest, down to it: a single outlier is no reason to touch the rest.
std::vector<double> limiting(const ChannelStatistics& x, double share) {
  double largest = 0;
  for (size_t j = 0; j < x.max.size(); ++j) largest = std::max(largest, largestOf(x, j));
  const double limit = share * largest;
  if (!(limit > 0)) return std::vector<double>(x.max.size(), 1.0);
  std::vector<double> s;
  for (size_t j = 0; j < x.max.size(); ++j) s.push_back(static_cast<double>(static_cast<float>(std::max(1.0, largestOf(x, j) / limit))));
  return s;
}

// How factors follow from the ranges of channels.
using Rule = std::function<std::vector<double>(const ChannelStatistics&)>;

// The variance, times 12, that values beyond the range add to the results, when factors and range come from all shares but one and values
// from that one: at least its extreme is cut off, once.
double cutOffNoise(const ChannelStatistics& x, const std::vector<ChannelStatistics>& others, const std::vector<double>& squares,
                   const Rule& rule) {
  double noise = 0;
  for (size_t k = 0; k < others.size(); ++k) {
    const ChannelStatistics::Share& share = x.shares[k];
    const std::vector<double> s = rule(others[k]);
    double low = 0, high = 0, beyond = 0;
    for (size_t j = 0; j < s.size(); ++j) {
      low = std::min(low, others[k].min[j] / s[j]);
      high = std::max(high, others[k].max[j] / s[j]);
    }
    for (size_t j = 0; j < s.size(); ++j) {
      const double above = std::max(0.0, share.max[j] - high * s[j]), below = std::max(0.0, low * s[j] - share.min[j]);
      beyond += (above * above + below * below) * squares[j];
    }
    noise += 12 * beyond / share.positions;
  }
  return others.empty() ? 0 : noise / static_cast<double>(others.size());
}

// For every share what the others say; nothing where there are not two.
std::vector<ChannelStatistics> withoutEach(const ChannelStatistics& x) {
  std::vector<ChannelStatistics> others;
  if (x.shares.size() < 2) return others;
  for (size_t left = 0; left < x.shares.size(); ++left) {
    ChannelStatistics& o = others.emplace_back();
    o.min.assign(x.min.size(), 0.0f);
    o.max.assign(x.max.size(), 0.0f);
    for (size_t k = 0; k < x.shares.size(); ++k)
      for (size_t j = 0; k != left && j < o.max.size(); ++j) {
        o.min[j] = std::min(o.min[j], x.shares[k].min[j]);
        o.max[j] = std::max(o.max[j], x.shares[k].max[j]);
      }
  }
  return others;
}

}  // namespace

InputChannels::InputChannels(const Node& layer) {
  const Tensor& w = *floatConstant(layer.operand("w"));
  const int64_t groups = layer.is("conv") ? layer.integer("group") : 1;
  outputs = w.sizes()[0];
  perOutput = w.numElements() / std::max<int64_t>(1, outputs);
  channels = w.sizes()[1];
  taps = perOutput / std::max<int64_t>(1, channels);
  outputsPerGroup = std::max<int64_t>(1, outputs / groups);
}

double weightSteps(PassContext& cx) {
  const auto* given = cx.get<WeightSteps>();
  return static_cast<double>(given ? given->count : WeightSteps().count);
}

std::vector<double> largestWeights(const std::vector<Node*>& readers, size_t channels) {
  std::vector<double> largest(channels, 0.0);
  for (const Node* reader : readers) {
    const InputChannels layout(*reader);
    const auto w = floatConstant(reader->operand("w"))->as<float>();
    layout.each([&](size_t at, size_t channel) { largest[channel] = std::max(largest[channel], static_cast<double>(std::fabs(w[at]))); });
  }
  return largest;
}

ChannelStatistics spreadChannels(int64_t channels, double spread) {
  ChannelStatistics x;
  for (int64_t c = 0; c < channels; ++c) {
    const auto v = static_cast<float>(std::pow(spread, static_cast<double>(c) / static_cast<double>(std::max<int64_t>(1, channels - 1))));
    x.min.push_back(-v);
    x.max.push_back(v);
    x.square.push_back(v * v / 3.0);
  }
  return x;
}

bool readsChannels(const Node& node) {
  const Tensor* w =
      node.is("linear") || (node.is("conv") && node.string("layout") != "channels_last") ? floatConstant(node.operand("w")) : nullptr;
  return w && w->rank() >= 2 && w->numElements() > 0 && node.operand("w") != node.operand(0);
}

std::vector<double> bestFactors(const std::vector<Node*>& readers, const ChannelStatistics& x, double worthwhile, double weightSteps) {
  const size_t channels = x.max.size();
  const std::vector<double> weights = largestWeights(readers, channels), squares = squaredWeights(readers, channels);
  const std::vector<ChannelStatistics> others = withoutEach(x);
  if (x.shares.size() == 1) worthwhile = std::min(worthwhile, kWorthwhileOnOne);
  std::vector<double> best;
  double least = std::numeric_limits<double>::infinity();
  const auto consider = [&](const Rule& rule, double demanded) {
    std::vector<double> s = rule(x);
    const double cutOff = cutOffNoise(x, others, squares, rule);
    if (cutOff >= least) return;
    if (const double noise = (expectedNoise(readers, x, s, weightSteps) + cutOff) * demanded; noise < least) {
      least = noise;
      best = std::move(s);
    }
  };
  consider([](const ChannelStatistics& y) { return std::vector<double>(y.max.size(), 1.0); }, worthwhile);
  best.clear();
  for (int tenths = 1; tenths <= 10; ++tenths) consider([&](const ChannelStatistics& y) { return factors(weights, y, tenths / 10.0); }, 1);
  for (int halvings = 1; halvings <= 10; ++halvings)
    consider([&](const ChannelStatistics& y) { return limiting(y, std::exp2(-halvings / 2.0)); }, 1);
  return best;
}

std::vector<float> reciprocals(const std::vector<double>& s) {
  std::vector<float> r;
  for (const double each : s) r.push_back(static_cast<float>(1 / each));
  return r;
}

void scaleInputs(Graph& graph, Node* reader, const std::vector<double>& s) {
  const InputChannels layout(*reader);
  const Tensor& w = *floatConstant(reader->operand("w"));
  Tensor out(DType::f32, w.sizes());
  const auto from = w.as<float>();
  const auto to = out.mutableAs<float>();
  layout.each([&](size_t at, size_t channel) { to[at] = from[at] * static_cast<float>(s[channel]); });
  Builder b(graph);
  b.before(reader);
  reader->setOperand("w", b.constant(reader->operand("w")->name() + "_smoothed", std::move(out)));
}

Tensor scaledLast(const Tensor& t, const std::vector<double>& s, bool divide) {
  Tensor out(DType::f32, t.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const auto factor = static_cast<float>(s[usize(i) % s.size()]);
    const float v = nth(t.as<float>(), i);
    nth(out.mutableAs<float>(), i) = divide ? v / factor : v * factor;
  }
  return out;
}

}  // namespace qc
