// Verbs that run long and leave a checkpoint: Ctrl-C and the signal of a job runner end the run there; a second one ends it at once.
#pragma once

#include <atomic>

namespace qc::tools {

const std::atomic<bool>* stopOnSignals();  // set by the first of them

}  // namespace qc::tools
