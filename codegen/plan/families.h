// The functions that rows of kernels.def name, one block per family of kernels.  No LLVM here.
#pragma once

#include "codegen/plan/kernel.h"

namespace qc {

// Matrix products and convolutions as implicit GEMM: emit/conv_gemm.cpp, gemm_isa.h.
struct GemmIsa;
extern const GemmIsa kGemmU8Amx, kGemmU8Avx512Vnni, kGemmU8AvxVnni, kGemmU8Avx512Pairs, kGemmU8Avx2Pairs, kGemmS16Avx512, kGemmS16Avx2,
    kGemmS16Generic;
extern const GemmIsa kGemmU8I8mm, kGemmU8Dotprod, kGemmF32Neon;
extern const GemmIsa kGemmF32Avx512, kGemmF32Avx2, kGemmF32Generic;
bool supportsConvGemm(const KernelDef& def, const Node& node, const Target& target);
double costConvGemm(const KernelDef& def, const Node& node, const Target& target);
Result<KernelShape> emitConvGemm(KernelEmitter& e, const Node& node);
Result<Node*> packConvGemm(const KernelDef& def, const Node& node, Builder& builder);

// emit/weight_panel.cpp: float linear layers over integer weights, on the same rows
bool supportsWeightLinear(const KernelDef& def, const Node& node, const Target& target);
double costWeightLinear(const KernelDef& def, const Node& node, const Target& target);
Result<Node*> packWeightLinear(const KernelDef& def, const Node& node, Builder& builder);

// emit/elementwise.cpp: map, quantize, dequantize, lut

bool supportsMap(const KernelDef&, const Node& node, const Target&);
double costMap(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitMap(KernelEmitter& e, const Node& node);
bool supportsQuantize(const KernelDef&, const Node& node, const Target&);
double costQuantize(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitQuantize(KernelEmitter& e, const Node& node);
bool supportsDequantize(const KernelDef&, const Node& node, const Target&);
Result<KernelShape> emitDequantize(KernelEmitter& e, const Node& node);
bool supportsLut(const KernelDef&, const Node& node, const Target&);
double costLut(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitLut(KernelEmitter& e, const Node& node);

// emit/pool.cpp: max_pool, avg_pool, q.avg_pool
bool supportsPool(const KernelDef&, const Node& node, const Target&);
double costPool(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitMaxPool(KernelEmitter& e, const Node& node);
Result<KernelShape> emitAvgPool(KernelEmitter& e, const Node& node);
Result<KernelShape> emitQuantizedAvgPool(KernelEmitter& e, const Node& node);

// emit/plain.cpp: integers, bools and casts
bool supportsPlain(const KernelDef&, const Node& node, const Target& target);
double costPlain(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitPlain(KernelEmitter& e, const Node& node);

// emit/pool.cpp: lrn
bool supportsLrn(const KernelDef&, const Node& node, const Target&);
double costLrn(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitLrn(KernelEmitter& e, const Node& node);

// emit/rows.cpp: softmax, norms and reductions
bool supportsSoftmax(const KernelDef&, const Node& node, const Target&);
double costSoftmax(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitSoftmax(KernelEmitter& e, const Node& node);
bool supportsNorm(const KernelDef&, const Node& node, const Target&);
double costNorm(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitNorm(KernelEmitter& e, const Node& node);
bool supportsReduction(const KernelDef&, const Node& node, const Target&);
double costReduction(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitSum(KernelEmitter& e, const Node& node);
Result<KernelShape> emitQuantizedMean(KernelEmitter& e, const Node& node);
Result<KernelShape> emitExtreme(KernelEmitter& e, const Node& node);
Result<KernelShape> emitArg(KernelEmitter& e, const Node& node);

// emit/dynamic.cpp: parameters found at run time
bool supportsDynamicParams(const KernelDef&, const Node& node, const Target&);
double costDynamicParams(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitDynamicParams(KernelEmitter& e, const Node& node);

// emit/copy.cpp: ops that move elements
bool supportsCopy(const KernelDef&, const Node& node, const Target&);
double costCopy(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitCopy(KernelEmitter& e, const Node& node);

// emit/gather.cpp: gather, q.embedding
bool supportsGather(const KernelDef&, const Node& node, const Target&);
double costGather(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitGather(KernelEmitter& e, const Node& node);
bool supportsEmbedding(const KernelDef&, const Node& node, const Target&);
double costEmbedding(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitEmbedding(KernelEmitter& e, const Node& node);

// emit/index.cpp: ops that address elements by indices
bool supportsGatherNd(const KernelDef&, const Node& node, const Target&);
double costGatherNd(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitGatherNd(KernelEmitter& e, const Node& node);
bool supportsGatherElements(const KernelDef&, const Node& node, const Target&);
double costGatherElements(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitGatherElements(KernelEmitter& e, const Node& node);
bool supportsScatterNd(const KernelDef&, const Node& node, const Target&);
double costScatterNd(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitScatterNd(KernelEmitter& e, const Node& node);
bool supportsScatterElements(const KernelDef&, const Node& node, const Target&);
double costScatterElements(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitScatterElements(KernelEmitter& e, const Node& node);
bool supportsOneHot(const KernelDef&, const Node& node, const Target&);
double costOneHot(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitOneHot(KernelEmitter& e, const Node& node);
bool supportsTrilu(const KernelDef&, const Node& node, const Target&);
double costTrilu(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitTrilu(KernelEmitter& e, const Node& node);
bool supportsReverseSequence(const KernelDef&, const Node& node, const Target&);
double costReverseSequence(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitReverseSequence(KernelEmitter& e, const Node& node);

// emit/scan.cpp: rows in order
bool supportsCumsum(const KernelDef&, const Node& node, const Target&);
double costCumsum(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitCumsum(KernelEmitter& e, const Node& node);
bool supportsTopK(const KernelDef&, const Node& node, const Target&);
double costTopK(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitTopK(KernelEmitter& e, const Node& node);
bool supportsFold(const KernelDef&, const Node& node, const Target&);
double costFold(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitFold(KernelEmitter& e, const Node& node);

// emit/resize.cpp: resize, q.resize
bool supportsResize(const KernelDef&, const Node& node, const Target&);
double costResize(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitResize(KernelEmitter& e, const Node& node);

// emit/recurrent.cpp: lstm_steps, gru_steps, rnn_steps and their q.dynamic_ forms
bool supportsRecurrence(const KernelDef&, const Node& node, const Target&);
double costRecurrence(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitRecurrence(KernelEmitter& e, const Node& node);

// emit/matmul.cpp: matmul, q.matmul
bool supportsMatmul(const KernelDef&, const Node& node, const Target&);
double costMatmul(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitMatmul(KernelEmitter& e, const Node& node);

// emit/thin_conv.cpp: convolutions to a few channels
bool supportsThinConv(const KernelDef&, const Node& node, const Target&);
double costThinConv(const KernelDef&, const Node& node, const Target& target);
Result<KernelShape> emitThinConv(KernelEmitter& e, const Node& node);

// emit/depthwise.cpp
struct DepthwiseIsa;
extern const DepthwiseIsa kDepthwiseAvx512Vnni, kDepthwiseAvxVnni, kDepthwiseAvx2, kDepthwiseGeneric;
extern const DepthwiseIsa kDepthwiseF32Avx512, kDepthwiseF32Avx2, kDepthwiseF32Generic;
bool supportsDepthwise(const KernelDef& def, const Node& node, const Target& target);
double costDepthwise(const KernelDef& def, const Node& node, const Target& target);
Result<Node*> packDepthwise(const KernelDef& def, const Node& node, Builder& builder);
Result<KernelShape> emitDepthwise(KernelEmitter& e, const Node& node);

}  // namespace qc
