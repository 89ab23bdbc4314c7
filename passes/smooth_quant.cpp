// smooth-quant: a few channels behind a layer_norm are much larger than the rest and take the range of all.  The norm's scale and bias
// are divided by a factor per channel, the weights of the linear layers behind it are multiplied by it, and other readers (the residual
// add) multiply the factor back: the same function, with inputs that fit 8 bits better.
// The factor is the one for which rounding inputs and weights is expected to disturb the results least (channel_noise.h);
// without a clear gain the layers stay as they are.  Behind an activation that does not commute with the factor (gelu) the division is a
// multiply of its own, which the layer that computes the activation takes in before it rounds; it has to gain more.
// Statistics come from cx.provide(ChannelsByValue); the option `spread` stands in for them.  Tests: tests/golden/smooth_quant.
#include "passes/smooth_quant.h"

#include <algorithm>

#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

constexpr double kWorthwhile = 0.8;  // of the noise without
constexpr double kWorthMultiply = 0.4;

struct Readers {
  std::vector<Node*> linears, others;
};

Readers readersOf(const Value* value) {
  Readers readers;
  for (Node* user : value->users()) {
    const Tensor* w = user->is("linear") ? floatConstant(user->operand(1)) : nullptr;
    const bool simple = w && w->rank() == 2 && user->operand(0) == value && user->operand(3) != value && user->operand(1) != value;
    (simple ? readers.linears : readers.others).push_back(user);
  }
  return readers;
}

// Divides behind the activation, for the linear layers alone.
Status divide(Graph& graph, Node* activation, const Readers& readers, const std::vector<double>& s) {
  Tensor ones(DType::f32, {static_cast<int64_t>(s.size())});
  std::fill(ones.mutableAs<float>().begin(), ones.mutableAs<float>().end(), 1.0f);
  const std::string& name = activation->result()->name();
  Builder b(graph);
  b.before(activation->next());
  b.at(activation->location());
  QC_ASSIGN(Value * divided, b.create("mul", {activation->result(), b.constant(name + "_factor", scaledLast(ones, s, true))}, {}, name + "_smoothed"));
  for (Node* linear : readers.linears) {
    linear->setOperand(0, divided);
    scaleInputs(graph, linear, s);
  }
  return {};
}

Status fold(Graph& graph, Node* norm, const Readers& readers, const std::vector<double>& s) {
  const auto channels = static_cast<int64_t>(s.size());
  Builder b(graph);
  b.before(norm);
  const Tensor* scale = floatConstant(norm->operand(1));
  Tensor ones(DType::f32, {channels});
  std::fill(ones.mutableAs<float>().begin(), ones.mutableAs<float>().end(), 1.0f);
  while (norm->numOperands() < 2) norm->addOperand(nullptr);
  norm->setOperand(1, b.constant(norm->result()->name() + "_smoothed_scale", scaledLast(scale ? *scale : ones, s, true)));
  if (norm->operand(2)) norm->setOperand(2, b.constant(norm->result()->name() + "_smoothed_bias", scaledLast(*floatConstant(norm->operand(2)), s, true)));
  for (Node* linear : readers.linears) scaleInputs(graph, linear, s);
  if (readers.others.empty() && !norm->result()->isOutput()) return {};
  Builder after(graph);
  after.before(norm->next());
  after.at(norm->location());
  Value* factor = after.constant(norm->result()->name() + "_factor", scaledLast(ones, s, false));
  QC_ASSIGN(Value * restored, after.create("mul", {norm->result(), factor}, {}, norm->result()->name() + "_restored"));
  for (Node* other : readers.others)
    for (int i = 0; i < other->numOperands(); ++i)
      if (other->operand(i) == norm->result()) other->setOperand(i, restored);
  std::vector<Value*> outputs = graph.outputs();
  const std::vector<std::string> names = graph.outputNames();
  std::replace(outputs.begin(), outputs.end(), norm->result(), restored);
  graph.setOutputs(std::move(outputs));
  graph.setOutputNames(names);
  return {};
}

// A layer_norm over the last dim with constants.
bool isFoldable(const Node& n) {
  return n.is("layer_norm") && n.integer("axis") == n.result()->type().rank() - 1 && (!n.operand(1) || floatConstant(n.operand(1))) &&
         (!n.operand(2) || floatConstant(n.operand(2)));
}

// The activation of a linear layer, read by linear layers alone.
bool isDivisible(const Node& n, const Readers& readers) {
  const Node* producer = n.numOperands() == 1 && n.operand(0) ? n.operand(0)->producer() : nullptr;
  return n.is("gelu") && producer && producer->is("linear") && n.operand(0)->hasOneUse() && readers.others.empty() && !n.result()->isOutput();
}

}  // namespace

bool isSmoothable(const Node& node) {
  const Readers readers = node.numResults() == 1 ? readersOf(node.result()) : Readers();
  return !readers.linears.empty() && node.result()->type().shape.back().isStatic() && (isFoldable(node) || isDivisible(node, readers));
}

Status smoothQuant(Graph& graph, PassContext& cx) {
  const double spread = cx.options.real("spread");
  const auto* known = cx.get<ChannelsByValue>();
  int layers = 0;
  for (Node* node : graph.nodes()) {
    if (!isSmoothable(*node)) continue;
    const Readers readers = readersOf(node->result());
    const int64_t channels = node->result()->type().shape.back().size();
    ChannelStatistics x;
    if (spread > 0) {
      x = spreadChannels(channels, spread);
    } else if (known) {
      if (const auto it = known->find(node->result()->name()); it != known->end()) x = it->second;
    }
    if (static_cast<int64_t>(x.max.size()) != channels) continue;
    const std::vector<double> s = bestFactors(readers.linears, x, isFoldable(*node) ? kWorthwhile : kWorthMultiply);
    if (s.empty()) continue;
    QC_TRY(isFoldable(*node) ? fold(graph, node, readers, s) : divide(graph, node, readers, s));
    ++layers;
  }
  cx.countHits({{"layers", layers}});
  graph.eraseDeadNodes();
  return {};
}

}  // namespace qc
