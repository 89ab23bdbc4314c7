// A graph cut behind the nodes whose data decides sizes (ir/decided_sizes.h): graphs with free dims that run one after another, each
// planned for the sizes that are known when its turn comes.
//
//   QC_ASSIGN(const CutGraph cut, cutAtDecidedSizes(graph));
//   QC_ASSIGN(TensorMap outputs, cut.run(inputs, [&](size_t i, const auto& in) { return runSegment(cut.segments[i].graph, in); }));
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ir/graph.h"

namespace qc {

// Its inputs and outputs have the names of the values in the whole graph.  A symbol that its inputs do not show has an input of its own, a
// tensor of no elements with that size.
struct Segment {
  Graph graph;
  bool decides = false;  // one node, which decides sizes
};

struct CutGraph {
  Graph interface;  // the inputs of the whole and what is assumed of their sizes, and nothing else
  std::vector<Segment> segments;
  std::vector<std::string> outputs, values;      // of the whole, and the value that each of them is
  std::map<std::string, Tensor> constants;       // outputs that are some
  std::map<std::string, std::string> sizeInput;  // symbol -> name of the inputs that have its size

  using Tensors = std::map<std::string, Tensor>;
  // Runs a segment, not one that decides, on the values that it reads: its outputs by name.
  using RunSegment = std::function<Result<Tensors>(size_t segment, const Tensors& inputs)>;
  Result<Tensors> run(const Tensors& inputs, const RunSegment& runSegment) const;
};

// Error: a size that nothing decides before it is asked for.
Result<CutGraph> cutAtDecidedSizes(const Graph& graph);

}  // namespace qc
