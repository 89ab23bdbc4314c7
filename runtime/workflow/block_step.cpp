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
#include "passes/training/qat_rounding.h"
#include "passes/training/train_step.h"

namespace qc {
namespace {

constexpr const char* kLoss = "loss";
// ResNet-20, top-1 with 2 and 8, with 4 and 4, and with 8 and 4 bits: 78.43, 79.40, 79.57; at half of the rate 77.27, 78.93, 79.50.
constexpr float kRate = 0.006f;
constexpr int64_t kMaxSteps = 4000, kMinSteps = 500;
constexpr double kProducts = 1e11;  // of all steps of a block, forward
constexpr int64_t kWarmUp = 20;     // one in so many steps

using E = ScalarExpr;

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

double productsOf(const Graph& graph) {
  double sum = 0;
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->def().products) sum += n->def().products(*n, [](const Dim& dim) { return static_cast<double>(dim.size()); });
  return sum;
}

// The nodes that make the end of the block out of its beginning, which is an input then.
struct Part {
  Graph graph;
  std::string from;  // empty: the block begins with the model's inputs
};
Result<Part> partOf(const Graph& observed, const Block& block, const std::map<std::string, std::vector<int64_t>>& shapes) {
  QC_ASSIGN(Graph graph, boundGraph(observed, shapes));
  Part part{std::move(graph), {}};
  Value *to = part.graph.findValue(block.to->name()), *from = block.from ? part.graph.findValue(block.from->name()) : nullptr;
  if (!to || (block.from && !from)) return fail(ErrorCode::kInternal, "the graph has lost an end of a block").on(block.to->name());
  if (from) {
    Value* input = part.graph.addInput("from", from->type());
    from->replaceAllUsesWith(input);
    part.from = input->name();
  }
  part.graph.setOutputs({to});
  part.graph.setOutputNames({"to"});
  part.graph.eraseDeadNodes();
  return part;
}

// parameter * step, and `offset` more, stands for the constant from here on.
Result<std::string> parameterFor(Graph& graph, Value* constant, Tensor begin, Tensor step, const Tensor* offset) {
  Builder b(graph);
  b.before(constant->producer()->next());
  Value* parameter = b.constant(constant->name() + ".steps", std::move(begin));
  std::vector<Value*> operands{parameter, b.constant("", std::move(step))};
  if (offset) operands.push_back(b.constant("", *offset));
  const E product = E::arg(0) * E::arg(1);
  QC_ASSIGN(Value * moved, mapped(b, offset ? product + E::arg(2) : product, std::move(operands)));
  constant->replaceAllUsesWith(moved);
  return parameter->name();
}

}  // namespace

Result<BlockStep> BlockStep::of(const Graph& observed, const GroupParams& params, const Block& block, std::vector<BlockLayer> layers,
                                const Options& options) {
  QC_ASSIGN(Part part, partOf(observed, block, options.shapes));
  Graph& graph = part.graph;
  QC_TRY(prepareQat(graph, params, {.activations = "fixed"}));
  graph.eraseDeadNodes();  // with the observers gone, all that is in front of the block
  std::vector<std::string> read;
  for (const Value* input : graph.inputs())
    if (input->hasUses() && input->name() != part.from) read.push_back(input->name());
  const auto steps = std::clamp(static_cast<int64_t>(kProducts / std::max(1.0, productsOf(graph))), kMinSteps, kMaxSteps);
  std::vector<Parameter> weights, biases;
  std::vector<std::string> trained;
  for (const BlockLayer& layer : layers) {
    Value *w = graph.findValue(layer.weight), *bias = layer.bias.empty() ? nullptr : graph.findValue(layer.bias);
    if (!w || !w->constant() || (bias && !bias->constant()))
      return fail(ErrorCode::kInternal, "the block has lost a weight").on(layer.weight);
    weights.push_back({{}, integersOf(*w->constant(), layer.params)});
    QC_ASSIGN(weights.back().name,
              parameterFor(graph, w, weights.back().begin, spreadScales(layer.params, w->constant()->sizes()), nullptr));
    trained.push_back(weights.back().name);
    biases.push_back({});
    if (!bias) continue;
    biases.back().begin = Tensor(DType::f32, bias->constant()->sizes());
    const Tensor before = *bias->constant();
    QC_ASSIGN(biases.back().name,
              parameterFor(graph, bias, biases.back().begin, Tensor::ofFloats({}, std::vector<float>{layer.biasStep}), &before));
    trained.push_back(biases.back().name);
  }
  Value* to = graph.outputs()[0];
  Value* wanted = graph.addInput("wanted", to->type());
  Builder b(graph);
  QC_ASSIGN(Value * loss, squaredErrorLoss(b, to, wanted));
  graph.setOutputs({loss});
  graph.setOutputNames({kLoss});
  const std::string wantedName = wanted->name();
  QC_ASSIGN(const TrainStep made,
            makeTrainStep(graph, {.of = kLoss,
                                  .only = trained,
                                  .optimizer = {.kind = "adam"},
                                  .schedule = {.kind = "cosine", .rate = kRate, .warmup = steps / kWarmUp, .steps = steps}}));
  QC_ASSIGN(const std::shared_ptr<Workspace> workspace, makeWorkspace({.threads = options.threads}));
  QC_ASSIGN(CompiledGraph compiled, CompiledGraph::of(std::move(graph), workspace));
  BlockStep s(std::move(compiled));
  s.carried_ = s.graph_.carried();
  for (const auto* parameters : {&weights, &biases})
    for (const Parameter& p : *parameters)
      if (Tensor* own = s.graph_.input(p.name)) *own = p.begin;
  std::erase_if(read, [&](const std::string& name) { return !s.graph_.input(name); });
  s.inputs_ = std::move(read);
  s.layers_ = std::move(layers);
  s.weights_ = std::move(weights);
  s.biases_ = std::move(biases);
  s.from_ = part.from;
  s.wanted_ = wantedName;
  s.stepName_ = made.step;
  s.steps_ = steps;
  return s;
}

Result<double> BlockStep::error(const BlockExample& example) {
  for (const std::string& name : inputs_) *graph_.input(name) = example.inputs.at(name);
  if (Tensor* from = graph_.input(from_)) *from = example.from;
  *graph_.input(wanted_) = example.wanted;
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

Tensor BlockStep::now(const Parameter& parameter) const {
  const auto input = graph_.inputAt.find(parameter.name);
  return input == graph_.inputAt.end() ? parameter.begin : graph_.in[input->second];
}

Tensor BlockStep::weight(size_t layer) const {
  const QuantParams& params = layers_[layer].params;
  Tensor w = now(weights_[layer]);
  const auto low = static_cast<float>(params.qmin), high = static_cast<float>(params.qmax);
  for (int64_t i = 0; i < w.numElements(); ++i) {
    float& value = nth(w.mutableAs<float>(), i);
    value = scaleOf(params, w.sizes(), i) * std::clamp(std::nearbyint(value), low, high);
  }
  return w;
}

Tensor BlockStep::biasMoved(size_t layer) const {
  Tensor moved = now(biases_[layer]);
  for (float& value : moved.mutableAs<float>()) value *= layers_[layer].biasStep;
  return moved;
}

}  // namespace qc
