// What a graph is, at a glance.
#pragma once

#include "ir/graph.h"

namespace qc {

// Whether it holds integers that stand for real numbers: of quantize/dequantize form, of integer ops, or with parameters found at run time.
bool isQuantized(const Graph& graph);

}  // namespace qc
