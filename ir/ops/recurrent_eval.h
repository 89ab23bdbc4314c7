// What all recurrent ops share: the types of their results, and their evaluation over any way to multiply by the weights.
#pragma once

#include <functional>

#include "ir/op_def.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/recurrent.h"

namespace qc {

// y[i][r] = dot(row first + r of a matrix, x[i]) for i < count and r < rows; vectors and results lie one behind the other.
using RecurrentProduct = std::function<void(const float* x, int64_t count, int64_t first, int64_t rows, float* y)>;
struct RecurrentProducts {
  RecurrentProduct w;  // given the vectors of all steps and batch entries at once; not called in the split form
  RecurrentProduct r;  // given the vectors of all running batch entries at one step
};

// `requireWeights` speaks of the element type of the operand, w or r.
Result<Types> inferRecurrent(const InferContext& c, const std::function<Status(int operand)>& requireWeights);
Status evalRecurrent(const EvalContext& c, const RecurrentForm& form, const std::function<RecurrentProducts(int64_t direction)>& products);

// One plain float32 operand, where it is given.
Status requireFloat32(const InferContext& c, int operand);

}  // namespace qc
