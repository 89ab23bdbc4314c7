// What smooth-quant knows of a value: per channel (last dim) its range and mean square, by the name of the value.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct ChannelStatistics {
  std::vector<float> min, max;
  std::vector<double> square;  // means
};
using ChannelsByValue = std::map<std::string, ChannelStatistics>;

// Whether smooth-quant could do something behind this node of a simplified float graph, if it knew the statistics of its result.
bool isSmoothable(const Node& node);

}  // namespace qc
