// Sizes for shapes with free dims, where something needs them all.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct NamedShape {
  std::string name;
  Shape shape;
};

// "the shape [1,5,9] does not fit the declared [N,T,8]: dim 2 is 8, not 9"; of free dims it says nothing.  Empty: it fits.
std::string misfitOf(const Shape& declared, const std::vector<int64_t>& given);

// By name, with these sizes of symbols; one that is not among them and only leads shapes, as a batch does, is 1.  One error names all dims
// that stay free, with what would bind them; it says why they have to be bound: "noise has no sizes of its own".
Result<std::map<std::string, std::vector<int64_t>>> settledSizes(std::span<const NamedShape> shapes, SymbolSizes sizes,
                                                                 std::string_view why = {});

// The sizes of all symbols, from the shapes of the inputs by name.  Error: a shape that the input does not take, two sizes for one symbol,
// or a symbol that stands nowhere alone; it names input, dim and sizes.
Result<SymbolSizes> bindingsOf(const Graph& graph, const std::map<std::string, std::vector<int64_t>>& shapes);

}  // namespace qc
