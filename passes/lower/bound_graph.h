// Graphs with free dims at the shapes that their inputs come in.
#pragma once

#include "ir/graph.h"
#include "passes/lower/bind_shapes.h"

namespace qc {

bool hasFreeDims(const Graph& graph);  // of its inputs

// The sizes of all symbols, from the shapes of the inputs by name.  Error: a shape that the input does not take, two sizes for one symbol,
// or a symbol that stands nowhere alone; it names input, dim and sizes.
Result<ShapeBindings> bindingsOf(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

// A copy at these shapes.  Nodes and values keep their names.
Result<Graph> boundGraph(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

}  // namespace qc
