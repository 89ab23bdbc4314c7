// Which points of an annotated graph share one observer: the sharing groups of PT2E, by union-find.
//
// A point is the output of a node or one operand edge of a consumer.  Points join explicitly (SharedSpec) and implicitly: an edge
// joins equal edges from the same value, then that value's own output.  Bad references are reported before anything is grouped.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/quant_spec.h"
#include "ir/status.h"

namespace qc {

struct SharingGroups {
  std::map<EdgeOrNode, int> groupOf;             // every point that has a spec; edges of constants and derived specs excluded
  std::vector<QuantSpec> specs;                  // by group: the spec of its first member in graph order, never shared
  std::vector<std::vector<EdgeOrNode>> members;  // in graph order
};

// Errors: a share with a point that is not annotated, that comes later, or with itself around a cycle; the chain is in the message.
Result<SharingGroups> computeSharingGroups(const Graph& graph);

std::string toString(const EdgeOrNode& point);  // "%y" or "%y:1"

}  // namespace qc
