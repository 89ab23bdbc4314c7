// cse: of pure nodes with the same op, operands and attributes, the first one serves all.
// Tests: tests/golden/cse.
#include <algorithm>
#include <bit>
#include <functional>
#include <vector>

#include "ir/constant_view.h"
#include "ir/rewriter.h"
#include "passes/passes.h"

namespace qc {
namespace {

template <class T>
void appendBytes(std::string& key, const T& value) {
  key.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// The first node of each kind.  One flat table, as large as it can get: of thousands of nodes each costs one look into far memory, where an
// entry of its own in a list behind a bucket costs several.  The nodes in it are not erased.
class Firsts {
 public:
  explicit Firsts(int most) : slots_(std::bit_ceil(2 * usize(most) + 2)) {}

  // A node that was added with this hash and is `alike`, else `node` itself, added now.
  template <class Alike>
  Node* of(size_t hash, Node* node, const Alike& alike) {
    for (size_t i = hash;; ++i) {
      Slot& slot = slots_[i & (slots_.size() - 1)];
      if (!slot.node) slot = {hash, node};
      if (slot.node == node || (slot.hash == hash && alike(*slot.node))) return slot.node;
    }
  }

 private:
  struct Slot {
    size_t hash = 0;
    Node* node = nullptr;
  };
  std::vector<Slot> slots_;
};

// Pool entries of the same bytes, under the name of the first of them.
class EqualConstants {
 public:
  explicit EqualConstants(int most) : firsts_(most) {}
  std::string_view nameOf(Node* constant) {
    const Tensor& payload = constant->constant();
    return firsts_.of(lookOf(payload), constant, [&](const Node& other) { return other.constant().sameBytes(payload); })->constantName();
  }

 private:
  // Of large tensors bytes of the beginning, the middle and the end: most differ there, and equal ones are compared in full.
  static size_t lookOf(const Tensor& payload) {
    constexpr size_t kLookedAt = 64;
    const std::string_view bytes(static_cast<const char*>(payload.data()), usize(payload.byteSize()));
    size_t look = bytes.size() + static_cast<size_t>(payload.dtype());
    for (const size_t at : {size_t{0}, bytes.size() / 2, bytes.size() - std::min(bytes.size(), kLookedAt)})
      look = look * 31 + std::hash<std::string_view>()(bytes.substr(at, kLookedAt));
    return look;
  }

  Firsts firsts_;
};

template <class T>
void appendList(std::string& key, const std::vector<T>& list) {
  appendBytes(key, list.size());
  key.append(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(T));
}

void append(std::string& key, const QuantPtr& quant) {
  appendBytes(key, quant != nullptr);
  if (!quant) return;
  appendBytes(key, quant->storage);
  for (const int64_t v : {quant->qmin, quant->qmax, int64_t{quant->axis}, quant->blockSize}) appendBytes(key, v);
  appendList(key, quant->scales);
  appendList(key, quant->zeroPoints);
}

// What equal attributes have alike, to the bit: -0.0 is not 0.0.
void append(std::string& key, const Attr& attr) {
  appendBytes(key, attr.index());
  if (const auto* integer = std::get_if<int64_t>(&attr)) {
    appendBytes(key, *integer);
  } else if (const auto* real = std::get_if<double>(&attr)) {
    appendBytes(key, *real);
  } else if (const auto* integers = std::get_if<std::vector<int64_t>>(&attr)) {
    appendList(key, *integers);
  } else if (const auto* quant = std::get_if<QuantAttr>(&attr)) {
    append(key, quant->params);
  } else {
    const std::string text = toString(attr);
    appendBytes(key, text.size());
    key += text;
  }
}

// A bias of zeros, or factors of one: to be equal is no sign that they are one, as training would find them.
bool isFilledParameter(Node& constant) {
  const Tensor& t = constant.constant();
  if (t.dtype() != DType::f32 || t.numElements() < 2) return false;
  for (const Use* use : constant.result()->uses()) {
    const OperandRole role = use->user()->def().operand(use->index()).role;
    if (role != OperandRole::bias && role != OperandRole::parameter) return false;
  }
  const auto values = t.as<float>();
  return constant.result()->hasUses() && std::all_of(values.begin(), values.end(), [&](float v) { return v == values[0]; });
}

// Nodes whose keys are equal have equal results.  Constants are equal by bytes and type.
class Keys {
 public:
  explicit Keys(int most) : constants_(most), firsts_(most) {}

  // The node that was added with the same key, else `node` itself, added now.  Its operands stay until the end.
  Node* firstLike(Node* node) {
    write(key_, node);
    return firsts_.of(std::hash<std::string>()(key_), node, [&](Node& other) {
      write(other_, &other);
      return key_ == other_;
    });
  }

 private:
  void write(std::string& key, Node* node) {
    key.clear();
    appendBytes(key, &node->def());
    appendBytes(key, node->numOperands());
    for (int i = 0; i < node->numOperands(); ++i) appendBytes(key, operand(*node, i));
    for (const auto& [name, attr] : node->attrs()) {
      key += name;
      key += '=';
      append(key, attr);
    }
    if (!node->is("const")) return;
    if (isFilledParameter(*node)) return appendBytes(key, node);
    const TensorType& type = node->result()->type();
    key.append(constants_.nameOf(node)).append(" ");
    appendBytes(key, type.dtype);
    for (const Dim& dim : type.shape) appendBytes(key, dim.size());
    append(key, type.quant);
  }
  // The first two of a commutative op in an order of their own.
  static const Value* operand(const Node& node, int i) {
    const bool swap = i < 2 && node.def().has(kCommutative) && node.numOperands() > 1 && std::less<>()(node.operand(1), node.operand(0));
    return node.operand(swap ? 1 - i : i);
  }

  EqualConstants constants_;
  Firsts firsts_;
  std::string key_, other_;
};

}  // namespace

Status cse(Graph& graph, PassContext& cx) {
  Keys keys(graph.numNodes());
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
  if (merged > 0) forgetLoneViews(graph);
  cx.countHits({{"merged", merged}});
  return {};
}

}  // namespace qc
