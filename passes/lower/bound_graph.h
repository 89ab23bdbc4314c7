// Graphs with free dims at the shapes that their inputs come in.
#pragma once

#include "ir/assumptions.h"
#include "ir/graph.h"
#include "ir/settled_sizes.h"
namespace qc {

bool hasFreeDims(const Graph& graph);  // of its inputs

// What had to be assumed of free sizes (ir/assumptions.h) and does not hold at these shapes, with the sizes that its symbols have there.
// Nothing: all does, or the shapes do not fit the inputs.
struct BrokenAssumption {
  Assumption assumption;
  SymbolSizes sizes;
};
std::optional<BrokenAssumption> brokenAt(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

// A copy at these shapes.  Nodes and values keep their names.  Error: as bindingsOf() (ir/settled_sizes.h), or what the shapes contradict:
// node, inputs and sizes.
Result<Graph> boundGraph(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

// The shapes of all inputs, from some of them by name and from sizes by symbol.  A leading dim that has no size is 1.  Error: a name that
// is neither, two sizes for one symbol, or, all of them at once, dims that stay free.
Result<std::map<std::string, std::vector<int64_t>>> wholeShapes(const Graph& graph,
                                                                const std::map<std::string, std::vector<int64_t>>& given);

}  // namespace qc
