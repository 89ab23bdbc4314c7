// Graphs with free dims at the shapes that their inputs come in.
#pragma once

#include "ir/assumptions.h"
#include "ir/graph.h"
#include "passes/lower/bind_shapes.h"

namespace qc {

bool hasFreeDims(const Graph& graph);  // of its inputs

// The sizes of all symbols, from the shapes of the inputs by name.  Error: a shape that the input does not take, two sizes for one symbol,
// or a symbol that stands nowhere alone; it names input, dim and sizes.
Result<ShapeBindings> bindingsOf(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

// What had to be assumed of free sizes (ir/assumptions.h) and does not hold at these shapes, with the sizes that its symbols have there.
// Nothing: all does, or the shapes do not fit the inputs.
struct BrokenAssumption {
  Assumption assumption;
  ShapeBindings sizes;
};
std::optional<BrokenAssumption> brokenAt(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

// A copy at these shapes.  Nodes and values keep their names.  Error: as bindingsOf(), or what the shapes contradict: node, inputs and
// sizes.
Result<Graph> boundGraph(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

// The shapes of all inputs, from some of them by name and from sizes by symbol.  A leading dim that has no size is 1.  Error: a name that
// is neither, two sizes for one symbol, or, all of them at once, dims that stay free.
Result<std::map<std::string, std::vector<int64_t>>> wholeShapes(const Graph& graph,
                                                                const std::map<std::string, std::vector<int64_t>>& given);

}  // namespace qc
