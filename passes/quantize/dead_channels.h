// What calibration has to look at for dead-channels.
#pragma once

#include "passes/quantize/channel_noise.h"

namespace qc {

// The axis of the channels of this value of a simplified float graph, if layers read them; -1 if not.
int readChannelAxis(const Value& value);

}  // namespace qc
