// Inputs and outputs of two models of one origin.
#pragma once

#include <vector>

#include "frontend/data/dataset.h"
#include "ir/graph.h"

namespace qc {

// Whether values of these shapes may be one: no two sizes contradict each other.
bool mayBeOne(const Shape& a, const Shape& b);

// The output of the actual model that stands for each of the reference: by name where both have the same names, else by their order.
// Errors: the actual model has an input that the reference has none of, by name and kind of type, so that their samples differ; another
// number of outputs.
Result<std::vector<size_t>> pairOutputs(const Graph& reference, const Graph& actual);

// A sample of the reference as the actual model takes it: its inputs alone, floats in its type of floats.
Sample sampleFor(const Graph& actual, const Sample& sample);

// A copy of the actual graph with its outputs in the order, and under the names, of the reference.  Errors: those of pairOutputs().
Result<Graph> withOutputsOf(const Graph& reference, const Graph& actual);

}  // namespace qc
