// The passes of this room, one function each in the file of the same name.  pipelines.cpp makes them rows.
#pragma once

#include "passes/pass.h"

namespace qc {

// Float stage: simplify, recognise, fold.
Status canonicalize(Graph& graph, PassContext& cx);
Status recognizeActivations(Graph& graph, PassContext& cx);
Status recognizeMeans(Graph& graph, PassContext& cx);
Status recognizeInteger(Graph& graph, PassContext& cx);
Status foldBatchNorm(Graph& graph, PassContext& cx);
Status cse(Graph& graph, PassContext& cx);
Status dce(Graph& graph, PassContext& cx);
Status foldConstants(Graph& graph, PassContext& cx);

// Quantization: float -> observed -> qdq -> quant.
Status annotate(Graph& graph, PassContext& cx);
Status prepare(Graph& graph, PassContext& cx);
Status equalizeLayers(Graph& graph, PassContext& cx);
Status smoothQuant(Graph& graph, PassContext& cx);
Status roundWeights(Graph& graph, PassContext& cx);
Status correctBias(Graph& graph, PassContext& cx);
Status convert(Graph& graph, PassContext& cx);
Status quantizeIo(Graph& graph, PassContext& cx);
Status duplicateDequantize(Graph& graph, PassContext& cx);
Status lowerQuant(Graph& graph, PassContext& cx);
Status referenceOps(Graph& graph, PassContext& cx);
Status lowerDynamic(Graph& graph, PassContext& cx);
Status lowerWeights(Graph& graph, PassContext& cx);

// Towards kernels, float and quantized graphs alike.
Status bindShapes(Graph& graph, PassContext& cx);
Status unsignedActivations(Graph& graph, PassContext& cx);
Status fuseElementwise(Graph& graph, PassContext& cx);
Status projectRecurrences(Graph& graph, PassContext& cx);
Status layout(Graph& graph, PassContext& cx);
Status splitConvTranspose(Graph& graph, PassContext& cx);
Status expandDynamic(Graph& graph, PassContext& cx);

}  // namespace qc
