// Samples that stand for all: one for each way through the branches that data decides, with the share of samples that go it.
//
//   QC_ASSIGN(const std::vector<Way> ways, waysOf(graph, samples, 16));
//   // the mean time over the samples is the sum of way.share * time of samples.sample(way.sample)
#pragma once

#include <vector>

#include "frontend/data/dataset.h"
#include "ir/graph.h"

namespace qc {

struct Way {
  int64_t sample = 0;
  double share = 1;
};

// Of at most so many samples, evenly spread, one of each way, the ways of most samples first: of what is as large as data decides it is the
// sample with the median number of elements.  Of a graph without either the first sample.  Ways that are not among the most common count to
// none.  Error: there are no samples.
inline constexpr size_t kMostWays = 8;
Result<std::vector<Way>> waysOf(const Graph& graph, const Dataset& samples, int64_t most, int threads = 1);

}  // namespace qc
