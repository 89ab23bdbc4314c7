// Weights are parameters in integers, and the moves of biases in steps of the result, so that one learning rate serves all layers.  They
// begin where layers were fitted one by one: in the middle of an integer, half a step from the next.  In the forward direction they are
// rounded; gradients pass straight through (Bengio et al. 2013).
#include "runtime/workflow/block_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "ir/op_def.h"
#include "passes/graph_util.h"
#include "passes/lower/bound_graph.h"
#include "passes/training/losses.h"
#include "passes/training/prepare_qat.h"
#include "passes/training/train_step.h"

namespace qc {
namespace {

constexpr const char *kFrom = "block.from", *kWanted = "block.wanted", *kLoss = "block.loss";
// Measured on ResNet-20 with weights of 2 bits: at a third of the rate the error falls half as far, at twice the rate it rises at first.
constexpr float kRate = 0.003f;
constexpr int64_t kMaxSteps = 4000, kMinSteps = 500;
constexpr double kProducts = 1e11;  // of all steps of a block, forward
constexpr int64_t kWarmUp = 20;     // one in so many steps

using E = ScalarExpr;

std::string weightName(size_t layer) { return fmt::format("block.weight.{}", layer); }
std::string biasName(size_t layer) { return fmt::format("block.bias.{}", layer); }

int64_t inner(const QuantParams& params, const std::vector<int64_t>& sizes) {
  int64_t count = 1;
  for (size_t d = params.axis < 0 ? sizes.size() : usize(params.axis) + 1; d < sizes.size(); ++d) count *= sizes[d];
  return count;
}

float scaleOf(const QuantParams& params, const std::vector<int64_t>& sizes, int64_t element) {
  return params.axis < 0 ? params.scale() : params.scale(element / inner(params, sizes) % nth(sizes, params.axis));
}

Tensor integersOf(const Tensor& weight, const QuantParams& params) {
  Tensor q(DType::f32, weight.sizes());
  for (int64_t i = 0; i < q.numElements(); ++i)
    nth(q.mutableAs<float>(), i) = std::nearbyint(nth(weight.as<float>(), i) / scaleOf(params, weight.sizes(), i));
  return q;
}

// The scales in a shape that spreads over the weight.
Tensor scalesOf(const QuantParams& params, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> spread;
  if (params.axis >= 0) {
    spread.assign(sizes.size() - usize(params.axis), 1);
    spread[0] = nth(sizes, params.axis);
  }
  return Tensor::ofFloats(spread, params.scales);
}

double productsOf(const Graph& graph) {
  double sum = 0;
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->def().products) sum += n->def().products(*n, [](const Dim& dim) { return static_cast<double>(dim.size()); });
  return sum;
}

// The nodes that make block.to out of block.from.
Result<Graph> partOf(const Graph& observed, const Block& block, const std::map<std::string, std::vector<int64_t>>& shapes) {
  QC_ASSIGN(Graph part, boundGraph(observed, shapes));
  Value *to = part.findValue(block.to->name()), *from = block.from ? part.findValue(block.from->name()) : nullptr;
  if (!to || (block.from && !from)) return fail(ErrorCode::kInternal, "the graph has lost an end of a block").on(block.to->name());
  if (from) from->replaceAllUsesWith(part.addInput(kFrom, from->type()));
  part.setOutputs({to});
  part.setOutputNames({"block.to"});
  part.eraseDeadNodes();
  return part;
}

}  // namespace

Result<BlockStep> BlockStep::of(const Graph& observed, const GroupParams& params, const Block& block, std::vector<BlockLayer> layers,
                                const Options& options) {
  QC_ASSIGN(Graph part, partOf(observed, block, options.shapes));
  const std::vector<Value*> inputs = part.inputs();
  const auto steps = std::clamp(static_cast<int64_t>(kProducts / std::max(1.0, productsOf(part))), kMinSteps, kMaxSteps);
  QC_TRY(prepareQat(part, params, {.activations = "fixed"}));
  std::map<std::string, Tensor> initial;
  std::string trained;
  // parameter * step, and `offset` more, stands for the constant from here on.
  const auto parameter = [&](const std::string& constant, const std::string& name, Tensor begin, Tensor step,
                             const Tensor* offset) -> Status {
    Value* old = part.findValue(constant);
    Builder b(part);
    b.before(old->producer()->next());
    std::vector<Value*> operands{b.constant(name, begin), b.constant("", std::move(step))};
    if (offset) operands.push_back(b.constant("", *offset));
    const E product = E::arg(0) * E::arg(1);
    QC_ASSIGN(Value * moved, mapped(b, offset ? product + E::arg(2) : product, std::move(operands)));
    old->replaceAllUsesWith(moved);
    initial.emplace(name, std::move(begin));
    trained += (trained.empty() ? "" : ",") + name;
    return {};
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    const BlockLayer& layer = layers[i];
    const Value *w = part.findValue(layer.weight), *bias = layer.bias.empty() ? nullptr : part.findValue(layer.bias);
    if (!w || !w->constant() || (bias && !bias->constant()))
      return fail(ErrorCode::kInternal, "the block has lost a weight").on(layer.weight);
    const std::vector<int64_t> sizes = w->constant()->sizes();
    QC_TRY(parameter(layer.weight, weightName(i), integersOf(*w->constant(), layer.params), scalesOf(layer.params, sizes), nullptr));
    if (bias)
      QC_TRY(parameter(layer.bias, biasName(i), Tensor(DType::f32, bias->constant()->sizes()),
                       Tensor::ofFloats({}, std::vector<float>{layer.biasStep}), bias->constant()));
  }
  Value* to = part.outputs()[0];
  Builder b(part);
  QC_ASSIGN(Value * loss, squaredErrorLoss(b, to, part.addInput(kWanted, to->type())));
  part.setOutputs({loss});
  part.setOutputNames({kLoss});
  QC_ASSIGN(const TrainStep made,
            makeTrainStep(part, {.of = kLoss,
                                 .with = trained,
                                 .optimizer = {.kind = "adam"},
                                 .schedule = {.kind = "cosine", .rate = kRate, .warmup = steps / kWarmUp, .steps = steps}}));
  QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = options.threads}));
  QC_ASSIGN(CompiledGraph compiled, CompiledGraph::of(std::move(part), workspace));
  BlockStep s(std::move(compiled));
  s.carried_ = s.graph_.carried();
  for (const auto& [name, value] : initial) *s.graph_.input(name) = value;
  s.layers_ = std::move(layers);
  for (const Value* input : inputs)
    if (input->name() != kFrom && s.graph_.input(input->name())) s.inputs_.push_back(input->name());
  s.stepName_ = made.step;
  s.steps_ = steps;
  return s;
}

Result<double> BlockStep::error(const BlockExample& example) {
  for (const std::string& name : inputs_) *graph_.input(name) = example.inputs.at(name);
  if (Tensor* from = graph_.input(kFrom)) *from = example.from;
  *graph_.input(kWanted) = example.wanted;
  if (Tensor* step = graph_.input(stepName_)) *step = Tensor::ofFloats({}, std::vector<float>{static_cast<float>(done_)});
  QC_TRY(graph_.run());
  return graph_.output(kLoss)->at(0);
}

Result<double> BlockStep::step(const BlockExample& example) {
  QC_ASSIGN(const double loss, error(example));
  graph_.carry(carried_);
  ++done_;
  return loss;
}

Tensor BlockStep::weight(size_t layer) const {
  const QuantParams& params = layers_[layer].params;
  Tensor w = graph_.in[graph_.inputAt.at(weightName(layer))];
  const auto low = static_cast<float>(params.qmin), high = static_cast<float>(params.qmax);
  for (int64_t i = 0; i < w.numElements(); ++i) {
    float& value = nth(w.mutableAs<float>(), i);
    value = scaleOf(params, w.sizes(), i) * std::clamp(std::nearbyint(value), low, high);
  }
  return w;
}

Tensor BlockStep::biasMoved(size_t layer) const {
  Tensor moved = graph_.in[graph_.inputAt.at(biasName(layer))];
  for (float& value : moved.mutableAs<float>()) value *= layers_[layer].biasStep;
  return moved;
}

}  // namespace qc
