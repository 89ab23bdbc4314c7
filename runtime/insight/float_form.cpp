#include "runtime/insight/float_form.h"

#include <map>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/interp.h"
#include "ir/loops.h"

namespace qc {
namespace {

class FloatForm {
 public:
  explicit FloatForm(Graph graph) : graph_(std::move(graph)) {}

  Result<Graph> made() && {
    QC_TRY(editBodies(graph_, [](Graph& body) -> Status {
      QC_ASSIGN(body, FloatForm(std::move(body)).made());
      return {};
    }));
    for (Node* node : graph_.nodes()) QC_TRY(visit(*node));
    std::vector<Value*> outputs = graph_.outputs();
    for (Value*& output : outputs) output = now(output);
    graph_.setOutputs(std::move(outputs));
    graph_.eraseDeadNodes();
    graph_.constants().eraseUnused(graph_);
    return std::move(graph_);
  }

 private:
  // What stands for an integer by now: a float, or itself.
  Value* now(Value* v) const {
    const auto it = float_.find(v);
    return it == float_.end() ? v : it->second;
  }

  // A quantized constant as floats, once for all who read it.
  Result<Value*> constant(Value* integers, Node& reader) {
    if (Value* known = now(integers); known != integers) return known;
    Builder b(graph_);
    b.before(&reader);
    QC_ASSIGN(Node * dequantize, b.createNode("dequantize", {integers}));
    const Tensor* payload = integers->constant();
    QC_ASSIGN(std::vector<Tensor> values, evaluateNode(*dequantize, std::span(&payload, 1)));
    Value* made = b.constant(integers->name() + "_float", std::move(values[0]));
    graph_.erase(dequantize);
    float_[integers] = made;
    return made;
  }

  static Status integers(const Node& node) {
    return fail(ErrorCode::kUnsupported, "'{}' computes on integers beyond quantize/dequantize form: its float model is not known",
                node.op())
        .at(node.location())
        .help("name the file of the float model in its place");
  }

  Status visit(Node& node) {
    if (node.is("const")) return {};
    if (node.is("quantize")) {
      float_[node.result()] = now(node.operand(0));
      return {};
    }
    if (node.is("quantize_with") || node.op().starts_with("q.")) return integers(node);
    const bool dequantizes = node.is("dequantize");
    std::vector<Value*> operands;
    bool changed = false;
    for (Value* v : node.operands()) {
      Value* given = v && v->type().isQuantized() ? now(v) : v;
      if (given && given == v && v->type().isQuantized() && v->constant()) {
        QC_ASSIGN(given, constant(v, node));
      }
      changed |= given != v;
      operands.push_back(given);
    }
    if (!changed) {
      if (dequantizes || node.numResults() == 0 || !node.result()->type().isQuantized()) return {};
      return integers(node);
    }
    if (dequantizes) {
      node.result()->replaceAllUsesWith(operands[0]);
      return {};
    }
    // An op that moves integers moves floats as well.
    Builder b(graph_);
    b.before(&node);
    QC_ASSIGN(Node * made, b.createNode(node.op(), std::move(operands), node.attrs()));
    for (int i = 0; i < node.numResults(); ++i) {
      if (node.result(i)->type().isQuantized())
        float_[node.result(i)] = made->result(i);
      else
        node.result(i)->replaceAllUsesWith(made->result(i));
    }
    return {};
  }

  Graph graph_;
  std::map<const Value*, Value*> float_;
};

}  // namespace

Result<Graph> floatForm(const Graph& quantized) {
  return withoutExceptions([&]() -> Result<Graph> {
    const DefinedArithmetic defined;
    return FloatForm(quantized.clone()).made();
  });
}

}  // namespace qc
