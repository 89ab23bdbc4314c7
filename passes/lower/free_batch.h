// A model that was made for one sample at a time, at any number of them: the pass free-batch and what it is told of the inputs.
#pragma once

#include <map>
#include <string>

namespace qc {

// Dims of inputs along which samples are stacked; -1: all samples have the same.  One that is not named: its leading dim if that is 1, else
// the first that is.
struct StackedInputs {
  std::map<std::string, int> dims;
};

}  // namespace qc
