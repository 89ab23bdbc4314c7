// Rules that lower-quant applies besides its own: how a pattern of dequantize, an integrator's op and quantize becomes integers.
#pragma once

#include "ir/rewriter.h"

namespace qc {

// Tried in front of the built-in rules.  Not to be called while passes run.
void registerLowering(RewriteRule rule);

}  // namespace qc
