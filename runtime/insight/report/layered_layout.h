// Places for the nodes of a graph without cycles: rows from top to bottom, each node below all it reads, long lines led around others.
// Layers by longest path, order within them by barycenters, places by the means of the neighbours (the scheme of K. Sugiyama et al.,
// IEEE Trans. SMC 11, 1981).
#pragma once

#include <span>
#include <utility>
#include <vector>

namespace qc::report {

struct Place {
  double x = 0, y = 0;  // of the middle of a box
};

struct Layout {
  std::vector<Place> nodes;
  std::vector<std::vector<Place>> lines;  // one for each edge; empty: one that was passed over
  double width = 0, height = 0;
};

struct BoxSize {
  double width = 160, height = 34, across = 18, down = 26;  // and the gaps between boxes
};

// Edges go from a lower to a higher number; others are passed over.
Layout layered(size_t nodes, std::span<const std::pair<int, int>> edges, const BoxSize& box = {});

}  // namespace qc::report
