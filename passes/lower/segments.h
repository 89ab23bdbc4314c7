// A graph cut behind the nodes whose data decides sizes (ir/decided_sizes.h) or which branch is taken (ir/branches.h): graphs with free
// dims that run one after another, each planned for the sizes that are known when its turn comes.  Those of branches that are not taken are
// left out; the body of a loop (ir/loops.h) is run once a round.
//
//   QC_ASSIGN(const CutGraph cut, cutAtDecidedSizes(graph));
//   QC_ASSIGN(TensorMap outputs, cut.run(inputs, [&](size_t i, const auto& in) { return runGraph(*cut.segments[i].program(), in); }));
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace qc {

// Its inputs and outputs have the names of the values in the whole graph.  A symbol that its inputs do not show has an input of its own, a
// tensor of no elements with that size.
struct Segment {
  Graph graph;
  bool decides = false;                              // one node, which decides sizes, takes one of two tensors or is a loop
  std::vector<std::pair<std::string, bool>> guards;  // values that must be true or false for it to run, outermost first
  std::map<std::string, std::string> sizes;          // those inputs -> symbol
  std::vector<std::string> lastReads;                // values that nothing behind it reads
  const Graph* program() const;                      // what has to be run for it: the graph, or the body of a loop; null: nothing
};

struct CutGraph {
  Graph interface;  // the inputs of the whole and what is assumed of their sizes, and nothing else
  std::vector<Segment> segments;
  std::vector<std::string> outputs, values;  // of the whole, and the value that each of them is
  std::vector<Tensor> absent;                // what stands for an output that is not computed: a tensor of no elements
  std::map<std::string, Tensor> constants;   // outputs and conditions that are some

  using Tensors = std::map<std::string, Tensor>;
  // Runs the program of a segment on the values that it reads: its outputs by name.
  using RunSegment = std::function<Result<Tensors>(size_t segment, const Tensors& inputs)>;
  // A node that has decided: what it gives, and where it takes one of two tensors whether its condition holds.
  struct Decision {
    const Segment& segment;
    const Node& node;
    std::span<const Tensor> results;
    std::optional<bool> holds = {};
    double seconds = 0;
  };
  using SeeDecision = std::function<Status(const Decision&)>;
  Result<Tensors> run(const Tensors& inputs, const RunSegment& runSegment, const SeeDecision& see = {}) const;
};

// The first `needed` outputs are computed for all inputs, the others where what leads to them is.  Error: a size that nothing decides
// before it is asked for.
Result<CutGraph> cutAtDecidedSizes(const Graph& graph, size_t needed = SIZE_MAX);

}  // namespace qc
