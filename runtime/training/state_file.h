// The state of a training as a file: an npz with an array for each value, in the order of their names, and what else the caller keeps.
#pragma once

#include <map>
#include <string>

#include "ir/status.h"
#include "ir/tensor.h"

namespace qc {

struct StateFile {
  std::map<std::string, Tensor> values;
  std::map<std::string, std::string> texts;
};
// Written whole or not at all.
Status writeState(const std::string& path, const StateFile& state);
// Whatever the bytes of the file: the state, or an error.
Result<StateFile> readState(const std::string& path);

}  // namespace qc
