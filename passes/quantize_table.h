// The part of convert that turns an embedding table into bytes with a float scale and zero point per row.
#pragma once

#include "ir/graph.h"

namespace qc {

// Replaces the result of `gather`, whose operand 0 is a float32 constant.  Errors: anything but a u8 table whose rows are gathered.
Status quantizeTable(Node* gather, const ObservedSpec& spec);

}  // namespace qc
