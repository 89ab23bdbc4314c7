// The part of convert that gives derived specs their parameters and rounds what they sit on.
#pragma once

#include "ir/graph.h"

namespace qc {

// Operand `operand` of `node`, or its result with -1, is rounded with the parameters that `spec` derives.  Everything the spec starts
// from is converted already.  Errors: a source that is not quantized, or not yet.
Status convertDerived(Node* node, int operand, const DerivedSpec& spec);

}  // namespace qc
