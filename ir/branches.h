// Which parts of a graph are run only where a condition is true, or only where it is false.  A node that takes one of two tensors
// (`choose`) needs the other one not at all: what leads to that alone is not computed, costs nothing, and need not be possible.
//
//   %a = matmul %x, %w : f32[N,8]         // run where %c is true
//   %y = choose %c, %a, %b {axes=[], sizes=[]} : f32[N,8]
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace qc {

// The condition by which a node takes one of two tensors, its operands 1 (true) and 2; null: another node.
const Value* conditionOf(const Node& node);
int operandTaken(bool holds);
// Error: the tensor is not one number.
Result<bool> holds(const std::string& condition, const Tensor& tensor);
Tensor conditionTensor(bool holds);  // one that holds, or not: of no dims

// Conditions and what they have to be for a node to be run, outermost first.
using Conditions = std::vector<std::pair<const Value*, bool>>;
bool isWithin(const Conditions& guards, const Conditions& outer);

// Of the nodes that are not always run: each leads to one side of nodes that choose, and to nothing else.  A node that decides a size leads
// to all that this size stands in, too.  Outputs that are only `looked` at, where they are computed, ask for nothing.
std::map<const Node*, Conditions> conditionsOf(const Graph& graph, const std::set<const Value*>& looked = {});
const Conditions& conditionsOf(const std::map<const Node*, Conditions>& guards, const Node* node);  // of one of them; none: always run

// How many nodes that others wait for stand one behind another in front of each node: by what it reads, by its sizes and by its guards.
// Error: a size that nothing decides before it is asked for.
Result<std::map<const Node*, size_t>> levelsOf(const Graph& graph, const std::map<const Node*, Conditions>& guards,
                                               const std::function<bool(const Node&)>& isWaitedFor);

}  // namespace qc
