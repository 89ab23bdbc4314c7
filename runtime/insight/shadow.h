// A quantized model cut at the borders of its layers: each reads what it is given, not what the layer in front made, and shows its own
// error alone.  What its data decides the sizes of is given as well, so that all of it has the sizes of the reference.
#pragma once

#include <string>
#include <vector>

#include "runtime/insight/pairing.h"

namespace qc {

struct Shadow {
  Graph graph;
  struct Feed {
    std::string input;  // of the graph, beside those of the model
    ValuePair pair;     // whose value it takes
  };
  std::vector<Feed> feeds;
  std::vector<std::string> results;  // by layer: the value that it gives, rounded where its parameters are known; empty: it has none
};

Result<Shadow> shadowOf(const Graph& actual, const Pairing& pairing);

}  // namespace qc
