// --require-int8: what must be quantized, or the command fails.
#pragma once

#include <string>
#include <vector>

#include "quantizer/quantizer.h"

namespace qc::tools {

// Each text is a share of the ops ("0.9", "90%") or a regular expression on names of nodes, all of which must be quantized.
// Errors: a text that is neither; a regular expression that matches no node; what stayed float, with the reasons.
Status requireInt8(const CoverageReport& coverage, const std::vector<std::string>& texts);

// What a user must not find out alone: nothing of this graph was quantized.  Empty: something was.
std::string nothingQuantized(const CoverageReport& coverage, const Graph& graph);

}  // namespace qc::tools
