// A graph to look at: what became of each node by colour, as SVG with places of our own or as text for Graphviz.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ir/graph.h"

namespace qc::report {

enum class Fate : uint8_t { integer, real, border, end };  // border: quantize and dequantize; end: inputs and outputs of the model

const char* wordOf(Fate fate);  // and class of the style sheet

struct GraphPicture {
  struct Node {
    std::string op, name, detail = {};  // any bytes
    Fate fate = Fate::real;
    int64_t count = 1;  // of the nodes that this stands for
  };
  std::vector<Node> nodes;  // in an order in which they could run
  std::vector<std::pair<int, int>> edges;
  std::string note = {};  // what is not shown

  // Constants are left out.  A node with integers that stand for real numbers among its operands or results is integer.
  // details: more about a node, by its location.
  static GraphPicture of(const Graph& graph, const std::map<std::string, std::string>& details = {});
  // Of a graph of more than so many nodes: chains of one fate become one box, and if that does not do, what comes first is shown.
  GraphPicture readable(size_t most) const;

  std::string dot() const;
  std::string svg() const;
};

}  // namespace qc::report
