// cse: of pure nodes with the same op, operands and attributes, the first one serves all.
// Tests: tests/golden/cse.
#include <algorithm>
#include <functional>
#include <unordered_map>

#include "ir/rewriter.h"
#include "passes/passes.h"

namespace qc {
namespace {

// Pool entries of the same bytes, under the name of the first of them.
class EqualConstants {
 public:
  std::string_view nameOf(const Node& constant) {
    const Tensor& payload = *constant.result()->constant();
    std::vector<const Node*>& alike = byLook_[look(payload)];
    for (const Node* other : alike)
      if (other->result()->constant()->sameBytes(payload)) return other->constantName();
    alike.push_back(&constant);
    return constant.constantName();
  }

 private:
  // Of large tensors the first bytes: most differ there, and equal ones are compared in full.
  static std::string look(const Tensor& payload) {
    constexpr int64_t kLookedAt = 64;
    const auto bytes = usize(std::min(payload.byteSize(), kLookedAt));
    return payload.type().str() + std::string(static_cast<const char*>(payload.data()), bytes);
  }

  std::unordered_map<std::string, std::vector<const Node*>> byLook_;
};

// Equal keys mean equal results.  Constants are equal by bytes and type.
std::string keyOf(const Node& node, EqualConstants& constants) {
  std::string key(node.op());
  std::vector<Value*> operands = node.operands();
  if (node.def().has(kCommutative) && operands.size() > 1 && std::less<>()(operands[1], operands[0])) std::swap(operands[0], operands[1]);
  for (const Value* v : operands) key += fmt::format(" {}", fmt::ptr(v));
  for (const auto& [name, attr] : node.attrs()) {
    key += fmt::format(" {}=", name);
    const auto* quant = std::get_if<QuantAttr>(&attr);
    key += quant ? (quant->params ? toString(*quant->params) : "none") : toString(attr);
  }
  if (node.is("const")) key += fmt::format(" {} {}", constants.nameOf(node), node.result()->type().str());
  return key;
}

}  // namespace

Status cse(Graph& graph, PassContext& cx) {
  std::unordered_map<std::string, Node*> first;
  EqualConstants constants;
  int merged = 0;
  for (Node* node : graph.nodes()) {
    if (!node->def().has(kPure) || node->annotation()) continue;
    const auto [it, isNew] = first.emplace(keyOf(*node, constants), node);
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
