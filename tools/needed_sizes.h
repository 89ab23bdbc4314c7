// Which sizes have to be known before a model can be read.
#pragma once

#include <map>
#include <string>

#include "ir/graph.h"
#include "runtime/model.h"

namespace qc {

// Sizes of a sample without which the model cannot be read, while the others stay free: each in turn is left out, those of leading dims
// first.  Nothing: it takes all of them.
std::map<std::string, int64_t> neededSizes(const std::string& path, const LoadOptions& loading, const Graph& inputs, const Shapes& sample);

}  // namespace qc
