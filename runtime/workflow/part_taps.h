// What reconstruction looks at in a model: values of as much of it as gives them.
#pragma once

#include <string>
#include <vector>

#include "runtime/workflow/taps.h"

namespace qc {

// Of a graph, as much as gives these values.  Error: no such value.
Result<Taps> tapsOf(const Graph& graph, const std::vector<std::string>& names, const SessionOptions& options);

}  // namespace qc
