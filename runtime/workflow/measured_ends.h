// Where noise at the outputs of a model is measured.  Indices and labels have none of their own: a label that is right by a hair and one
// that is right by far are the same.
#pragma once

#include <vector>

#include "ir/graph.h"

namespace qc {

// For each output the output, where it holds floats, or integers that stand for some; else the nearest float value that it is computed
// from. An output that no floats go into, or those of another one, is itself.
std::vector<const Value*> measuredEnds(const Graph& graph);

}  // namespace qc
