// What the declarations of ops that decide sizes share.
#pragma once

#include <functional>
#include <vector>

#include "ir/op_def.h"

namespace qc {

// The evaluation where the sizes are known beforehand: they have to come out.
EvalFn atKnownSizes(std::function<Result<std::vector<Tensor>>(const EvalContext&)> eval);

}  // namespace qc
