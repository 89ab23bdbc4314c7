// Integers of a layer's weights that change its result least, found by coordinate descent: what round-weights and reconstruct share.
// With H = sum of x x^T over what an output multiplies, the squared change of an output channel is d^T H d, where d = s * q - w; where the
// result lacks something besides, with m = sum of (what it lacks) * x, it is d^T H d - 2 d^T m.  Starting from the nearest integers, one
// integer after the other moves to where this is least given all others, until none moves: the problem that GPTQ and AdaRound approximate.
// Each channel does so under several scales and takes the best.
#pragma once

#include <span>

#include "ir/graph.h"
#include "quantizer/layer_statistics.h"

namespace qc {

// A conv or linear layer whose int8 weights are still to be rounded, and are read by it alone: one that others read keeps one set of
// integers, the nearest.
bool isRoundable(const Node& node);

// Its weight becomes what the best integers stand for, and its spec the fixed parameters, so that convert finds the same integers.
// missing: [channels, depth], or nothing.  False: there is nothing to go by, what there is
// is not finite, or parameters are not of the kind; nothing is changed.
Result<bool> roundLayer(Graph& graph, Node* layer, const LayerStatistics& statistics, std::span<const float> missing, int64_t maxScales,
                        int64_t& moved);

// A stand-in for data: H_ij = correlation ^ |i - j|.
LayerStatistics correlatedInputs(const Node& layer, double correlation);

}  // namespace qc
