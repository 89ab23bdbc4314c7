// Ifs of a file: nodes that take one of two tensors by the same condition, one beside another, are one, with what leads to the one and to
// the other tensors alone as its branches.
#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "frontend/onnx/exporter.h"
#include "frontend/onnx/tensor.h"
#include "ir/decided_sizes.h"

namespace qc {

Result<Graph> dequantizedInBranches(const Graph& graph) {
  Graph copy = graph.clone();
  const std::map<const Node*, Conditions> branches = conditionsOf(copy);
  for (Node* node : branches.empty() ? std::vector<Node*>() : copy.nodes()) {
    if (!node->is("dequantize")) continue;
    std::map<Conditions, Value*> made;
    for (Node* user : node->result()->users()) {
      const Conditions& inside = conditionsOf(branches, user);
      if (inside == conditionsOf(branches, node)) continue;
      Value*& own = made[inside];
      if (!own) {
        Builder b(copy);
        b.before(user);
        b.at(node->location());
        QC_ASSIGN(own, b.create("dequantize", {node->operand(0)}, {}, node->result()->name()));
      }
      for (int i = 0; i < user->numOperands(); ++i)
        if (user->operand(i) == node->result()) user->setOperand(i, own);
    }
    if (!node->result()->hasUses() && !node->result()->isOutput()) copy.erase(node);
  }
  return copy;
}

// One that takes the same tensor either way only names its sizes.
static bool isIf(const Node& node) { return conditionOf(node) && node.operand(1) != node.operand(2); }

// By how many Ifs are in front, so that those which can be one stand together.
Status OnnxExporter::orderNodes() {
  guards_ = qc::conditionsOf(graph_);
  QC_ASSIGN(levels_, levelsOf(graph_, guards_, isIf));
  for (const Node* n = graph_.front(); n; n = n->next()) order_.push_back(n);
  std::ranges::stable_sort(order_, {}, [&](const Node* n) { return std::pair(levels_.at(n), isIf(*n)); });
  return {};
}

Status OnnxExporter::addNodes(const Nodes& nodes, const Conditions& scope) {
  std::set<const Node*> added;
  for (auto it = nodes.begin(); it != nodes.end(); ++it) {
    const Node* n = *it;
    if (conditionsOf(n) != scope || added.contains(n)) continue;  // in a branch further in
    if (!isIf(*n)) {
      QC_TRY(addNode(*n));
      continue;
    }
    Nodes together;
    std::copy_if(it, nodes.end(), std::back_inserter(together), [&](const Node* other) {
      return isIf(*other) && conditionOf(*other) == conditionOf(*n) && levels_.at(other) == levels_.at(n) && conditionsOf(other) == scope;
    });
    added.insert(together.begin(), together.end());
    if (auto s = addIf(together, nodes, scope); !s) return tl::make_unexpected(std::move(s.error()).at(n->location()));
  }
  return {};
}

Status OnnxExporter::addIf(const Nodes& chooses, const Nodes& nodes, const Conditions& scope) {
  std::vector<std::string> outputs;
  for (const Node* n : chooses) outputs.push_back(name(n->result()));
  auto& proto = add(*chooses.front(), "If", {name(conditionOf(*chooses.front()))}, std::move(outputs));
  for (const bool side : {true, false}) {
    Conditions inner = scope;
    inner.emplace_back(conditionOf(*chooses.front()), side);
    QC_TRY(addBranch(proto, side ? "then_branch" : "else_branch", chooses, nodes, inner));
  }
  for (const Node* n : chooses) dims_.defined(n->result());
  return {};
}

Status OnnxExporter::addBranch(onnx::NodeProto& proto, const char* name, const Nodes& chooses, const Nodes& nodes,
                               const Conditions& scope) {
  auto& attribute = *proto.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::GRAPH);
  auto& body = *attribute.mutable_g();
  body.set_name(name);
  // What is computed in a branch is not there outside of it.
  const auto quantNames = quantNames_;
  const auto zeroPoints = narrowZeroPoints;
  const DimWriter::Known known = dims_.known();
  onnx::GraphProto* const around = std::exchange(proto_, &body);
  scopes_.push_back({&body, {}});
  const int operand = operandTaken(scope.back().second);
  Status added = addNodes(leadingTo(chooses, operand, nodes, scope), scope);
  for (const Node* choose : chooses) {
    const std::string output = fresh(fmt::format("{}_{}", this->name(choose->result()), name));
    addUnlocated("Identity", {this->name(choose->operand(operand))}, output);
    auto& info = *body.add_output();
    info.set_name(output);
    info.mutable_type()->mutable_tensor_type()->set_elem_type(dtypeToOnnx(choose->result()->type().dtype));
  }
  scopes_.pop_back();
  proto_ = around;
  quantNames_ = quantNames;
  narrowZeroPoints = zeroPoints;
  dims_.restore(known);
  return added;
}

// Of these nodes those that run where the branch is taken and that it needs: by values, and by sizes that they decide.
OnnxExporter::Nodes OnnxExporter::leadingTo(const Nodes& chooses, int operand, const Nodes& nodes, const Conditions& scope) const {
  std::map<std::string, const Node*> deciding;
  for (const Node* n : nodes)
    for (const std::string& symbol : decidedSymbols(*n)) deciding[symbol] = n;
  std::set<const Node*> leading;
  std::vector<const Node*> open;
  for (const Node* choose : chooses) open.push_back(choose->operand(operand)->producer());
  while (!open.empty()) {
    const Node* n = open.back();
    open.pop_back();
    if (!n || !isWithin(conditionsOf(n), scope) || !leading.insert(n).second) continue;
    for (const Value* v : n->operands())
      if (v) open.push_back(v->producer());
    for (const std::string& symbol : symbolsOf(*n))
      if (const auto it = deciding.find(symbol); it != deciding.end()) open.push_back(it->second);
  }
  Nodes own;
  std::ranges::copy_if(nodes, std::back_inserter(own), [&](const Node* n) { return leading.contains(n); });
  return own;
}

}  // namespace qc
