// The weights of two models beside one another, layer by layer, in the units of the reference: factors that passes moved are taken out, and
// BatchNorm is folded in both or in none.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/insight/pairing.h"

namespace qc {

struct WeightError {
  double sqnr = 0;
  int64_t worstChannel = -1;  // of outputs; -1: the weight has no such axis
  double worstSqnr = 0;       // of it
};

// One for each layer; nothing where it has no weights in both models, or they cannot be compared, which `notes` then tells.
Result<std::vector<std::optional<WeightError>>> compareWeights(const Graph& reference, const Graph& actual,
                                                               const std::vector<LayerPair>& layers, std::vector<std::string>& notes);

}  // namespace qc
