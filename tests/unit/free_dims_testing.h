// What the tests of models with free dims share.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/tensor.h"

namespace qc::testing {

using Sizes = std::map<std::string, std::vector<int64_t>>;  // of inputs, by name

// Small numbers that differ.
inline Tensor sample(const TensorType& type) {
  Tensor t(type.dtype, type.sizes());
  for (int64_t i = 0; i < t.numElements(); ++i)
    storeElement(t.dtype(), t.mutableData(), i, isFloat(t.dtype()) ? 0.25 * (i % 13) - 1 : i % 5);
  return t;
}

}  // namespace qc::testing
