// Arrays by name in one npz file, stored without compression.
#pragma once

#include <map>
#include <string>

#include "ir/tensor.h"

namespace qc {

// Written whole or not at all.  A name is the key that numpy.load() gives; one that leads out of a folder where it is unpacked ("a/../b")
// loses its dots.  Errors: larger than 4 GB, which the plain format cannot say.
Status writeNpz(const std::string& path, const std::map<std::string, Tensor>& arrays);

}  // namespace qc
