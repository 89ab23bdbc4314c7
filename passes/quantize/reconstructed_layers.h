// Layers whose weights and bias stand: who corrects biases afterwards leaves them alone.
#pragma once

#include <set>
#include <string>

#include "quantizer/layer_response.h"

namespace qc {

struct ReconstructedLayers {
  std::set<std::string> names;  // of their results
};

}  // namespace qc
