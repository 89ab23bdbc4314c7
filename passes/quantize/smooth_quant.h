// What calibration has to look at for smooth-quant.
#pragma once

#include "passes/quantize/channel_noise.h"

namespace qc {

// Whether smooth-quant could do something about this value of a simplified float graph, if it knew its statistics.  Channels are the last
// dim.
bool isSmoothable(const Value& value);

}  // namespace qc
