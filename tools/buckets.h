// The sizes that one object holds a model at.
#pragma once

#include <string>
#include <vector>

#include "codegen/aot.h"
#include "tools/common.h"
#include "tools/size_list.h"

namespace qc::tools {

// Whether one of the lists has several sizes, so that there are buckets at all.
bool hasSeveral(const std::vector<SizeList>& lists);

// Every size of each list with every size of the others, the smaller ones first.  The model is read and lowered once, with the dims of
// these lists free.  Error: its dims cannot stay free; dims without a size, all at once; sizes that contradict each other.
Result<AotBuckets> bucketsOf(const ModelOptions& model, const std::vector<SizeList>& lists);

}  // namespace qc::tools
