#include "runtime/workflow/recover.h"

#include <algorithm>
#include <cmath>

#include "ir/arithmetic.h"
#include "passes/pass_manager.h"
#include "passes/quantize/bias_corrections.h"
#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/other_shapes.h"
#include "runtime/workflow/taps.h"

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
    lack.push_back(static_cast<float>(sum * x.trust()));
  }
  return lack;
}

// The weight as the quantized graph computes with it: integers behind a dequantize.
std::optional<Tensor> weightInUse(const Graph& quantized, const std::string& layer) {
  const Value* result = quantized.findValue(layer);
  const Value* w = result && result->producer() ? result->producer()->operand("w") : nullptr;
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

// What the layers' means lack, as far as their own weights are the cause: their inputs have the means of the float model.
Status correctFast(Graph& prepared, const Graph& original, const GroupParams& params, const StatisticsByLayer& inputs, PassContext& cx) {
  QC_ASSIGN(const Graph int8, convertedGraph(prepared, params));
  BiasCorrections corrections;
  for (const Node* layer : int8Layers(original)) {
    const std::string& name = layer->result()->name();
    const auto input = inputs.find(name);
    const auto weight = weightInUse(int8, name);
    if (input != inputs.end() && weight)
      corrections.emplace(name, lackOfMean(*layer->operand("w")->constant(), input->second, *weight, input->second));
  }
  cx.provide(std::move(corrections));
  return runPipeline("correct-bias", prepared, cx);
}

// What they lack in the int8 model as it is, one layer after the other: each sees its predecessors corrected.
Status correctFully(Graph& prepared, const Graph& original, const GroupParams& params, const StatisticsByLayer& expected,
                    const Dataset& samples, const RecoverOptions& options, PassContext& cx) {
  for (const Node* layer : int8Layers(original)) {
    QC_ASSIGN(const Graph int8, convertedGraph(prepared, params));
    QC_ASSIGN(const StatisticsByLayer seen, observeLayers(int8, {layer}, samples, options, false));
    const std::string& name = layer->result()->name();
    const auto before = expected.find(name), after = seen.find(name);
    const auto weight = weightInUse(int8, name);
    if (before == expected.end() || after == seen.end() || !weight) continue;
    cx.provide(BiasCorrections{{name, lackOfMean(*layer->operand("w")->constant(), before->second, *weight, after->second)}});
    QC_TRY(runPipeline("correct-bias", prepared, cx));
  }
  return {};
}

}  // namespace

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

}  // namespace qc
