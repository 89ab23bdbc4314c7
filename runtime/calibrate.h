// Runs samples through a prepared graph and feeds its observers.
#pragma once

#include "runtime/model.h"

namespace qc {

// `graph` holds observe nodes (observed stage).
Result<Ranges> observeSamples(Graph graph, const Dataset& samples, const CalibrateOptions& options);

}  // namespace qc
