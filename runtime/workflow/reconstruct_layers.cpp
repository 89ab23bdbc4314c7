// Layer by layer in the order in which they run: what the layer reads is taken from the model as it is quantized by then, what its result
// should be from the float model, and the pass `reconstruct` fits weights and bias.  Where a layer ends a block, that is where its result
// is added to one that was computed before it, the sum is what counts: the layer also makes up for what the other operand lacks.
// Each element of what is read comes from the float model in half of the cases (QDrop): the fit then holds for what lies between.
#include "runtime/workflow/reconstruct_layers.h"

#include <algorithm>

#include "frontend/data/sample_error.h"
#include "passes/pass_manager.h"
#include "passes/quantize/reconstructed_layers.h"
#include "runtime/workflow/part_taps.h"
#include "runtime/workflow/reconstruct_blocks.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

constexpr uint64_t kSeed = 0x9e3779b97f4a7c15u;

bool isFloat(uint64_t sample, uint64_t element) { return scramble((sample << 32 | element) + kSeed) >> 63; }  // a fair coin

Tensor dropped(const Tensor& real, const Tensor& quantized, int64_t sample) {
  Tensor t(DType::f32, real.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i)
    nth(t.mutableAs<float>(), i) =
        nth((isFloat(static_cast<uint64_t>(sample), static_cast<uint64_t>(i)) ? real : quantized).as<float>(), i);
  return t;
}

const Node* soleUser(const Value* v) { return !v->isOutput() && v->hasOneUse() ? *v->users().begin() : nullptr; }

// What the result of a layer that ends a block is added to: the add, and which operand of it.
struct Addition {
  const Node* add = nullptr;
  int other = 0;
};
Addition additionOf(const Node& layer) {
  const Value* y = layer.result();
  const Node* user = soleUser(y);
  while (user && user->is("observe")) user = soleUser(y = user->result());
  if (!user || !user->is("add") || user->operand(0) == user->operand(1)) return {};
  const int other = user->operand(0) == y ? 1 : 0;
  const Value* residual = user->operand(other);
  if (residual->type().shape != y->type().shape || (residual->producer() && !residual->producer()->isBefore(&layer))) return {};
  return {user, other};
}

Result<std::optional<LayerResponse>> observe(LayerRecovery& r, const Node& layer) {
  const std::vector<int64_t> samples = spreadSamples(r.samples.size(), r.options.samples);
  const int64_t depth = layer.operand("w")->constant()->numElements() / std::max<int64_t>(1, layer.operand("w")->constant()->sizes()[0]);
  const int64_t positions = std::max(r.options.positions, 4 * depth) / std::max<int64_t>(1, static_cast<int64_t>(samples.size())) + 1;
  auto sampler = LayerResponseSampler::of(layer, positions);
  QC_ASSIGN(const Graph int8, convertedGraph(r.observed, r.params));
  const Value* result = int8.findValue(layer.result()->name());
  if (!sampler || !result || !result->producer() || result->producer()->op() != layer.op()) return std::optional<LayerResponse>();
  std::vector<std::string> real{layer.operand(0)->name(), layer.result()->name()}, quantized{result->producer()->operand(0)->name()};
  const Addition addition = additionOf(layer);
  const Value* sum = addition.add ? int8.findValue(addition.add->result()->name()) : nullptr;
  const bool endsBlock = sum && sum->producer() && sum->producer()->is("add");
  if (endsBlock) {
    real.push_back(addition.add->operand(addition.other)->name());
    quantized.push_back(sum->producer()->operand(addition.other)->name());
  }
  QC_ASSIGN(Taps realTaps, tapsOf(r.original, real, {.threads = r.options.threads}));
  QC_ASSIGN(Taps quantizedTaps, tapsOf(int8, quantized, {.threads = r.options.threads}));
  for (size_t k = 0; k < samples.size(); ++k) {
    QC_ASSIGN(const TensorMap sample, r.samples.sample(samples[k]));
    if (Status run = realTaps.run(sample); !run) return inSample(r.samples, samples[k], run.error());
    if (Status run = quantizedTaps.run(sample); !run) return inSample(r.samples, samples[k], run.error());
    const auto same = [&](size_t i, size_t j) {
      return realTaps.value(i).type() == quantizedTaps.value(j).type() && realTaps.value(i).dtype() == DType::f32;
    };
    if (!same(0, 0) || (endsBlock && !same(2, 1))) return std::optional<LayerResponse>();
    const auto seed = static_cast<int64_t>(k);
    const Tensor x = dropped(realTaps.value(0), quantizedTaps.value(0), seed);
    Tensor wanted = ownCopy(realTaps.value(1));
    if (endsBlock) {
      const Tensor residual = dropped(realTaps.value(2), quantizedTaps.value(1), -1 - seed);
      for (int64_t i = 0; i < wanted.numElements(); ++i)
        nth(wanted.mutableAs<float>(), i) += nth(realTaps.value(2).as<float>(), i) - nth(residual.as<float>(), i);
    }
    sampler->add(x.ref(), wanted.ref(), seed);
  }
  return std::optional(std::move(*sampler).take());
}

}  // namespace

Status reconstructLayers(LayerRecovery& r, std::string_view choice) {
  std::vector<const Node*> layers = r.layers();
  r.cx.provide(ReconstructedLayers());
  std::erase_if(layers, [&](const Node* layer) { return !reconstructs(choice, *layer); });
  std::vector<Block> blocks = blocksOf(r.original, layers);
  std::erase_if(blocks, [&](const Block& block) { return !reconstructsTogether(choice, block.layers); });
  if (!blocks.empty() && r.samples.size() < static_cast<int64_t>(kFewestBlockSamples)) {
    r.cx.remarks.push_back({"reconstruct", "",
                            fmt::format("layers keep what each found alone: whole blocks are fitted to {} samples or more, there are {}",
                                        kFewestBlockSamples, r.samples.size())});
    blocks.clear();
  }
  size_t done = 0;
  for (size_t k = 0; k < layers.size(); ++k) {
    QC_ASSIGN(std::optional<LayerResponse> seen, observe(r, *layers[k]));
    r.options.tell("reconstruction", ++done, layers.size() + blocks.size());
    if (seen) {
      r.cx.provide(ResponseByLayer{{layers[k]->result()->name(), std::move(*seen)}});
      QC_TRY(runPipeline("reconstruct", r.observed, r.cx));
    }
    const auto block = std::find_if(blocks.begin(), blocks.end(), [&](const Block& each) { return each.layers.back() == layers[k]; });
    if (block == blocks.end()) continue;
    QC_TRY(reconstructBlock(r, *block));
    r.options.tell("reconstruction", ++done, layers.size() + blocks.size());
  }
  return {};
}

}  // namespace qc
