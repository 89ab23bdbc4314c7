#include "runtime/recover.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "ir/arithmetic.h"
#include "ir/qmath.h"
#include "passes/bias_corrections.h"
#include "passes/equalize_layers.h"
#include "passes/pass_manager.h"
#include "passes/smooth_quant.h"
#include "quantizer/multiversion.h"
#include "runtime/calibrate.h"
#include "runtime/other_shapes.h"
#include "runtime/taps.h"

namespace qc {
namespace {

// The statistics of the layers' inputs, by name of the layer, in a graph where each layer's result has kept its name.
Result<StatisticsByLayer> observeLayers(const Graph& graph, const std::vector<const Node*>& layers, const Dataset& samples,
                                        const RecoverOptions& options, bool gram) {
  LayerObserver observer({.samples = options.samples, .positions = options.positions, .gram = gram});
  observer.watch(graph, layers, samples.size());
  QC_ASSIGN(Taps taps, Taps::open(graph, observer.values(), {.threads = options.threads}));
  size_t done = 0;
  const Shapes own = inputShapes(graph);
  const std::vector<Tensor> nothing(taps.size());
  for (const int64_t index : observer.samples()) {
    QC_ASSIGN(const TensorMap sample, samples.sampleOfAnySize(index));
    const bool fits = shapesOf(sample) == own;
    if (fits) QC_TRY(taps.run(sample));
    observer.see(index, fits ? taps.values() : nothing);
    options.tell("weights and biases", ++done, observer.samples().size());
  }
  return std::move(observer).take();
}

// The first of these samples, by index, that have the shapes of the graph.
Result<std::vector<TensorMap>> fittingSamples(const Graph& graph, const Dataset& samples, const std::vector<int64_t>& indices,
                                              int64_t count) {
  std::vector<TensorMap> fitting;
  const Shapes own = inputShapes(graph);
  for (size_t i = 0; i < indices.size() && static_cast<int64_t>(fitting.size()) < count; ++i) {
    QC_ASSIGN(TensorMap sample, samples.sampleOfAnySize(indices[i]));
    if (shapesOf(sample) == own) fitting.push_back(std::move(sample));
  }
  return fitting;
}

// W E[x] - W' E[x'] for every output channel: what the int8 layer's mean lacks.
std::vector<float> lackOfMean(const Tensor& w, const LayerStatistics& x, const Tensor& rounded, const LayerStatistics& seen) {
  const int64_t channels = w.sizes()[0], perGroup = channels / x.groups;
  std::vector<float> lack;
  for (int64_t c = 0; c < channels; ++c) {
    double sum = 0;
    for (int64_t i = 0; i < x.depth; ++i) {
      const auto at = static_cast<size_t>(c * x.depth + i);
      const int64_t input = c / perGroup * x.depth + i;
      sum += static_cast<double>(w.as<float>()[at]) * x.mean(input) - static_cast<double>(rounded.as<float>()[at]) * seen.mean(input);
    }
    lack.push_back(static_cast<float>(sum));
  }
  return lack;
}

// The weight as the quantized graph computes with it: integers behind a dequantize.
std::optional<Tensor> weightInUse(const Graph& quantized, const std::string& layer) {
  const Value* result = quantized.findValue(layer);
  const Value* w = result && result->producer() ? result->producer()->operand(1) : nullptr;
  const Node* dequantize = w ? w->producer() : nullptr;
  if (!dequantize || !dequantize->is("dequantize") || !dequantize->operand(0)->constant()) return std::nullopt;
  const Tensor& q = *dequantize->operand(0)->constant();
  const QuantParams& params = *dequantize->operand(0)->type().quant;
  if (params.perChannel() && params.axis != 0) return std::nullopt;
  Tensor out(DType::f32, q.sizes());
  const int64_t inner = q.numElements() / std::max<int64_t>(1, q.sizes()[0]);
  for (int64_t i = 0; i < q.numElements(); ++i)
    out.mutableAs<float>()[static_cast<size_t>(i)] = params.scale(i / inner) * static_cast<float>(q.at(i) - params.zeroPoint(i / inner));
  return out;
}

Result<Graph> converted(const Graph& prepared, const GroupParams& params) {
  Graph graph = prepared.clone();
  PassContext cx;
  cx.provide(params);
  QC_TRY(runPipeline("convert", graph, cx));
  return graph;
}

// What the layers' means lack, as far as their own weights are the cause: their inputs have the means of the float model.
Status correctFast(Graph& prepared, const Graph& original, const GroupParams& params, const StatisticsByLayer& inputs, PassContext& cx) {
  QC_ASSIGN(const Graph int8, converted(prepared, params));
  BiasCorrections corrections;
  for (const Node* layer : int8Layers(original)) {
    const std::string& name = layer->result()->name();
    const auto input = inputs.find(name);
    const auto weight = weightInUse(int8, name);
    if (input != inputs.end() && weight)
      corrections.emplace(name, lackOfMean(*layer->operand(1)->constant(), input->second, *weight, input->second));
  }
  cx.provide(std::move(corrections));
  return runPipeline("correct-bias", prepared, cx);
}

// What they lack in the int8 model as it is, one layer after the other: each sees its predecessors corrected.
Status correctFully(Graph& prepared, const Graph& original, const GroupParams& params, const StatisticsByLayer& expected,
                    const Dataset& samples, const RecoverOptions& options, PassContext& cx) {
  for (const Node* layer : int8Layers(original)) {
    QC_ASSIGN(const Graph int8, converted(prepared, params));
    QC_ASSIGN(const StatisticsByLayer seen, observeLayers(int8, {layer}, samples, options, false));
    const std::string& name = layer->result()->name();
    const auto before = expected.find(name), after = seen.find(name);
    const auto weight = weightInUse(int8, name);
    if (before == expected.end() || after == seen.end() || !weight) continue;
    cx.provide(BiasCorrections{{name, lackOfMean(*layer->operand(1)->constant(), before->second, *weight, after->second)}});
    QC_TRY(runPipeline("correct-bias", prepared, cx));
  }
  return {};
}

constexpr size_t kTogether = 8;  // channels: their sums do not wait for each other
using Floats [[gnu::vector_size(kTogether * sizeof(float))]] = float;
using Doubles [[gnu::vector_size(kTogether * sizeof(double))]] = double;
struct ChannelSums {
  Floats min, max;
  Doubles square;
};

// `count` channels of `inner` elements each; lanes beyond repeat the last.
QC_MULTIVERSION void addPlanes(const float* x, size_t count, size_t inner, double share, ChannelSums& sums) {
  ChannelSums s = sums;
  size_t first[kTogether];
  for (size_t c = 0; c < kTogether; ++c) first[c] = std::min(c, count - 1) * inner;
  for (size_t i = 0; i < inner; ++i) {
    const Floats v = {x[first[0] + i], x[first[1] + i], x[first[2] + i], x[first[3] + i],
                      x[first[4] + i], x[first[5] + i], x[first[6] + i], x[first[7] + i]};
    constexpr float kMost = std::numeric_limits<float>::max();
    const auto finite = (v <= kMost) & (v >= -kMost);
    s.min = (finite & (v < s.min)) ? v : s.min;
    s.max = (finite & (v > s.max)) ? v : s.max;
    const Doubles wide = __builtin_convertvector(finite ? v : Floats{}, Doubles);
    s.square += wide * wide * share;
  }
  sums = s;
}

void addChannels(ChannelStatistics& s, const Tensor& t, int axis) {
  size_t inner = 1;
  for (int i = axis + 1; i < t.rank(); ++i) inner *= static_cast<size_t>(t.sizes()[static_cast<size_t>(i)]);
  const size_t channels = s.max.size();
  const auto x = t.as<float>();
  const double share = static_cast<double>(channels) / static_cast<double>(std::max<size_t>(1, x.size()));
  for (size_t c = 0; c < channels; c += kTogether) {
    const size_t count = std::min(kTogether, channels - c);
    ChannelSums sums{};
    for (size_t k = 0; k < count; ++k) {
      sums.min[k] = s.min[c + k];
      sums.max[k] = s.max[c + k];
      sums.square[k] = s.square[c + k];
    }
    for (size_t at = c * inner; at < x.size(); at += channels * inner) addPlanes(x.data() + at, count, inner, share, sums);
    for (size_t k = 0; k < count; ++k) {
      s.min[c + k] = sums.min[k];
      s.max[c + k] = sums.max[k];
      s.square[c + k] = sums.square[k];
    }
  }
}

double decibels(double signal, double noise) {
  constexpr double kMost = 120;
  if (!(noise > 0)) return kMost;
  return signal > 0 ? std::min(kMost, 10 * std::log10(signal / noise)) : 0.0;
}

}  // namespace

namespace {

// A simplified graph with what the channels say moved into weights.
Result<Graph> easedGraph(Graph graph, const ChannelsByValue& channels, const RecoverOptions& options) {
  PassContext cx;
  cx.provide(channels);
  if (options.smoothQuant) QC_TRY(runPipeline("smooth-quant", graph, cx));
  if (options.equalize) QC_TRY(runPipeline("equalize-layers", graph, cx));
  return graph;
}

// The eased model at other shapes: by the same channels, so that its weights are the same.
Model::Reshaper easedReshaper(const Model& model, const Graph& simplified, const ChannelsByValue& channels, const RecoverOptions& options) {
  if (!model.reshaper()) return {};
  const auto float32 = std::make_shared<const Model>(model.graph().clone(), model.name(), model.reshaper());
  const auto graph = std::make_shared<const Graph>(simplified.clone());
  return [float32, graph, channels, smooth = options.smoothQuant, equalize = options.equalize](const Shapes& shapes) -> Result<Model> {
    QC_ASSIGN(Graph other, simplifiedAt(*float32, shapes));
    for (const auto& [name, found] : channels)
      if (!sameValue(other, *graph->findValue(name)))
        return fail(ErrorCode::kUnsupported, "this value does not exist at the shapes of a sample")
            .on(name)
            .help("calibrate with --smooth-quant off --equalize off, or with samples of the model's shape");
    QC_ASSIGN(Graph eased, easedGraph(std::move(other), channels, {.smoothQuant = smooth, .equalize = equalize}));
    return Model(std::move(eased), float32->name());
  };
}

}  // namespace

Result<Model> eased(const Model& model, const QConfigMapping& rules, const Dataset& samples, const RecoverOptions& options) {
  const DefinedArithmetic defined;
  PassContext cx;
  QC_ASSIGN(const Graph prepared, preparedGraph(model, rules, cx));
  const bool quantizes = !int8Layers(prepared).empty();
  Graph graph = model.graph().clone();
  QC_TRY(runPipeline("simplify", graph, cx));
  std::vector<std::string> names;
  std::vector<int> axes;
  const auto look = [&](const Value& value, int axis) {
    if (axis < 0 || !value.type().isStatic() || value.type().dtype != DType::f32) return;
    names.push_back(value.name());
    axes.push_back(axis);
  };
  const auto smoothAxis = [&](const Value& value) { return options.smoothQuant && isSmoothable(value) ? value.type().rank() - 1 : -1; };
  for (const Value* input : graph.inputs()) look(*input, smoothAxis(*input));
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->numResults() != 1) continue;
    const int axis = smoothAxis(*n->result());
    look(*n->result(), axis < 0 && options.equalize ? equalizableAxis(*n) : axis);
  }
  if (!quantizes || names.empty() || samples.size() == 0) return Model(model.graph().clone(), model.name(), model.reshaper());
  ChannelsByValue channels;
  for (size_t k = 0; k < names.size(); ++k) {
    const auto count = static_cast<size_t>(graph.findValue(names[k])->type().shape[static_cast<size_t>(axes[k])].size());
    channels[names[k]] = {std::vector<float>(count), std::vector<float>(count), std::vector<double>(count)};
  }
  const auto tapsAt = [&](const Shapes& shapes) -> Result<Taps> {
    if (shapes == inputShapes(graph)) return Taps::open(graph, names, {.threads = options.threads});
    QC_ASSIGN(const Graph other, simplifiedAt(model, shapes));
    return Taps::open(other, names, {.threads = options.threads});
  };
  PerShapes<Taps> taps;
  const std::vector<int64_t> indices = spreadSamples(samples.size(), options.samples);
  for (size_t i = 0; i < indices.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, anySample(model, samples, indices[i]));
    QC_ASSIGN(Taps * there, taps.at(shapesOf(sample), tapsAt));
    QC_TRY(there->run(sample));
    options.tell("channels", i + 1, indices.size());
    for (size_t k = 0; k < names.size(); ++k) addChannels(channels[names[k]], there->value(k), axes[k]);
  }
  for (auto& [name, s] : channels)
    for (double& v : s.square) v /= static_cast<double>(indices.size());
  Model::Reshaper reshaper = easedReshaper(model, graph, channels, options);
  QC_ASSIGN(Graph easier, easedGraph(std::move(graph), channels, options));
  return Model(std::move(easier), model.name(), std::move(reshaper));
}

Status recover(Graph& prepared, const GroupParams& params, const Dataset& samples, const RecoverOptions& options, PassContext& cx) {
  const DefinedArithmetic defined;
  if (!options.looksAtLayers()) return {};
  const Graph original = prepared.clone();
  const std::vector<const Node*> layers = int8Layers(original);
  if (layers.empty() || samples.size() == 0) return {};
  StatisticsByLayer statistics;
  if (options.observer && options.observer->complete()) {
    statistics = std::move(*options.observer).take();
  } else {
    QC_ASSIGN(statistics, observeLayers(original, layers, samples, options, options.roundWeights));
  }
  if (options.roundWeights) {
    cx.provide(statistics);
    QC_TRY(runPipeline("round-weights", prepared, cx));
  }
  if (options.biasCorrection == BiasCorrection::fast) QC_TRY(correctFast(prepared, original, params, statistics, cx));
  if (options.biasCorrection == BiasCorrection::full) {
    // The int8 model runs the samples of its own shapes alone: its means are held against those of the same samples.
    QC_ASSIGN(const StatisticsByLayer expected, observeLayers(original, layers, samples, options, false));
    QC_TRY(correctFully(prepared, original, params, expected, samples, options, cx));
  }
  return {};
}

Result<std::vector<LayerNoise>> compareLayers(const Graph& prepared, const Graph& quantized, const Dataset& samples, int64_t limit,
                                              const RecoverOptions& options) {
  const DefinedArithmetic defined;
  struct Sums {
    double signal = 0, noise = 0, own = 0;
  };
  std::vector<LayerNoise> layers;
  std::vector<std::string> before, after;
  std::vector<QuantPtr> params;
  // Behind each layer the first value that is rounded: its own result, or that of the ops it ends in.
  for (const Node* n = quantized.front(); n; n = n->next()) {
    if (!n->is("quantize") || !n->operand(0)->producer() || n->operand(0)->producer()->is("dequantize")) continue;
    const Node* producer = n->operand(0)->producer();
    const std::string& name = n->operand(0)->name();
    const auto users = n->result()->users();
    if (users.empty() || !users.front()->is("dequantize") || !prepared.findValue(name)) continue;
    before.push_back(name);
    after.push_back(users.front()->result()->name());
    params.push_back(n->result()->type().quant);
    layers.push_back({producer->location().empty() ? name : producer->location(), std::string(producer->op()), 0, 0});
  }
  for (size_t i = 0; i < quantized.outputs().size(); ++i) {
    before.push_back(prepared.outputs()[i]->name());
    after.push_back(quantized.outputs()[i]->name());
    params.push_back(nullptr);
    layers.push_back({quantized.outputNames()[i], "output", 0, 0});
  }
  QC_ASSIGN(Taps reference, Taps::open(prepared, before, {.threads = options.threads}));
  QC_ASSIGN(Taps int8, Taps::open(quantized, after, {.threads = options.threads}));
  std::vector<Sums> sums(layers.size());
  QC_ASSIGN(std::vector<TensorMap> fitting, fittingSamples(prepared, samples, spreadSamples(samples.size(), limit), limit));
  if (fitting.empty()) {
    QC_ASSIGN(fitting, fittingSamples(prepared, samples, spreadSamples(samples.size(), samples.size()), limit));
  }
  if (fitting.empty()) return std::vector<LayerNoise>();
  for (size_t i = 0; i < fitting.size(); ++i) {
    options.tell("compare", i + 1, fitting.size());
    QC_TRY(reference.run(fitting[i]));
    QC_TRY(int8.run(fitting[i]));
    for (size_t k = 0; k < layers.size(); ++k) {
      const Tensor &x = reference.value(k), &y = int8.value(k);
      if (x.numElements() != y.numElements() || x.dtype() != DType::f32 || y.dtype() != DType::f32) continue;
      Sums& s = sums[k];
      const auto a = x.as<float>(), b = y.as<float>();
      for (size_t e = 0; e < a.size(); ++e) {
        const double d = static_cast<double>(a[e]) - b[e];
        s.signal += static_cast<double>(a[e]) * a[e];
        s.noise += d * d;
        if (!params[k]) continue;
        const QuantParams& p = *params[k];
        const float scale = p.scale(0);
        const int32_t q = qmath::quantize(a[e], scale, p.zeroPoint(0), static_cast<int32_t>(p.qmin), static_cast<int32_t>(p.qmax));
        const double own = static_cast<double>(a[e]) - static_cast<double>(scale * static_cast<float>(q - p.zeroPoint(0)));
        s.own += own * own;
      }
    }
  }
  for (size_t k = 0; k < layers.size(); ++k) {
    layers[k].total = decibels(sums[k].signal, sums[k].noise);
    layers[k].own = decibels(sums[k].signal, sums[k].own);
  }
  return layers;
}

}  // namespace qc
