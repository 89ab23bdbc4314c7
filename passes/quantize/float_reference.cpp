// float-reference: a quantized graph in float arithmetic, with the same roundings: what it computes were integer sums and fused kernels no
// part of it.  Where the two differ much, the arithmetic is at fault; where they agree, the roundings are.
//   quantize                           fake_quantize: the real numbers that the integers stand for
//   dequantize                         nothing more
//   integer constants                  the real numbers that they stand for
//   what moves or selects integers     the same op on the real numbers
// Roundings with parameters found at run time stay as they are; the layers behind them read real weights.  Inputs and outputs of the graph
// keep their types.  An op that computes on integers alone is refused by name: a file holds quantize and dequantize around it, or plain
// integers, which stand for nothing else.
// Tests: tests/golden/float_reference.
#include <algorithm>
#include <map>

#include "ir/interp.h"
#include "ir/op_def.h"
#include "passes/passes.h"

namespace qc {
namespace {

class FloatReference {
 public:
  explicit FloatReference(Graph& graph) : graph_(graph), b_(graph) {}

  Status run() {
    for (Value* input : graph_.inputs()) {
      if (!input->type().isQuantized()) continue;
      b_.before(graph_.front());
      QC_ASSIGN(real_[input], b_.create("dequantize", {input}));
    }
    const std::vector<Node*> nodes = graph_.nodes();
    for (Node* node : nodes) {
      if (std::any_of(real_.begin(), real_.end(), [&](const auto& r) { return r.second->producer() == node; })) continue;
      b_.before(node);
      QC_TRY(rewrite(node));
    }
    return keepOutputs();
  }

 private:
  static bool readsIntegers(const Node& node) {
    const std::vector<Value*> operands = node.operands();
    return std::any_of(operands.begin(), operands.end(), [](const Value* v) { return v && v->type().isQuantized(); });
  }

  Status rewrite(Node* node) {
    if (node->is("quantize") && !node->operand(0)->type().isQuantized()) {
      QC_ASSIGN(real_[node->result()],
                b_.create("fake_quantize", {node->operand(0)}, {{"to", QuantAttr{node->result()->type().quant}}}, node->result()->name()));
      return {};
    }
    if (node->is("const") && node->result()->type().isQuantized()) return constant(node);
    if (node->is("dequantize") && real_.contains(node->operand(0))) {
      Value* real = real_.at(node->operand(0));
      node->result()->replaceAllUsesWith(real);
      return {};
    }
    if (!readsIntegers(*node)) return {};
    const bool moves = node->def().has(kMovesData) || node->def().has(kSharesQuant);
    if (!moves)
      return fail(ErrorCode::kUnsupported, "'{}' computes on quantized integers, and has no form in float here", node->op())
          .at(node->location())
          .on(node->result()->name())
          .help("give the model in quantize/dequantize form, as `qcompile quantize` and other tools write it");
    std::vector<Value*> operands = node->operands();
    for (Value*& v : operands)
      if (v && real_.contains(v)) v = real_.at(v);
    QC_ASSIGN(Node * same, b_.createNode(node->op(), std::move(operands), node->attrs()));
    for (int i = 0; i < node->numResults(); ++i)
      if (node->result(i)->type().isQuantized())
        real_[node->result(i)] = same->result(i);
      else
        node->result(i)->replaceAllUsesWith(same->result(i));
    return {};
  }

  Status constant(Node* node) {
    QC_ASSIGN(Value * dequantized, b_.before(node->next()).create("dequantize", {node->result()}));
    const Tensor* const operands[] = {&node->constant()};
    QC_ASSIGN(std::vector<Tensor> values, evaluateNode(*dequantized->producer(), operands));
    real_[node->result()] = b_.constant(node->result()->name() + "_real", std::move(values[0]));
    graph_.erase(dequantized->producer());
    return {};
  }

  // Integers that the graph returns are made of the real numbers again.
  Status keepOutputs() {
    std::vector<Value*> outputs = graph_.outputs();
    b_.before(nullptr);
    for (Value*& v : outputs) {
      if (!real_.contains(v) || !v->producer()) continue;
      QC_ASSIGN(v, b_.create("quantize", {real_.at(v)}, {{"to", QuantAttr{v->type().quant}}}));
    }
    graph_.setOutputs(std::move(outputs));
    graph_.eraseDeadNodes();
    return {};
  }

  Graph& graph_;
  Builder b_;
  std::map<const Value*, Value*> real_;  // by the quantized value
};

}  // namespace

Status floatReference(Graph& graph, PassContext&) { return FloatReference(graph).run(); }

}  // namespace qc
