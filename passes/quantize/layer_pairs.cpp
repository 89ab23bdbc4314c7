#include "passes/quantize/layer_pairs.h"

#include <algorithm>

#include "passes/graph_util.h"
#include "passes/quantize/channel_noise.h"

namespace qc {
namespace {

// f(x / s) = f(x) / s for every s > 0.
bool commutes(const Node& n) { return n.is("relu") || n.is("leaky_relu") || n.is("identity"); }
// Of convolutions: a pool behind a linear layer, whose channels are the last dim, goes over these.
bool keepsChannels(const Node& n) { return (n.is("max_pool") || n.is("avg_pool")) && n.string("layout") != "channels_last"; }

// The layers that read a value, of convolutions through pools, and the values on the way to them; false when something else does, too.
bool collectReaders(const Value* value, bool ofConv, std::vector<Node*>& readers, std::vector<const Value*>* between = nullptr) {
  if (value->isOutput()) return false;
  for (Node* user : value->users()) {
    if (ofConv && keepsChannels(*user)) {
      if (between) between->push_back(user->result());
      if (!collectReaders(user->result(), ofConv, readers, between)) return false;
    } else if (readsChannels(*user) && user->operand(0) == value && user->operand("bias") != value && user->operand("residual") != value) {
      readers.push_back(user);
    } else {
      return false;
    }
  }
  return true;
}

// The layer whose channels the value's are.
Node* producerOf(const Value* value) {
  Node* node = value->producer();
  while (node && commutes(*node) && node->operand(0)->hasOneUse() && !node->operand(0)->isOutput()) node = node->operand(0)->producer();
  if (!node || !readsChannels(*node) || node->operand("residual") || node->expr("post")) return nullptr;
  if (node->operand("bias") && !floatConstant(node->operand("bias"))) return nullptr;
  return node;
}

// What has the channels of the producer, from its result on.
std::vector<Move::Pair> movedValues(const Node& producer, const Value* last) {
  std::vector<Node*> readers;
  std::vector<const Value*> moved;
  for (const Value* v = last; v != producer.result(); v = v->producer()->operand(0)) moved.push_back(v);
  moved.push_back(producer.result());
  std::reverse(moved.begin(), moved.end());
  collectReaders(last, producer.is("conv"), readers, &moved);
  std::vector<Move::Pair> pairs;
  for (const Value* v : moved) pairs.push_back({v->name(), v->name()});
  return pairs;
}

int64_t outputChannels(const Node& layer) { return floatConstant(layer.operand("w"))->sizes()[0]; }

void divideOutputs(Graph& graph, Node* layer, const std::vector<double>& s) {
  const Tensor& w = *floatConstant(layer->operand("w"));
  const int64_t perOutput = w.numElements() / w.sizes()[0];
  Tensor out(DType::f32, w.sizes());
  for (int64_t i = 0; i < w.numElements(); ++i)
    nth(out.mutableAs<float>(), i) = nth(w.as<float>(), i) / static_cast<float>(nth(s, i / perOutput));
  Builder b(graph);
  b.before(layer);
  layer->setOperand("w", b.constant(layer->operand("w")->name() + "_equalized", std::move(out)));
  if (layer->operand("bias"))
    layer->setOperand(
        "bias", b.constant(layer->operand("bias")->name() + "_equalized", scaledLast(*floatConstant(layer->operand("bias")), s, true)));
}

}  // namespace

std::optional<FactorPair> pairAt(Node& node) {
  if (node.numResults() != 1 || !node.result()->hasUses() || !(commutes(node) || readsChannels(node))) return std::nullopt;
  // The last of a chain alone, so that a value is looked at once.
  const Node* next = onlyUser(node.result());
  if (next && commutes(*next)) return std::nullopt;
  FactorPair pair{producerOf(node.result()), node.result(), {}, 0, 0};
  if (!pair.producer || !collectReaders(node.result(), pair.producer->is("conv"), pair.readers) || pair.readers.empty())
    return std::nullopt;
  pair.channels = outputChannels(*pair.producer);
  pair.axis = pair.producer->is("conv") ? 1 : node.result()->type().rank() - 1;
  const Tensor* bias = floatConstant(pair.producer->operand("bias"));
  if (bias && bias->numElements() != pair.channels) return std::nullopt;
  const bool fits = std::all_of(pair.readers.begin(), pair.readers.end(), [&](const Node* r) {
    const int64_t groups = r->is("conv") ? r->integer("group") : 1;
    return r->is("conv") == pair.producer->is("conv") && floatConstant(r->operand("w"))->sizes()[1] * groups == pair.channels;
  });
  return fits ? std::optional(std::move(pair)) : std::nullopt;
}

void moveFactors(Graph& graph, const FactorPair& pair, const std::vector<double>& factors, Moves& moves) {
  moves.add(movedValues(*pair.producer, pair.value), pair.axis, reciprocals(factors));
  divideOutputs(graph, pair.producer, factors);
  for (Node* reader : pair.readers) scaleInputs(graph, reader, factors);
}

}  // namespace qc
