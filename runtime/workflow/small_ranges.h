// Values and weights so small that their steps are finer than other tools keep, or than the rules allow.
#pragma once

#include <vector>

#include "ir/graph.h"
#include "passes/pass.h"
#include "quantizer/ranges.h"

namespace qc {

// Of a graph with observers and what they found: a remark on the values and one on the weights whose scales lie below the smallest that
// PyTorch's observers give, and one each where the smallest scale of the rules left next to nothing of them.
Result<std::vector<Remark>> smallRanges(const Graph& prepared, const Ranges& ranges);

}  // namespace qc
