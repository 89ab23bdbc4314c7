// Where samples lie in what ops read and write of which the traits and attributes of their declarations do not say it: the functions that
// declarations name (OpDef::batch).
#pragma once

#include "ir/batch_dims.h"

namespace qc {

using BatchOf = std::optional<BatchDims>(const Node& node, std::span<const int> dims);

BatchOf leadingBatch;     // in dim 0 of all data
BatchOf batchOfRows;      // in front of the last dim of operand 0, the rest the same for all
BatchOf batchOfMatrices;  // of the last two
BatchOf batchBesideAxis;  // in another dim than the attribute `axis`

BatchOf batchOfLayerNorm;
BatchOf batchOfResize;
BatchOf batchOfMatmul;
BatchOf batchOfDynamicLinear;
BatchOf batchOfPackedLinear;
BatchOf batchOfPackedEmbedding;
BatchOf batchOfDynamicParams;
BatchOf batchOfGivenParams;
BatchOf batchOfReshape;
BatchOf batchOfTranspose;
BatchOf batchOfExpand;
BatchOf batchOfGather;
BatchOf batchOfGatherNd;
BatchOf batchOfScatterNd;
BatchOf batchOfOneHot;
BatchOf batchOfReverseSequence;
BatchOf batchOfRecurrence;

}  // namespace qc
