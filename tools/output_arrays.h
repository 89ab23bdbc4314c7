// The outputs of many samples as files.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "ir/status.h"
#include "ir/tensor.h"

namespace qc::tools {

// What is written, by path: stacked outputs, or, where their shapes differ, NAME.000.npy, NAME.001.npy, ..
using Written = std::vector<std::tuple<std::string, std::string, Tensor>>;  // output, path, array
// paths: of the outputs in the order of their names.
Result<Written> stackedOrApart(std::map<std::string, std::vector<Tensor>> outputs, const std::vector<std::string>& paths);

}  // namespace qc::tools
