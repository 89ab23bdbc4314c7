// Sizes that data decides.  An op whose declaration says so (OpDef::decides) names them in its attribute `sizes`, a symbol each; types and
// attributes behind it are expressions over those, like those over free dims of the inputs.  What they are is known when the node has run:
// who runs a graph learns them there, and binds what comes behind.
//
//   %n = nonzero %mask {sizes=[n]} : s64[1,n]
//   %p = reshape %n {shape=[n]} : s64[n]
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/loops.h"

namespace qc {

bool decidesSizes(const Node& node);
// The symbols that a node decides; none of those that are known.
std::set<std::string> decidedSymbols(const Node& node);
std::set<std::string> decidedSymbols(const Graph& graph);
// Whether what comes behind a node waits for its data: for sizes, for which of two tensors is taken (ir/branches.h), or for all rounds of a
// loop.
bool waitsForData(const Node& node);
const Node* firstDeciding(const Graph& graph);  // that something waits for; null: nothing does
// The same without those that only compute with sizes of inputs, which decide nothing more once these are bound (bind-shapes).
const Node* firstDecidingByData(const Graph& graph);
// Whether bind-shapes computes this node where its operands are known: small values, and sizes that stand for nothing else, since nothing
// reads the results.
bool isComputedWhenBound(const Node& node);
// What a node decides is decided once, and nothing else has its symbol.  Error: the first that is not so.
Status checkDecidedOnce(const Graph& graph);

// Symbols of a node's attributes and of the types of its results.
std::set<std::string> symbolsOf(const Node& node);
// Error: an attribute holds a symbol that the node does not decide itself: by now its size should be known, or nothing gives it.
Status checkAttributesKnown(const Node& node);

// The results of a deciding node on these operands (null: absent), of the sizes that come out.  runBody: of a loop; none: the interpreter.
Result<std::vector<Tensor>> decide(const Node& node, std::span<const Tensor* const> operands, const RunBody& runBody = {});
// What those results say of its symbols.
void learnSizes(const Node& node, std::span<const Tensor> results, SymbolSizes& sizes);

// The node at these sizes: its attributes, and the types of its results by inference.  Symbols of `open` that have no size may stay. Error:
// another symbol without one, or what the sizes contradict.
Status bindNode(Node& node, const SymbolSizes& sizes, const std::set<std::string>& open = {});

// One node of a graph on operands of any sizes, with those of symbols that are known.
Result<std::vector<Tensor>> evaluateBound(const Node& node, std::span<const Tensor* const> operands, const SymbolSizes& sizes);

}  // namespace qc
