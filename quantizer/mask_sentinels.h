// Attention masks: a large negative constant (-inf, -1e4, -1e9, the lowest float) added to scores in front of a softmax, or chosen instead
// of them.  It stands for "not at all" and is not a value of the data: the range of an observer that sees it is useless.  What reads such
// values beside the softmax stays float as well.
#pragma once

#include <map>

#include "ir/graph.h"

namespace qc {

// The nodes between such a constant and the softmax whose results may hold it, each with the constant's value.
std::map<const Node*, double> nodesWithSentinels(const Graph& graph);

}  // namespace qc
