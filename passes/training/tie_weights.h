// Constants that are made of one tensor of the model, as the one parameter that they are (pass tie-weights).
#pragma once

#include <string>
#include <vector>

#include "ir/constant_view.h"

namespace qc {

struct TiedWeight {
  std::string constant;   // of the graph before
  std::string parameter;  // the constant that it is made of now
  ConstantView view;
};
Result<std::vector<TiedWeight>> tieWeightsOf(Graph& graph);

}  // namespace qc
