// prepare: turns annotations into `observe` nodes, one observer per sharing group, by the placement rules of PT2E:
// an input edge is observed unless its producer's output already is by the same observer; an observed output redirects all
// users.  Constants are not observed: their data is known and convert reads it.
// Tests: tests/golden/prepare.
#include <map>

#include "passes/passes.h"
#include "quantizer/sharing.h"

namespace qc {
namespace {

class Preparation {
 public:
  Preparation(Graph& graph, const SharingGroups& groups) : graph_(graph), groups_(groups) {}

  Status run() {
    for (Node* node : graph_.nodes()) {
      if (!node->annotation() || node->is("observe")) continue;
      for (int i = 0; i < node->numOperands(); ++i)
        if (node->operand(i)) QC_TRY(observeInput(node, i));
      QC_TRY(observeOutput(node));
    }
    return {};
  }
  int inserted() const { return inserted_; }

 private:
  std::optional<int> groupOf(const EdgeOrNode& point) const {
    const auto it = groups_.groupOf.find(point);
    return it == groups_.groupOf.end() ? std::nullopt : std::optional(it->second);
  }

  // Runs in front of `before`; observers of one value by one group are made once.
  Result<Value*> observer(Value* value, int group, Node* before) {
    Value*& known = observers_[{value, group}];
    if (known) return known;
    const QuantSpec& spec = nth(groups_.specs, group);
    Builder b(graph_);
    b.before(before);
    QC_ASSIGN(Node * node, b.createNode("observe", {value}, {{"id", int64_t{group}}}, value->name() + "_observed"));
    node->annotation() = QuantAnnotation{{}, spec, true, false, {}};
    ++inserted_;
    known = node->result();
    return known;
  }

  Status observeInput(Node* node, int i) {
    Value* value = node->operand(i);
    // Parameters found at run time need no data beforehand.
    if (value->constant() || node->annotation()->dynamicInput(i)) return {};
    const auto group = groupOf({node->result()->name(), i});
    if (!group) return {};
    // The original producer, behind observers already inserted.
    Value* original = value;
    while (original->producer() && original->producer()->is("observe")) original = original->producer()->operand(0);
    if (groupOf({original->name(), -1}) == group) return {};
    QC_ASSIGN(Value * observed, observer(value, *group, node));
    node->setOperand(i, observed);
    return {};
  }

  Status observeOutput(Node* node) {
    const auto group = groupOf({node->result()->name(), -1});
    if (!group) return {};
    Value* value = node->result();
    const std::vector<Use*> uses = value->uses();
    const bool isOutput = value->isOutput();
    QC_ASSIGN(Value * observed, observer(value, *group, node->next()));
    observed->producer()->setLocation(node->location());
    for (Use* use : uses) use->user()->setOperand(use->index(), observed);
    if (isOutput) {
      std::vector<Value*> outputs = graph_.outputs();
      for (Value*& v : outputs)
        if (v == value) v = observed;
      graph_.setOutputs(std::move(outputs));
    }
    return {};
  }

  Graph& graph_;
  const SharingGroups& groups_;
  std::map<std::pair<Value*, int>, Value*> observers_;
  int inserted_ = 0;
};

}  // namespace

Status prepare(Graph& graph, PassContext& cx) {
  QC_ASSIGN(const SharingGroups groups, computeSharingGroups(graph));
  Preparation preparation(graph, groups);
  QC_TRY(preparation.run());
  cx.countHits({{"observers", preparation.inserted()}});
  return {};
}

}  // namespace qc
