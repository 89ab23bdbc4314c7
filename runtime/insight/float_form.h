// The float model that a quantized one stands for: without its quantize and dequantize, weights in float as they were rounded.
#pragma once

#include "ir/graph.h"

namespace qc {

// Of a graph in quantize/dequantize form.  What the ranges clipped is no longer clipped; inputs that are integers stay so, outputs become
// float. A graph without integers is given back as it is.  Error: integers that no quantize/dequantize stands around (dynamic files, ops of
// integers): names the node.
Result<Graph> floatForm(const Graph& quantized);

}  // namespace qc
