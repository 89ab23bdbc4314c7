// What reconstruction looks at in a model: values of as much of it as gives them, and the mixture of two models' (QDrop).
#pragma once

#include <string>
#include <vector>

#include "runtime/workflow/taps.h"

namespace qc {

// Of a graph, as much as gives these values.  Error: no such value.
Result<Taps> tapsOf(const Graph& graph, const std::vector<std::string>& names, const SessionOptions& options);

// Every element from either with a chance of one half, always the same by `draw`.  Requires: f32 of one type.
Tensor dropped(const Tensor& real, const Tensor& quantized, int64_t draw);

}  // namespace qc
