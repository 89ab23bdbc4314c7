// Layers whose weights and bias stand: who corrects biases afterwards leaves them alone.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "quantizer/layer_response.h"

namespace qc {

struct ReconstructedLayers {
  std::set<std::string> names;  // of their results
};

// Whether the recipe's choice is to reconstruct this layer, of a graph with observers.
bool reconstructs(std::string_view choice, const Node& layer);
// And all of these at once, which are those of a block: where integers are so few that rounding one layer shows in what is best for the
// next, weights of fewer than 4 bits or values of fewer than 8 (of ResNet-20, 4 and 8 bits gain nothing, 2 and 8 or 4 and 4 up to 2
// points).
bool reconstructsTogether(std::string_view choice, const std::vector<const Node*>& layers);

}  // namespace qc
