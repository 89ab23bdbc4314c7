// The part of fuse-elementwise that other passes need, which make elementwise ops behind it.
#pragma once

#include "ir/graph.h"
#include "ir/status.h"

namespace qc {

// Elementwise ops of floats, and maps of them, become one map with what computes their inputs; returns how many maps were made.
Result<int> fuseMaps(Graph& graph);

}  // namespace qc
