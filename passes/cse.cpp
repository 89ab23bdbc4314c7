// cse: of pure nodes with the same op, operands and attributes, the first one serves all.
// Tests: tests/golden/cse.
#include <unordered_map>

#include "ir/rewriter.h"
#include "passes/passes.h"

namespace qc {
namespace {

// Equal keys mean equal results.  Constants are equal by pool entry and type.
std::string keyOf(const Node& node) {
  std::string key(node.op());
  for (const Value* v : node.operands()) key += fmt::format(" {}", fmt::ptr(v));
  for (const auto& [name, attr] : node.attrs()) {
    key += fmt::format(" {}=", name);
    const auto* quant = std::get_if<QuantAttr>(&attr);
    key += quant ? (quant->params ? toString(*quant->params) : "none") : toString(attr);
  }
  if (node.is("const")) key += fmt::format(" {} {}", node.constantName(), node.result()->type().str());
  return key;
}

}  // namespace

Status cse(Graph& graph, PassContext& cx) {
  std::unordered_map<std::string, Node*> first;
  int merged = 0;
  for (Node* node : graph.nodes()) {
    if (!node->def().has(kPure) || node->annotation()) continue;
    const auto [it, isNew] = first.emplace(keyOf(*node), node);
    if (isNew) continue;
    // An output keeps its own value, so that each output has the name the user gave it.
    bool isOutput = false;
    for (int i = 0; i < node->numResults(); ++i) isOutput |= node->result(i)->isOutput();
    if (isOutput) continue;
    for (int i = 0; i < node->numResults(); ++i) node->result(i)->replaceAllUsesWith(it->second->result(i));
    graph.erase(node);
    ++merged;
  }
  cx.countHits({{"merged", merged}});
  return {};
}

}  // namespace qc
