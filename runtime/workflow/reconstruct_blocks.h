// All layers of a block at once, behind those that were reconstructed one by one: see reconstruct_blocks.cpp.
#pragma once

#include "runtime/workflow/blocks.h"
#include "runtime/workflow/recipes.h"

namespace qc {

constexpr size_t kFewestBlockSamples = 50;

// Moves integers and biases of the block's layers that were reconstructed, in the graph that the recovery edits, where that brings the
// block's result nearer to the float model's on samples that were left out of it.  A block that cannot be trained stays, with a remark.
Status reconstructBlock(LayerRecovery& recovery, const Block& block);

}  // namespace qc
