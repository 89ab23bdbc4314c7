// What calibration has to look at for smooth-quant.
#pragma once

#include "passes/channel_noise.h"

namespace qc {

// Whether smooth-quant could do something behind this node of a simplified float graph, if it knew the statistics of its result.
// Channels are the last dim.
bool isSmoothable(const Node& node);

}  // namespace qc
