// Parts of a model that are quantized as one: see reconstruct_blocks.cpp.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace qc {

// What lies between two values through which alone the results of layers reach what follows: of a residual network a block of it, of a
// transformer an attention or an MLP with its addition, of a chain two layers.
struct Block {
  const Value* from = nullptr;      // null: the inputs of the graph
  const Value* to = nullptr;        // which is rounded: an observer reads it
  std::vector<const Node*> layers;  // in the order of the graph, at least two
};

// The observer that reads a value; null: none does.
const Node* observeOf(const Value* value);

// Of a graph with observers.  layers: those that count, in its order.  What follows the last such value is in no block, nor what gives an
// output of the graph on the way, for which its own result is not all that counts.
std::vector<Block> blocksOf(const Graph& graph, const std::vector<const Node*>& layers);

}  // namespace qc
