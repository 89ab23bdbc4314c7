// Labels, scores and answers as the verbs that measure classifiers take and print them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "frontend/data/labels.h"
#include "tools/common.h"

namespace qc::tools {

// The first output, or the one that is named; it holds numbers for each class.
Result<std::string> scoresOutput(const Model& model, const std::string& named);

// The label of sample i.  Error: there is none, or what output `name` holds has no such class.
Result<int64_t> labelOf(const Labels& labels, const Dataset& data, int64_t i, const Tensor& output, const std::string& name);

// A cell of a CSV table (RFC 4180): in quotes where it needs them.  One that a spreadsheet would take for a formula begins with an
// apostrophe.
std::string csvCell(std::string_view text);

}  // namespace qc::tools
