// What the files that implement ScalarExpr share and no one else needs.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "ir/scalar_expr.h"
#include "ir/signed_index.h"

namespace qc {

// The row of ScalarExpr::functions() with this name, or null.
const ScalarExpr::Function* findFunction(std::string_view name);

// The instruction of a node alone, its operands left open.
ExprProgram::Instruction instructionOf(const ScalarExpr& e);

// A set of small things that are numbered in the order they come, found by open addressing: expressions are looked at by the thousand, most
// are small, and an allocation for each of their nodes would be what takes the time.
template <class Key, class Hash, class Same>
class Numbering {
 public:
  std::pair<int, bool> add(const Key& key) {  // its number, and whether it is new
    if (2 * (keys_.size() + 1) > slots_.size()) grow();
    size_t at = Hash()(key) & (slots_.size() - 1);
    for (; slots_[at] >= 0; at = (at + 1) & (slots_.size() - 1))
      if (Same()(nth(keys_, slots_[at]), key)) return {slots_[at], false};
    slots_[at] = static_cast<int>(keys_.size());
    keys_.push_back(key);
    return {slots_[at], true};
  }
  const std::vector<Key>& keys() const { return keys_; }
  std::vector<Key> take() { return std::move(keys_); }
  void clear() {
    keys_.clear();
    slots_.assign(slots_.size(), -1);
  }

 private:
  void grow() {
    slots_.assign(std::max<size_t>(64, 2 * slots_.size()), -1);
    for (size_t i = 0; i < keys_.size(); ++i) {
      size_t at = Hash()(keys_[i]) & (slots_.size() - 1);
      while (slots_[at] >= 0) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = static_cast<int>(i);
    }
  }
  std::vector<Key> keys_;
  std::vector<int> slots_;  // a power of two of them; -1: free
};

struct IdHash {
  size_t operator()(const void* id) const { return (reinterpret_cast<uintptr_t>(id) * 0x9e3779b97f4a7c15u) >> 32; }
};
using IdNumbering = Numbering<const void*, IdHash, std::equal_to<const void*>>;

struct InstructionHash {
  size_t operator()(const ExprProgram::Instruction& i) const {
    uint64_t h = static_cast<uint64_t>(i.op) + 1;
    for (const uint32_t v : {static_cast<uint32_t>(i.operand[0]), static_cast<uint32_t>(i.operand[1]), static_cast<uint32_t>(i.operand[2]),
                             static_cast<uint32_t>(i.index), std::bit_cast<uint32_t>(i.value)})
      h = (h ^ v) * 0x9e3779b97f4a7c15u, h ^= h >> 29;
    return h;
  }
};
struct SameInstruction {
  bool operator()(const ExprProgram::Instruction& a, const ExprProgram::Instruction& b) const {
    return a.op == b.op && std::equal(a.operand, a.operand + 3, b.operand) && a.index == b.index &&
           std::bit_cast<uint32_t>(a.value) == std::bit_cast<uint32_t>(b.value);
  }
};
// Structurally equal instructions have one number, which is the register they write.
using InstructionNumbering = Numbering<ExprProgram::Instruction, InstructionHash, SameInstruction>;

// Calls visit(node) once per distinct node, operands first.  Not by recursion: a tree may be as deep as a program is long.
template <class Visit>
void postorder(const ScalarExpr& root, const Visit& visit) {
  struct Frame {
    const ScalarExpr* expression;
    size_t next;
  };
  IdNumbering seen;
  std::vector<Frame> stack{{&root, 0}};
  seen.add(root.id());
  while (!stack.empty()) {
    Frame& top = stack.back();
    const auto operands = top.expression->operands();
    if (top.next == operands.size()) {
      visit(*top.expression);
      stack.pop_back();
      continue;
    }
    const ScalarExpr& child = operands[top.next++];
    if (seen.add(child.id()).second) stack.push_back({&child, 0});
  }
}

}  // namespace qc
