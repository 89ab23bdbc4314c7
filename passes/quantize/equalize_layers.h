// What calibration has to look at for equalize-layers.
#pragma once

#include "passes/quantize/channel_noise.h"

namespace qc {

// The axis of the channels of this value of a simplified float graph, if equalize-layers could do something about it once it knows its
// statistics; -1 if not.
int equalizableAxis(const Value& value);

}  // namespace qc
