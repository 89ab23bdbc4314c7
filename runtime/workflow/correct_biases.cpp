// Corrected biases.  fast: for the error of the weights alone, from the means of the float model.  full: one layer after the other, from
// runs of the int8 model, each with its predecessors corrected.
#include "passes/pass_manager.h"
#include "passes/quantize/bias_corrections.h"
#include "passes/quantize/reconstructed_layers.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

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
    nth(out.mutableAs<float>(), i) = params.scale(i / inner) * static_cast<float>(q.at(i) - params.zeroPoint(i / inner));
  return out;
}

// int8 layers whose bias is not settled yet.
std::vector<const Node*> layersToCorrect(const LayerRecovery& r) {
  std::vector<const Node*> layers = r.layers();
  if (const auto* settled = r.cx.get<ReconstructedLayers>())
    std::erase_if(layers, [&](const Node* layer) { return settled->names.contains(layer->result()->name()); });
  return layers;
}

// What the layers' means lack, as far as their own weights are the cause: their inputs have the means of the float model.
Status correctFast(LayerRecovery& r) {
  QC_ASSIGN(const Graph int8, convertedGraph(r.observed, r.params));
  BiasCorrections corrections;
  for (const Node* layer : layersToCorrect(r)) {
    const std::string& name = layer->result()->name();
    const auto input = r.statistics.find(name);
    const auto weight = weightInUse(int8, name);
    if (input != r.statistics.end() && weight)
      corrections.emplace(name, missingMean(*layer->operand("w")->constant(), input->second, *weight, input->second));
  }
  r.cx.provide(std::move(corrections));
  return runPipeline("correct-bias", r.observed, r.cx);
}

// What they lack in the int8 model as it is.  It runs the samples of its own shapes alone: its means are held against those of the same.
Status correctFully(LayerRecovery& r) {
  const std::vector<const Node*> layers = layersToCorrect(r);
  QC_ASSIGN(const StatisticsByLayer expected, observeLayers(r.original, layers, r.samples, r.options, false));
  for (const Node* layer : layers) {
    QC_ASSIGN(const Graph int8, convertedGraph(r.observed, r.params));
    QC_ASSIGN(const StatisticsByLayer seen, observeLayers(int8, {layer}, r.samples, r.options, false));
    const std::string& name = layer->result()->name();
    const auto before = expected.find(name), after = seen.find(name);
    const auto weight = weightInUse(int8, name);
    if (before == expected.end() || after == seen.end() || !weight) continue;
    r.cx.provide(BiasCorrections{{name, missingMean(*layer->operand("w")->constant(), before->second, *weight, after->second)}});
    QC_TRY(runPipeline("correct-bias", r.observed, r.cx));
  }
  return {};
}

}  // namespace

Status correctBiases(LayerRecovery& recovery, std::string_view choice) {
  return choice == "full" ? correctFully(recovery) : correctFast(recovery);
}

}  // namespace qc
