#include "passes/channel_noise.h"

#include <algorithm>
#include <cmath>

#include "passes/graph_util.h"
#include "quantizer/multiversion.h"

namespace qc {
namespace {

// Which channel of the input an element of the weight reads.
struct WeightLayout {
  int64_t outputs, perOutput, taps, channels, outputsPerGroup;
  explicit WeightLayout(const Node& node) {
    const Tensor& w = *floatConstant(node.operand(1));
    const int64_t groups = node.is("conv") ? node.integer("group") : 1;
    outputs = w.sizes()[0];
    perOutput = w.numElements() / std::max<int64_t>(1, outputs);
    channels = w.sizes()[1];
    taps = perOutput / std::max<int64_t>(1, channels);
    outputsPerGroup = std::max<int64_t>(1, outputs / groups);
  }
  size_t channel(int64_t output, int64_t i) const { return static_cast<size_t>(output / outputsPerGroup * channels + i / taps); }
};

constexpr int64_t kTogether = 8;  // outputs: their sums do not wait for each other
struct OutputSums {
  double largest[kTogether] = {}, square[kTogether] = {};
};

// Of the scaled weights of `count` outputs, each summed in order; lanes beyond repeat the last.
QC_MULTIVERSION void addOutputs(const float* w, const double* scale, int64_t perOutput, int64_t count, OutputSums& sums) {
  OutputSums s = sums;
  int64_t first[kTogether];
  for (int64_t k = 0; k < kTogether; ++k) first[k] = std::min(k, count - 1) * perOutput;
  for (int64_t i = 0; i < perOutput; ++i)
    for (int64_t k = 0; k < kTogether; ++k) {
      const double v = static_cast<double>(std::fabs(w[first[k] + i])) * scale[i];
      s.largest[k] = s.largest[k] < v ? v : s.largest[k];
      s.square[k] += v * v;
    }
  sums = s;
}

// The variance that rounding adds to the results of the readers, times 12: each rounded number adds the square of its step.
double expectedNoise(const std::vector<Node*>& readers, const ChannelStatistics& x, const std::vector<double>& s) {
  double low = 0, high = 0, noise = 0;
  for (size_t j = 0; j < s.size(); ++j) {
    low = std::min(low, x.min[j] / s[j]);
    high = std::max(high, x.max[j] / s[j]);
  }
  const double step = (high - low) / 255;
  for (const Node* reader : readers) {
    const WeightLayout layout(*reader);
    const auto w = floatConstant(reader->operand(1))->as<float>();
    std::vector<double> scale(static_cast<size_t>(layout.perOutput));
    for (int64_t group = 0; group < layout.outputs; group += layout.outputsPerGroup) {
      double energy = 0;  // of what one output reads
      for (int64_t i = 0; i < layout.perOutput; ++i) {
        const size_t j = layout.channel(group, i);
        scale[static_cast<size_t>(i)] = s[j];
        energy += x.square[j] / (s[j] * s[j]);
      }
      const int64_t end = std::min(layout.outputs, group + layout.outputsPerGroup);
      for (int64_t o = group; o < end; o += kTogether) {
        const int64_t count = std::min(kTogether, end - o);
        OutputSums sums;
        addOutputs(w.data() + o * layout.perOutput, scale.data(), layout.perOutput, count, sums);
        for (int64_t k = 0; k < count; ++k)
          noise += step * step * sums.square[k] + sums.largest[k] * sums.largest[k] * 4 / (255.0 * 255.0) * energy;
      }
    }
  }
  return noise;
}

std::vector<double> largestWeights(const std::vector<Node*>& readers, size_t channels) {
  std::vector<double> largest(channels, 0.0);
  for (const Node* reader : readers) {
    const WeightLayout layout(*reader);
    const auto w = floatConstant(reader->operand(1))->as<float>();
    for (int64_t at = 0; at < layout.outputs * layout.perOutput; ++at) {
      double& v = largest[layout.channel(at / layout.perOutput, at % layout.perOutput)];
      v = std::max(v, static_cast<double>(std::fabs(w[static_cast<size_t>(at)])));
    }
  }
  return largest;
}

std::vector<double> factors(const std::vector<double>& weights, const ChannelStatistics& x, double a) {
  constexpr double kMost = 1e3;
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
    s[j] = dead ? 1.0 : static_cast<double>(static_cast<float>(std::clamp(s[j] / mean, 1 / kMost, kMost)));
  }
  return s;
}

double largestOf(const ChannelStatistics& x, size_t j) { return std::max(std::fabs(x.min[j]), std::fabs(x.max[j])); }

// Only channels above a limit, down to it: a single outlier is no reason to touch the rest.
std::vector<double> limiting(const ChannelStatistics& x, double limit) {
  std::vector<double> s;
  for (size_t j = 0; j < x.max.size(); ++j) s.push_back(static_cast<double>(static_cast<float>(std::max(1.0, largestOf(x, j) / limit))));
  return s;
}

}  // namespace

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
      node.is("linear") || (node.is("conv") && node.string("layout") != "channels_last") ? floatConstant(node.operand(1)) : nullptr;
  return w && w->rank() >= 2 && w->numElements() > 0 && node.operand(1) != node.operand(0);
}

std::vector<double> bestFactors(const std::vector<Node*>& readers, const ChannelStatistics& x, double worthwhile) {
  const std::vector<double> weights = largestWeights(readers, x.max.size());
  std::vector<double> best;
  double least = worthwhile * expectedNoise(readers, x, std::vector<double>(x.max.size(), 1.0));
  const auto consider = [&](std::vector<double> s) {
    if (const double noise = expectedNoise(readers, x, s); noise < least) {
      least = noise;
      best = std::move(s);
    }
  };
  for (int tenths = 1; tenths <= 10; ++tenths) consider(factors(weights, x, tenths / 10.0));
  double largest = 0;
  for (size_t j = 0; j < x.max.size(); ++j) largest = std::max(largest, largestOf(x, j));
  for (int halvings = 1; halvings <= 10 && largest > 0; ++halvings) consider(limiting(x, largest * std::exp2(-halvings / 2.0)));
  return best;
}

void scaleInputs(Graph& graph, Node* reader, const std::vector<double>& s) {
  const WeightLayout layout(*reader);
  const Tensor& w = *floatConstant(reader->operand(1));
  Tensor out(DType::f32, w.sizes());
  for (int64_t at = 0; at < w.numElements(); ++at)
    out.mutableAs<float>()[static_cast<size_t>(at)] =
        w.as<float>()[static_cast<size_t>(at)] * static_cast<float>(s[layout.channel(at / layout.perOutput, at % layout.perOutput)]);
  Builder b(graph);
  b.before(reader);
  reader->setOperand(1, b.constant(reader->operand(1)->name() + "_smoothed", std::move(out)));
}

Tensor scaledLast(const Tensor& t, const std::vector<double>& s, bool divide) {
  Tensor out(DType::f32, t.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const auto factor = static_cast<float>(s[static_cast<size_t>(i) % s.size()]);
    const float v = t.as<float>()[static_cast<size_t>(i)];
    out.mutableAs<float>()[static_cast<size_t>(i)] = divide ? v / factor : v * factor;
  }
  return out;
}

}  // namespace qc
