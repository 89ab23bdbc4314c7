// Layers whose weights and bias stand: who corrects biases afterwards leaves them alone.
#pragma once

#include <set>
#include <string>

#include "quantizer/layer_response.h"

namespace qc {

struct ReconstructedLayers {
  std::set<std::string> names;  // of their results
};

// Whether the recipe's choice is to reconstruct this layer, of a graph with annotations.
bool reconstructs(std::string_view choice, const Node& layer);

}  // namespace qc
