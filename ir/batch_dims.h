// Which ops compute the samples of a batch apart from one another, and where in their results those lie.  What a declaration says of its
// operands and attributes answers that for most ops; the others name a function that does (OpDef::batch).
//
//   softmax {axis=1}, samples in dim 0   ->  in dim 0
//   softmax {axis=0}, samples in dim 0   ->  nothing: it sums over them
#pragma once

#include <optional>
#include <span>

#include "ir/op_def.h"

namespace qc {

// For an op of this graph.  One whose declaration says nothing keeps no samples apart.
std::optional<BatchDims> batchDims(const Node& node, std::span<const int> dims);

}  // namespace qc
