// What the passes that differentiate a graph share: the one number that is differentiated, and the values it is differentiated with.
#pragma once

#include <string>
#include <vector>

#include "ir/gradient.h"

namespace qc {

// The output of this name, or the only one where it is empty.  Errors: there is none, it is not one float, its sizes are not known.
Result<Value*> lossOf(const Graph& graph, const std::string& name);
// Floats of these names, with commas between them.
Result<std::vector<Value*>> valuesNamed(const Graph& graph, std::string_view list);
// Null where nothing of the value arrives at the loss.
Result<Gradients> gradientsOf(Builder& b, Value* loss, const std::vector<Value*>& with);

}  // namespace qc
