// The reference interpreter: evaluates every op at every stage, plainly and exactly.  It is the oracle for
// the generated code.  Values are freed after their last use; what would take more than memoryLimit() is refused.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct InterpOptions {
  // Called after each node with its results; for debugging, observers and coverage of intermediate values.
  std::function<Status(const Node&, std::span<const Tensor>)> onNode;
};

// Inputs in the order of graph.inputs(), with exactly their dtypes (storage dtypes where quantized) and sizes; free dims have those of the
// inputs.
// Outputs in the order of graph.outputs().
Result<std::vector<Tensor>> interpret(const Graph& graph, std::span<const Tensor> inputs, const InterpOptions& options = {});

// One node on given operand tensors (null: absent).
Result<std::vector<Tensor>> evaluateNode(const Node& node, std::span<const Tensor* const> operands);

// What folding has made so far.  A few bytes of a model can describe large constants (Expand, Range): those must neither be large alone
// nor add up.
struct FoldBudget {
  static constexpr int64_t kGrowthOfOne = int64_t{1} << 26, kGrowthOfAll = int64_t{1} << 28;  // bytes beyond those of the operands
  static constexpr int64_t kWidening = 4;                                                     // s8 to s32
  // Bytes of constants that the model brings.  What they become may be that much larger all together, so that the size of a model does not
  // decide how it runs; what is made of nothing (an Expand of one number) is held to the numbers above.
  int64_t payload = 0;
  int64_t grown = 0;
};

// The 8-bit integers that a cast makes wider; null: another node.  As weights of an integer layer they had better stay narrow, in a quarter
// of the memory: recognize-integer reads them through the cast.
Value* widenedIntegers(const Node& node);

// Nothing also where the budget would be passed; what is made is added to it.  maxBytes: of one result; 0: the budget alone.
Result<std::optional<std::vector<Tensor>>> foldNode(const Node& node, FoldBudget& budget, int64_t maxBytes = 0);

// If every operand of a pure node is constant, or of size zero and so known as well, or if all that it gives is of size zero: its results.
// Nothing when not known or over `maxBytes`.
Result<std::optional<std::vector<Tensor>>> foldNode(const Node& node, int64_t maxBytes = int64_t{1} << 28);

// The same of a node that decides sizes, while nothing knows its symbols yet: who makes it so puts constants in its place at once.
Result<std::optional<std::vector<Tensor>>> foldDeciding(const Node& node, int64_t maxBytes);

}  // namespace qc
