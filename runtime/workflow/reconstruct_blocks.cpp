// What a block reads comes from the model as it is quantized by then; its result should be the float model's, which rounding within the
// block, and clipping, bring apart in ways that no layer sees alone (Li et al. 2021, BRECQ).  The integers that layers have found one by
// one are where the descent begins.  Dropping of what is read (QDrop), which those fits have, cost accuracy here: ResNet-20 with 2 and 8
// bits 77.07 without and 76.63 with it, with 4 and 4 bits 79.40 and 78.53.
#include "runtime/workflow/reconstruct_blocks.h"

#include <algorithm>
#include <cmath>

#include "frontend/data/sample_error.h"
#include "ir/decided_sizes.h"
#include "passes/quantize/reconstructed_layers.h"
#include "runtime/workflow/block_step.h"
#include "runtime/workflow/part_taps.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

constexpr int64_t kMoreSamples = 8;  // times those that layers are fitted to: all weights of a block fit themselves to them
constexpr size_t kHeldOut = kFewestBlockSamples / 2;  // one in so many decides
constexpr size_t kFewest = kFewestBlockSamples;
constexpr int64_t kBytes = int64_t{1} << 28;  // that examples may take

// The node that computes the layer now.
Node* nodeOf(Graph& observed, const std::string& result) {
  Value* v = observed.findValue(result);
  return v ? v->producer() : nullptr;
}

const Node* observeOf(const Value* v) {
  for (const Use* use = v->firstUse(); use; use = use->next())
    if (use->user() && use->user()->is("observe")) return use->user();
  return nullptr;
}

std::vector<BlockLayer> movable(const LayerRecovery& r, const Block& block) {
  std::vector<BlockLayer> layers;
  const auto* settled = r.cx.get<ReconstructedLayers>();
  for (const Node* layer : block.layers) {
    const std::string& name = layer->result()->name();
    const Node* node = nodeOf(r.observed, name);
    if (!settled || !settled->names.contains(name) || !node) continue;
    const auto* fixed = std::get_if<FixedSpec>(&node->annotation()->inputs[1]);
    const Value *w = node->operand("w"), *bias = node->operand("bias");
    if (!fixed || !w->hasOneUse()) continue;
    BlockLayer found{name, w->name(), fixed->params, {}, 0};
    // A result that is not rounded, as that which a relu follows, has no step of its own.
    const Value* rounded = node->result();
    while (!observeOf(rounded) && rounded->hasOneUse() && !rounded->isOutput()) rounded = (*rounded->users().begin())->result();
    const Node* observe = observeOf(rounded);
    const auto range = observe ? r.params.find(observe->integer("id")) : r.params.end();
    if (bias && bias->hasOneUse() && range != r.params.end()) {
      found.bias = bias->name();
      found.biasStep = range->second->scale();
    }
    layers.push_back(std::move(found));
  }
  return layers;
}

// Samples of one shape, as many as memory is set aside for.
Result<std::vector<BlockExample>> examplesOf(const LayerRecovery& r, const Block& block) {
  std::vector<BlockExample> examples;
  QC_ASSIGN(Taps realTaps, tapsOf(r.original, {block.to->name()}, {.threads = r.options.threads}));
  std::optional<Taps> quantizedTaps;
  if (block.from) {
    QC_ASSIGN(const Graph int8, convertedGraph(r.observed, r.params));
    if (!int8.findValue(block.from->name())) return fail(ErrorCode::kUnsupported, "what it reads is part of an integer op");
    QC_ASSIGN(quantizedTaps, tapsOf(int8, {block.from->name()}, {.threads = r.options.threads}));
  }
  int64_t bytes = 0;
  for (const int64_t index : spreadSamples(r.samples.size(), kMoreSamples * r.options.samples)) {
    BlockExample e;
    QC_ASSIGN(e.inputs, r.samples.sample(index));
    if (Status run = realTaps.run(e.inputs); !run) return inSample(r.samples, index, run.error());
    e.wanted = ownCopy(realTaps.value(0));
    if (e.wanted.dtype() != DType::f32) return fail(ErrorCode::kUnsupported, "its result is {}", e.wanted.type().str());
    if (block.from) {
      if (Status run = quantizedTaps->run(e.inputs); !run) return inSample(r.samples, index, run.error());
      e.from = ownCopy(quantizedTaps->value(0));
    }
    if (!examples.empty() && (e.wanted.type() != examples[0].wanted.type() || e.from.type() != examples[0].from.type())) continue;
    if (!allFinite(e.wanted.ref()) || (block.from && !allFinite(e.from.ref()))) continue;
    bytes += e.wanted.byteSize() + e.from.byteSize();
    if (bytes > kBytes && examples.size() >= kFewest) break;
    examples.push_back(std::move(e));
  }
  return examples;
}

Result<double> heldOutError(BlockStep& step, const std::vector<BlockExample>& examples) {
  double sum = 0;
  for (size_t i = 0; i < examples.size(); i += kHeldOut) {
    QC_ASSIGN(const double error, step.error(examples[i]));
    sum += error;
  }
  return sum;
}

Status descend(BlockStep& step, const std::vector<BlockExample>& examples) {
  for (int64_t k = 0, drawn = 0; k < step.steps(); ++drawn) {
    const auto i = static_cast<size_t>(scramble(static_cast<uint64_t>(drawn)) % examples.size());
    if (i % kHeldOut == 0) continue;
    QC_TRY(step.step(examples[i]));
    ++k;
  }
  return {};
}

void write(Graph& observed, const BlockStep& step) {
  Builder b(observed);
  for (size_t i = 0; i < step.layers().size(); ++i) {
    const BlockLayer& layer = step.layers()[i];
    Node* node = nodeOf(observed, layer.result);
    b.before(node);
    node->setOperand("w", b.constant(layer.weight + "_block", step.weight(i)));
    if (layer.bias.empty()) continue;
    Tensor bias = step.biasMoved(i);
    const Tensor& before = *node->operand("bias")->constant();
    for (int64_t k = 0; k < bias.numElements(); ++k) nth(bias.mutableAs<float>(), k) += nth(before.as<float>(), k);
    node->setOperand("bias", b.constant(layer.bias + "_block", std::move(bias)));
  }
  observed.eraseDeadNodes();
}

Status fit(LayerRecovery& r, const Block& block) {
  std::vector<BlockLayer> layers = movable(r, block);
  if (layers.size() < 2) return {};
  if (firstDeciding(r.observed)) return fail(ErrorCode::kUnsupported, "data decides sizes or branches of the model");
  QC_ASSIGN(const std::vector<BlockExample> examples, examplesOf(r, block));
  if (examples.size() < kFewest)
    return fail(ErrorCode::kUnsupported, "there are {} samples of one shape, and {} are needed", examples.size(), kFewest);
  BlockStep::Options options{.shapes = {}, .threads = r.options.threads};
  for (const Value* input : r.observed.inputs()) options.shapes[input->name()] = examples[0].inputs.at(input->name()).sizes();
  QC_ASSIGN(BlockStep step, BlockStep::of(r.observed, r.params, block, std::move(layers), options));
  QC_ASSIGN(const double before, heldOutError(step, examples));
  QC_TRY(descend(step, examples));
  QC_ASSIGN(const double after, heldOutError(step, examples));
  if (after < before) write(r.observed, step);
  return {};
}

}  // namespace

Status reconstructBlock(LayerRecovery& r, const Block& block) {
  Status done = fit(r, block);
  if (done || done.error().code() != ErrorCode::kUnsupported) return done;
  r.cx.remarks.push_back({"reconstruct", block.to->producer()->location(),
                          fmt::format("the layers of the block that ends here keep what each found alone: {}", done.error().message())});
  return {};
}

}  // namespace qc
