// unsigned-activations: every per-tensor s8 activation inside the graph becomes u8 with all integers and the zero point
// raised by 128, which stands for the same real numbers.  Kernels then see one activation type (u8 x s8 is what the
// dot-product instructions take).  Of 16 bits the instructions take s16: u16 is lowered by 32768.  Graph inputs and outputs keep the type
// that the user was promised. Runs on the quant stage before tables are built.  Tests: tests/golden/unsigned_activations.
#include <map>

#include "ir/rewriter.h"
#include "passes/graph_util.h"
#include "passes/passes.h"

namespace qc {
namespace {

// Not of the type that kernels take of so many bits.
bool isForeign(const QuantPtr& q) {
  return q && (q->storage == DType::s8 || q->storage == DType::u16) && !q->perChannel() && hasReciprocal(*q);
}

DType kernelType(DType t) { return t == DType::s8 ? DType::u8 : DType::s16; }
int32_t shiftOf(DType t) { return t == DType::s8 ? 128 : -32768; }

QuantPtr shifted(const QuantPtr& q) {
  auto u = std::make_shared<QuantParams>(*q);
  const int32_t shift = shiftOf(q->storage);
  u->storage = kernelType(q->storage);
  u->qmin += shift;
  u->qmax += shift;
  for (int32_t& z : u->zeroPoints) z += shift;
  return u;
}

// Bounds in integers move with the zero point; the declared default means "no bound".
void shiftClamps(Node& node, int32_t shift) {
  for (const AttrSpec& spec : node.def().attrs) {
    if (spec.name != "clamp_min" && spec.name != "clamp_max") continue;
    const Attr* bound = node.attrs().find(spec.name);
    if (bound && *bound != *spec.byDefault) node.attrs().set(spec.name, std::get<int64_t>(*bound) + shift);
  }
}

// Constants that an op passes on or joins to other data (a table that is gathered from, a part of a concat) have the parameters of its
// result and follow it.  The constant itself stays for those who read it as weights.
class ShiftedConstants {
 public:
  void follow(Node& node) {
    if (node.attrs().find("to") || node.numResults() == 0) return;  // an op that says what its result is computes it anew
    const QuantPtr& result = node.result()->type().quant;
    if (!isForeign(result)) return;
    for (int i = 0; i < node.numOperands(); ++i) {
      Value* v = node.operand(i);
      if (v && v->constant() && v->type().quant && *v->type().quant == *result) node.setOperand(i, shiftedConstant(v));
    }
  }

 private:
  Value* shiftedConstant(Value* v) {
    Value*& known = shifted_[v];
    if (known) return known;
    const Tensor& from = *v->constant();
    const DType type = kernelType(from.dtype());
    Tensor to(type, from.sizes());
    for (int64_t i = 0; i < from.numElements(); ++i) storeElement(type, to.mutableData(), i, from.at(i) + shiftOf(from.dtype()));
    Builder b(v->graph());
    b.before(v->producer());
    return known = b.constant(fmt::format("{}_{}", v->name(), toString(type)), std::move(to), shifted(v->type().quant));
  }
  std::map<Value*, Value*> shifted_;
};

}  // namespace

Status unsignedActivations(Graph& graph, PassContext& cx) {
  int changed = 0;
  // Graph inputs: one conversion in front of the first use.
  for (Value* input : graph.inputs()) {
    if (!isForeign(input->type().quant) || !input->hasUses()) continue;
    Builder b(graph);
    b.before(graph.front());
    QC_ASSIGN(Value * u, requantized(b, input, shifted(input->type().quant)));
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
  ShiftedConstants constants;
  for (Node* node : graph.nodes()) {
    if (node->is("const")) continue;
    if (const auto cast = casts.find(node); cast != casts.end()) {
      if (!isForeign(cast->second)) continue;
      const bool toPlain = !node->result()->type().isQuantized();
      Value* x = toPlain ? node->operand(0) : node->result();
      if (toPlain && *x->type().quant == *cast->second) continue;  // a constant, or an input
      Builder b(graph);
      b.before(toPlain ? node : node->next());
      QC_ASSIGN(Value * y, requantized(b, x, toPlain ? cast->second : shifted(cast->second)));
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
      if (const auto* quant = std::get_if<QuantAttr>(to); quant && isForeign(quant->params)) {
        shiftClamps(*node, shiftOf(quant->params->storage));
        node->attrs().set("to", QuantAttr{shifted(quant->params)});
      }
    for (int i = 0; i < node->numResults(); ++i) {
      Value* v = node->result(i);
      if (!isForeign(v->type().quant)) continue;
      v->setType(TensorType(shifted(v->type().quant), v->type().shape));
      ++changed;
    }
  }
  std::vector<Value*> results = graph.outputs();
  Builder b(graph);
  for (size_t i = 0; i < results.size(); ++i) {
    if (!isForeign(promised[i]) || !results[i]->producer()) continue;
    QC_ASSIGN(results[i], requantized(b, results[i], promised[i]));
  }
  graph.setOutputs(results);
  cx.countHits({{"values", changed}});
  return {};
}

}  // namespace qc
