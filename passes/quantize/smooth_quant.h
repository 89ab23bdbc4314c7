// What calibration has to look at for smooth-quant.
#pragma once

#include "passes/quantize/channel_noise.h"

namespace qc {

// The axis of the channels of this value of a simplified float graph, its last, if smooth-quant could do something about it once it knows
// its statistics; -1 if not.
int smoothableAxis(const Value& value);

}  // namespace qc
