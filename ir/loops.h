// Loops: a node `loop` runs a graph that it holds, its body, round after round, as often as its operands and the body's data say.
//
//   %last, %all = loop %rounds, _, %x, %w {body={
//     graph @body(%i: s64[], %a: f32[N,4], %w: f32[4]) {
//       ...
//       return %more, %next, %y
//     }
//   }, carried=1, sizes=[n]} : f32[N,4], f32[n,N]
//
// Operands: the greatest number of rounds (s64, one element; absent: any), whether there is a first one (bool, one element; absent: there
// is), `carried` values that a round hands to the next, and values that all rounds read.  The body takes the number of the round, from 0,
// and those values; it returns whether another round follows, the carried values for it, and results of its own.  Results of the loop are
// the carried values behind the last round, and the results of all rounds, stacked along a new first dim.  As ONNX's Loop has it, whose
// body has the values that it reads without naming them.
//
// The dims of the body's inputs are sizes or symbols, and the symbols are the body's own: each is what the operand has there.  What neither
// they nor the body settle the loop decides (decided_sizes.h): how many rounds there are, unless `count` says it, and carried dims that a
// round changes.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "ir/graph.h"

namespace qc {

const Graph* bodyOf(const Node& node);  // null: no loop
// Of all loops of a graph, as `edit` leaves them; those within bodies are left to it.
Status editBodies(Graph& graph, const std::function<Status(Graph&)>& edit);

// Types of the results; where a size is the loop's to decide, `decided` gives it.  Error: the body does not fit.
Result<std::vector<TensorType>> loopResults(const Graph& body, std::span<const TensorType> values, int64_t carried,
                                            const std::function<DimExpr()>& count, const std::function<DimExpr()>& decided);

// Runs the body once: its outputs for its inputs.
using RunBody = std::function<Result<std::vector<Tensor>>(std::span<const Tensor> inputs)>;

// Null: absent.  Error: what the body says, more rounds than can be meant, or results of unlike sizes.
Result<std::vector<Tensor>> runLoop(const Node& loop, std::span<const Tensor* const> operands, const RunBody& runBody);

}  // namespace qc
