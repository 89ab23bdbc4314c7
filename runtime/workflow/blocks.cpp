#include "runtime/workflow/blocks.h"

#include <set>
#include <unordered_map>
#include <unordered_set>

namespace qc {
namespace {

bool isObserve(const Node* node) { return node && node->is("observe"); }

const Value* unobserved(const Value* v) {
  while (isObserve(v->producer())) v = v->producer()->operand(0);
  return v;
}

// By itself or as it is rounded.
bool isGiven(const Value* v) {
  if (v->isOutput()) return true;
  for (const Use* use = v->firstUse(); use; use = use->next())
    if (isObserve(use->user()) && isGiven(use->user()->result())) return true;
  return false;
}

}  // namespace

const Node* observeOf(const Value* value) {
  for (const Use* use = value->firstUse(); use; use = use->next())
    if (isObserve(use->user())) return use->user();
  return nullptr;
}

std::vector<Block> blocksOf(const Graph& graph, const std::vector<const Node*>& layers) {
  std::unordered_map<const Value*, const Node*> lastReader;
  for (const Node* n = graph.front(); n; n = n->next())
    for (const Value* v : n->operands())
      if (v) lastReader[unobserved(v)] = n;
  const std::unordered_set<const Node*> counted(layers.begin(), layers.end());
  std::vector<Block> blocks;
  Block block;
  std::unordered_set<const Value*> depends;  // on a layer
  std::set<const Value*> live;               // of these, what is read later
  bool gives = false;                        // an output of the graph, before its end
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (isObserve(n)) continue;
    bool isBehind = counted.contains(n);
    if (isBehind) block.layers.push_back(n);
    for (const Value* v : n->operands()) isBehind |= v && depends.contains(unobserved(v));
    if (!isBehind) continue;
    for (int i = 0; i < n->numResults(); ++i) {
      depends.insert(n->result(i));
      live.insert(n->result(i));
    }
    std::erase_if(live, [&](const Value* v) {
      const auto reader = lastReader.find(v);
      return reader == lastReader.end() || !n->isBefore(reader->second);
    });
    const bool ends = live.size() == 1 && n->numResults() == 1 && live.contains(n->result()) && observeOf(n->result());
    if (!ends || block.layers.size() < 2) {
      for (int i = 0; i < n->numResults(); ++i) gives |= isGiven(n->result(i));
      continue;
    }
    block.to = n->result();
    if (!gives) blocks.push_back(block);
    block = {block.to, nullptr, {}};
    gives = false;
  }
  return blocks;
}

}  // namespace qc
