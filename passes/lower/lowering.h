// Rules that lower-quant applies besides its own: how a pattern of dequantize, an integrator's op and quantize becomes integers.
#pragma once

#include "ir/rewriter.h"

namespace qc {

// Tried in front of the built-in rules, the one registered first before the others.  Not to be called while passes run.
// Errors: the name is taken or empty; no function; a pattern without an op at its root.
Status registerLowering(RewriteRule rule);

}  // namespace qc
