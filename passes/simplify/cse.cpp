// cse: of pure nodes with the same op, operands and attributes, the first one serves all.
// Tests: tests/golden/cse.
#include <algorithm>
#include <functional>
#include <unordered_map>

#include "ir/rewriter.h"
#include "passes/passes.h"

namespace qc {
namespace {

template <class T>
void appendBytes(std::string& key, const T& value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Pool entries of the same bytes, under the name of the first of them.
class EqualConstants {
 public:
  std::string_view nameOf(const Node& constant) {
    const Tensor& payload = constant.constant();
    const size_t look = lookOf(payload);
    for (auto [it, end] = byLook_.equal_range(look); it != end; ++it)
      if (it->second->constant().sameBytes(payload)) return it->second->constantName();
    byLook_.emplace(look, &constant);
    return constant.constantName();
  }

 private:
  // Of large tensors the first bytes: most differ there, and equal ones are compared in full.
  static size_t lookOf(const Tensor& payload) {
    constexpr int64_t kLookedAt = 64;
    const auto bytes = usize(std::min(payload.byteSize(), kLookedAt));
    return std::hash<std::string_view>()({static_cast<const char*>(payload.data()), bytes});
  }

  std::unordered_multimap<size_t, const Node*> byLook_;
};

// What equal attributes have alike, to the bit: -0.0 is not 0.0.
void append(std::string& key, const Attr& attr) {
  appendBytes(key, attr.index());
  if (const auto* integer = std::get_if<int64_t>(&attr)) {
    appendBytes(key, *integer);
  } else if (const auto* real = std::get_if<double>(&attr)) {
    appendBytes(key, *real);
  } else if (const auto* integers = std::get_if<std::vector<int64_t>>(&attr)) {
    appendBytes(key, integers->size());
    for (const int64_t v : *integers) appendBytes(key, v);
  } else {
    const auto* quant = std::get_if<QuantAttr>(&attr);
    const std::string text = !quant ? toString(attr) : quant->params ? toString(*quant->params) : "none";
    appendBytes(key, text.size());
    key += text;
  }
}

// Nodes whose keys are equal have equal results.  Constants are equal by bytes and type.
class Keys {
 public:
  // The node that was added with the same key, else `node` itself, added now.  Its operands stay until the end.
  Node* firstLike(Node* node) {
    write(key_, *node);
    const size_t hash = std::hash<std::string>()(key_);
    for (auto [it, end] = first_.equal_range(hash); it != end; ++it) {
      write(other_, *it->second);
      if (key_ == other_) return it->second;
    }
    first_.emplace(hash, node);
    return node;
  }

 private:
  void write(std::string& key, const Node& node) {
    key.clear();
    appendBytes(key, &node.def());
    appendBytes(key, node.numOperands());
    for (int i = 0; i < node.numOperands(); ++i) appendBytes(key, operand(node, i));
    for (const auto& [name, attr] : node.attrs()) {
      key += name;
      key += '=';
      append(key, attr);
    }
    if (node.is("const")) key.append(constants_.nameOf(node)).append(" ").append(node.result()->type().str());
  }
  // The first two of a commutative op in an order of their own.
  static const Value* operand(const Node& node, int i) {
    const bool swap = i < 2 && node.def().has(kCommutative) && node.numOperands() > 1 && std::less<>()(node.operand(1), node.operand(0));
    return node.operand(swap ? 1 - i : i);
  }

  EqualConstants constants_;
  std::unordered_multimap<size_t, Node*> first_;  // by hash of the key: keys by the thousand would be spread over memory
  std::string key_, other_;
};

}  // namespace

Status cse(Graph& graph, PassContext& cx) {
  Keys keys;
  int merged = 0;
  for (Node* node : graph.nodes()) {
    if (!node->def().has(kPure) || node->annotation()) continue;
    Node* first = keys.firstLike(node);
    if (first == node) continue;
    // An output keeps its own value, so that each output has the name the user gave it.
    bool isOutput = false;
    for (int i = 0; i < node->numResults(); ++i) isOutput |= node->result(i)->isOutput();
    if (isOutput) continue;
    for (int i = 0; i < node->numResults(); ++i) node->result(i)->replaceAllUsesWith(first->result(i));
    graph.erase(node);
    ++merged;
  }
  cx.countHits({{"merged", merged}});
  return {};
}

}  // namespace qc
