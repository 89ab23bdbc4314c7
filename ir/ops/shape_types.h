// Types of the results of the ops that move elements (shape.cpp); what they cannot take is refused.
#pragma once

#include "ir/ops/infer_util.h"

namespace qc {

Result<Types> inferConst(const InferContext& c);
Result<Types> inferDims(const InferContext& c);
Result<Types> inferReshape(const InferContext& c);
Result<Types> inferTranspose(const InferContext& c);
Result<Types> inferConcat(const InferContext& c);
Result<Types> inferSplit(const InferContext& c);
Result<Types> inferSlice(const InferContext& c);
Result<Types> inferPad(const InferContext& c);
Result<Types> inferExpand(const InferContext& c);
Result<Types> inferTile(const InferContext& c);
Result<Types> inferDepthSpace(const InferContext& c, bool toSpace);

}  // namespace qc
