// unsigned-activations: every per-tensor s8 activation inside the graph becomes u8 with all integers and the zero point
// raised by 128, which stands for the same real numbers.  Kernels then see one activation type (u8 x s8 is what the
// dot-product instructions take).  Graph inputs and outputs keep the type that the user was promised.
// Runs on the quant stage before tables are built.  Tests: tests/golden/unsigned_activations.
#include <map>

#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

bool isSignedActivation(const QuantPtr& q) { return q && q->storage == DType::s8 && !q->perChannel() && hasReciprocal(*q); }

QuantPtr raised(const QuantPtr& q) {
  auto u = std::make_shared<QuantParams>(*q);
  u->storage = DType::u8;
  u->qmin += 128;
  u->qmax += 128;
  for (int32_t& z : u->zeroPoints) z += 128;
  return u;
}

// Bounds in integers move with the zero point; the declared default means "no bound".
void raiseClamps(Node& node) {
  for (const AttrSpec& spec : node.def().attrs) {
    if (spec.name != "clamp_min" && spec.name != "clamp_max") continue;
    const Attr* bound = node.attrs().find(spec.name);
    if (bound && *bound != *spec.byDefault) node.attrs().set(spec.name, std::get<int64_t>(*bound) + 128);
  }
}

// Constants that an op passes on or joins to other data (a table that is gathered from, a part of a concat) have the parameters of its
// result and follow it.  The constant itself stays for those who read it as weights.
class RaisedConstants {
 public:
  void follow(Node& node) {
    if (node.attrs().find("to") || node.numResults() == 0) return;  // an op that says what its result is computes it anew
    const QuantPtr& result = node.result()->type().quant;
    if (!isSignedActivation(result)) return;
    for (int i = 0; i < node.numOperands(); ++i) {
      Value* v = node.operand(i);
      if (v && v->constant() && v->type().quant && *v->type().quant == *result) node.setOperand(i, raisedConstant(v));
    }
  }

 private:
  Value* raisedConstant(Value* v) {
    Value*& known = raised_[v];
    if (known) return known;
    const Tensor& from = *v->constant();
    Tensor to(DType::u8, from.sizes());
    const auto* bytes = static_cast<const uint8_t*>(from.data());
    auto* raisedBytes = static_cast<uint8_t*>(to.mutableData());
    for (int64_t i = 0; i < from.numElements(); ++i) raisedBytes[i] = bytes[i] ^ 0x80;  // + 128
    Builder b(v->graph());
    b.before(v->producer());
    return known = b.constant(v->name() + "_u8", std::move(to), raised(v->type().quant));
  }
  std::map<Value*, Value*> raised_;
};

}  // namespace

Status unsignedActivations(Graph& graph, PassContext& cx) {
  int changed = 0;
  // Graph inputs: one conversion in front of the first use.
  for (Value* input : graph.inputs()) {
    if (!isSignedActivation(input->type().quant) || !input->hasUses()) continue;
    Builder b(graph);
    b.before(graph.front());
    QC_ASSIGN(Value * u, requantized(b, input, raised(input->type().quant)));
    for (Use* use : input->uses())
      if (use->user() != u->producer()) use->user()->setOperand(use->index(), u);
    ++changed;
  }
  const std::vector<Value*> outputs = graph.outputs();
  std::vector<QuantPtr> promised;
  for (const Value* v : outputs) promised.push_back(v->type().quant);
  // Where integers are read as plain ones, or plain ones get their meaning, they are what they were.
  std::map<Node*, QuantPtr> casts;
  for (Node* node : graph.nodes())
    if (node->is("storage_cast")) casts[node] = (node->operand(0)->type().isQuantized() ? node->operand(0) : node->result())->type().quant;
  RaisedConstants constants;
  for (Node* node : graph.nodes()) {
    if (node->is("const")) continue;
    if (const auto cast = casts.find(node); cast != casts.end()) {
      if (!isSignedActivation(cast->second)) continue;
      const bool toPlain = !node->result()->type().isQuantized();
      Value* x = toPlain ? node->operand(0) : node->result();
      if (toPlain && *x->type().quant == *cast->second) continue;  // a constant, or an input
      Builder b(graph);
      b.before(toPlain ? node : node->next());
      QC_ASSIGN(Value * y, requantized(b, x, toPlain ? cast->second : raised(cast->second)));
      if (toPlain) {
        node->setOperand(0, y);
      } else {
        for (Use* use : x->uses())
          if (use->user() != y->producer()) use->user()->setOperand(use->index(), y);
      }
      ++changed;
      continue;
    }
    constants.follow(*node);
    if (const Attr* to = node->attrs().find("to"))
      if (const auto* quant = std::get_if<QuantAttr>(to); quant && isSignedActivation(quant->params)) {
        node->attrs().set("to", QuantAttr{raised(quant->params)});
        raiseClamps(*node);
      }
    for (int i = 0; i < node->numResults(); ++i) {
      Value* v = node->result(i);
      if (!isSignedActivation(v->type().quant)) continue;
      v->setType(TensorType(raised(v->type().quant), v->type().shape));
      ++changed;
    }
  }
  std::vector<Value*> results = graph.outputs();
  Builder b(graph);
  for (size_t i = 0; i < results.size(); ++i) {
    if (!isSignedActivation(promised[i]) || !results[i]->producer()) continue;
    QC_ASSIGN(results[i], requantized(b, results[i], promised[i]));
  }
  graph.setOutputs(results);
  cx.countHits({{"values", changed}});
  return {};
}

}  // namespace qc
