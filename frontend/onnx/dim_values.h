// Whole numbers that follow from free dims: what Shape and the arithmetic behind it give while a model is imported whose dims stay free.
//
// They are nodes `dims`, constants whose elements are expressions. An op on them and on constants becomes another such node, as an op on
// constants becomes a constant: data that moves is followed by evaluating the op on the numbers of its elements, elementwise integers by
// their scalar expression. What cannot be said of every size (a comparison that some sizes decide one way and some the other) stays a node
// of the graph, to be computed when the dims are bound.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "ir/assumptions.h"
#include "ir/dim_expr.h"
#include "ir/graph.h"

namespace qc {

class OnnxNode;

struct DimValues {
  DType dtype = DType::s64;
  std::vector<int64_t> sizes;
  std::vector<DimExpr> elements;
};

// Of a node `dims` or of a small integer constant; nothing for anything else.
std::optional<DimValues> dimValuesOf(const Value* v);
bool followsFromDims(const Value* v);  // a node `dims`

// A constant where no element is free, else a node `dims`.
Value* makeDimValues(Builder& b, const DimValues& values);

DimExpr product(std::span<const DimExpr> dims);

// Sizes for these symbols that are large and all different, from `first` on.
SymbolSizes unlikeSizes(const std::set<std::string>& symbols, int64_t first = 1009);

// start, start + step, ...: so many of them, s64.
Result<Value*> countedUp(OnnxNode& n, const DimExpr& start, const DimExpr& count, const DimExpr& step = 1);

// Whether a condition that some sizes decide one way and some the other is taken to hold, which is assumed from then on.
using TakeWay = std::function<bool(Assumption)>;

// The results of a node whose operands are such values, one at least a node `dims`; nothing where that is not so, or they cannot be said.
Result<std::optional<std::vector<DimValues>>> foldDims(const Node& node, const TakeWay& isTaken);

// What a truth says of sizes, where it is one comparison of two of them; nothing: it is not, or all sizes decide it alike.
std::optional<Assumption> comparisonOf(const Value* truth);
// Whether it only asks if there are elements at all: a product of sizes that is 0, or is not.
bool asksForElements(const Assumption& comparison);

}  // namespace qc
