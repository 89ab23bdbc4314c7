// What a block reads comes from the model as it is quantized by then; its result should be the float model's, which rounding within the
// block, and clipping, bring apart in ways that no layer sees alone (Li et al. 2021, BRECQ).  The integers that layers have found one by
// one are where the descent begins.  Dropping of what is read (QDrop), which those fits have, cost accuracy here: ResNet-20 with 2 and 8
// bits 77.07 without and 76.63 with it, with 4 and 4 bits 79.40 and 78.53 (at another rate than now).
#include "runtime/workflow/reconstruct_blocks.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "frontend/data/sample_error.h"
#include "ir/decided_sizes.h"
#include "passes/quantize/reconstructed_layers.h"
#include "runtime/workflow/block_step.h"
#include "runtime/workflow/part_taps.h"
#include "runtime/workflow/recover.h"

namespace qc {
namespace {

constexpr int64_t kMoreSamples = 8;           // times those that layers are fitted to: all weights of a block fit themselves to them
constexpr size_t kHeldOut = 5;                // one in so many decides
constexpr int64_t kBytes = int64_t{1} << 28;  // that examples may take

// The node that computes the layer now.
Node* nodeOf(Graph& observed, const std::string& result) {
  Value* v = observed.findValue(result);
  return v ? v->producer() : nullptr;
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

// The inputs of the model that the block reads beside its beginning.
std::set<std::string> inputsOf(const Block& block) {
  std::set<std::string> inputs;
  std::set<const Value*> seen;
  std::vector<const Value*> open{block.to};
  while (!open.empty()) {
    const Value* v = open.back();
    open.pop_back();
    if (!v || v == block.from || !seen.insert(v).second) continue;
    if (!v->producer()) inputs.insert(v->name());
    for (const Value* operand : v->producer() ? v->producer()->operands() : std::vector<Value*>()) open.push_back(operand);
  }
  return inputs;
}

struct Examples {
  std::map<std::string, std::vector<int64_t>> shapes;  // of all inputs of the model
  std::vector<BlockExample> all;
};

// As many as memory is set aside for; of these, the ones of the shapes that most have.
Result<Examples> examplesOf(const LayerRecovery& r, const Block& block) {
  QC_ASSIGN(Taps realTaps, tapsOf(r.original, {block.to->name()}, {.threads = r.options.threads}));
  std::optional<Taps> quantizedTaps;
  if (block.from) {
    QC_ASSIGN(const Graph int8, convertedGraph(r.observed, r.params));
    if (!int8.findValue(block.from->name())) return fail(ErrorCode::kUnsupported, "what it reads is part of an integer op");
    QC_ASSIGN(quantizedTaps, tapsOf(int8, {block.from->name()}, {.threads = r.options.threads}));
  }
  const std::set<std::string> read = inputsOf(block);
  std::map<std::map<std::string, std::vector<int64_t>>, std::vector<BlockExample>> byShapes;
  int64_t bytes = 0, count = 0;
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
    if (!allFinite(e.wanted.ref()) || (block.from && !allFinite(e.from.ref()))) continue;
    std::map<std::string, std::vector<int64_t>> shapes;
    for (const auto& [name, value] : e.inputs) shapes[name] = value.sizes();
    std::erase_if(e.inputs, [&](const auto& input) { return !read.contains(input.first); });
    bytes += e.wanted.byteSize() + e.from.byteSize();
    for (const auto& [name, value] : e.inputs) bytes += value.byteSize();
    if (bytes > kBytes && count >= static_cast<int64_t>(kFewestBlockSamples)) break;
    ++count;
    byShapes[std::move(shapes)].push_back(std::move(e));
  }
  Examples most;
  for (auto& [shapes, all] : byShapes)
    if (all.size() > most.all.size()) most = {shapes, std::move(all)};
  return most;
}

Result<std::vector<double>> heldOutErrors(BlockStep& step, const std::vector<BlockExample>& examples) {
  std::vector<double> errors;
  for (size_t i = 0; i < examples.size(); i += kHeldOut) {
    QC_ASSIGN(const double error, step.error(examples[i]));
    errors.push_back(error);
  }
  return errors;
}

// By more than the standard error of the mean difference: of few samples luck decides, and these have seen the layers' own fits.
bool isLess(const std::vector<double>& after, const std::vector<double>& before) {
  const auto n = static_cast<double>(after.size());
  double sum = 0, squares = 0;
  for (size_t i = 0; i < after.size(); ++i) {
    const double gain = before[i] - after[i];
    sum += gain;
    squares += gain * gain;
  }
  const double mean = sum / n, variance = std::max(0.0, squares / n - mean * mean);
  return mean > std::sqrt(variance / n);
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
  QC_ASSIGN(const Examples found, examplesOf(r, block));
  const std::vector<BlockExample>& examples = found.all;
  if (examples.size() < kFewestBlockSamples)
    return fail(ErrorCode::kUnsupported, "no more than {} samples have the same shapes, and it takes {}", examples.size(),
                kFewestBlockSamples);
  Result<BlockStep> step = BlockStep::of(r.observed, r.params, block, std::move(layers), {found.shapes, r.options.threads});
  if (!step) return fail(ErrorCode::kUnsupported, "{}", step.error().message());
  QC_ASSIGN(const std::vector<double> before, heldOutErrors(*step, examples));
  QC_TRY(descend(*step, examples));
  QC_ASSIGN(const std::vector<double> after, heldOutErrors(*step, examples));
  if (isLess(after, before)) write(r.observed, *step);
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
