// What is taken for granted of sizes that are free, where a node of the model does at other sizes what no one program does for all of them:
// an If whose branches give tensors of different ranks, a Squeeze that names no axes.  They are a property of the graph, kept in files, and
// whoever gives sizes to the symbols holds them against these.
//
//   assume(graph, {{Assumption::Kind::differ, DimExpr::symbol("T"), 1, "/squeeze/If"}});
//   checkAssumptions(graph.info(), {{"T", 1}})   // error: T is 1, and '/squeeze/If' needs T != 1
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ir/dim_expr.h"
#include "ir/graph.h"

namespace qc {

struct Assumption {
  enum class Kind : uint8_t { equal, differ, atMost };
  Kind kind = Kind::equal;
  DimExpr left, right;
  std::string node;  // who needs it, by its location

  Assumption negated() const;
  // Nothing: the sizes do not settle it.
  std::optional<bool> holdsAt(const SymbolSizes& sizes) const;
  std::set<std::string> symbols() const;
  std::string str() const;  // "T != 1"
};

// Adds those that are not there yet.
void assume(Graph& graph, std::span<const Assumption> assumptions);
Result<std::vector<Assumption>> assumptionsOf(const ModelInfo& info);
// The first that these sizes break.
Result<std::optional<Assumption>> brokenAssumption(const ModelInfo& info, const SymbolSizes& sizes);
// Error: the first that these sizes break, with the node that needs it.
Status checkAssumptions(const ModelInfo& info, const SymbolSizes& sizes);
// Where all sizes are known they have been held against them.
void forgetAssumptions(Graph& graph);

}  // namespace qc
