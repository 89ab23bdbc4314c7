// Two layers with nothing but a relu or a pool in the middle: what equalize-layers and equalize-weights move between.
#pragma once

#include <optional>
#include <vector>

#include "ir/graph.h"
#include "passes/correspondence.h"

namespace qc {

struct FactorPair {
  Node* producer = nullptr;      // conv or linear, without anything fused to it
  const Value* value = nullptr;  // its result behind the relu
  std::vector<Node*> readers;    // all of them, behind pools
  int axis = 0;                  // of the channels, of `value`
  int64_t channels = 0;
};

// The pair of which `node` gives the value; nothing where something else reads it, or a factor would not come through.
std::optional<FactorPair> pairAt(Node& node);

// The producer's channels divided by a factor each, the readers' inputs multiplied by it: the same function.
void moveFactors(Graph& graph, const FactorPair& pair, const std::vector<double>& factors, Moves& moves);

}  // namespace qc
