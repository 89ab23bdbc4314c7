// The weights of two models beside one another, layer by layer, in the units of the reference: factors that passes moved are taken out, and
// BatchNorm is folded in both or in none.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/insight/pairing.h"

namespace qc {

// Nodes that hold weights, by name.
std::map<std::string, const Node*> weightedNodes(const Graph& graph);

struct WeightError {
  double sqnr = 0;
  int64_t worstChannel = -1;  // of outputs; -1: the weight has no such axis
  double worstSqnr = 0;       // of it
};

// One for each layer; nothing where it has no weights in both models, or they cannot be compared, which `notes` then tells.
Result<std::vector<std::optional<WeightError>>> compareWeights(const Graph& reference, const Graph& actual,
                                                               const std::vector<LayerPair>& layers, std::vector<std::string>& notes);

// The factors of a layer into a weight of the reference, or out of one of the other model: of conv and linear, the ops that passes move
// factors through.  False: of another op, or factors of other sizes; the weight is what it was.
enum class Factors { in, out };
bool moveFactors(Tensor& w, const Node& node, const LayerPair& layer, Factors way);

}  // namespace qc
