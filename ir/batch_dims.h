// Which ops compute the samples of a batch apart from one another, and where in their results those lie.  What a declaration says of its
// operands and attributes answers that for most ops; for the others a row of ops/batches.cpp does.
//
//   softmax {axis=1}, samples in dim 0   ->  in dim 0
//   softmax {axis=0}, samples in dim 0   ->  nothing: it sums over them
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "ir/op_def.h"

namespace qc {

// Where the samples of a batch lie: in one dim of a value, the first sample first, so that this dim is as many times as long as that of one
// sample as there are samples; -1: in none, the value is the same for all of them.
struct BatchDims {
  std::vector<int> operands, results;
};
// Given where operands have them (-1 for one that is absent), where they must have them for the op to compute each sample as if it were
// alone, and where the results then have them.  Nothing: the op does not keep samples apart that lie there.
using BatchFn = std::function<std::optional<BatchDims>(const Node& node, std::span<const int> dims)>;

// For an op of this graph.  An op without a row whose declaration says nothing keeps no samples apart.
std::optional<BatchDims> batchDims(const Node& node, std::span<const int> dims);

// ops/batches.cpp: null: there is no row.
const BatchFn* batchRow(std::string_view op);

// As the neutral entry of a list for each dim (AttrSpec::neutral): the size of that dim of operand 0.
constexpr int64_t kWholeDim = -1;

}  // namespace qc
