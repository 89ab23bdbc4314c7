// What correct-bias adds to the biases: per layer, by the name of its result, one value per output channel.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace qc {

using BiasCorrections = std::map<std::string, std::vector<float>>;

// Whether the recipe's choice goes by runs of the int8 model, each with the layers before corrected.
bool correctsInTurn(std::string_view choice, const Node& layer);

}  // namespace qc
