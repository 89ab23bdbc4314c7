// Scales of weights that are wide enough for the bias.  The bias of a quantized layer is an int32 of scale sx * sw[c]: a channel of
// (nearly) no weights has a scale so small that its bias would leave int32.  Rounding such weights by a wider scale moves the result
// by less than the bias itself is rounded.
#pragma once

#include <span>
#include <vector>

#include "ir/type.h"

namespace qc {

struct BiasSafe {
  QuantPtr params;             // the weights' own where nothing needs widening
  std::vector<float> widened;  // the new scales of the channels that did
};
BiasSafe biasSafeParams(const QuantPtr& weights, std::span<const float> bias, float sx);

}  // namespace qc
