// The gradient functions of ops, a file for each kind; the declarations of ops (OpDef::gradient) refer to them.
#pragma once

#include "ir/gradient.h"

namespace qc {

// The operands of a formula, for GradientContext::map().
inline const ScalarExpr kArg0 = ScalarExpr::arg(0), kArg1 = ScalarExpr::arg(1), kArg2 = ScalarExpr::arg(2);

// reduce_gradients.cpp
Result<Gradients> sumGradient(GradientContext& c);
Result<Gradients> meanGradient(GradientContext& c);
Result<Gradients> productGradient(GradientContext& c);
Result<Gradients> extremeGradient(GradientContext& c);
Result<Gradients> topkGradient(GradientContext& c);
Result<Gradients> cumsumGradient(GradientContext& c);

// conv_gradients.cpp
Result<Gradients> convGradient(GradientContext& c);
Result<Gradients> convTransposeGradient(GradientContext& c);

// product_gradients.cpp
Result<Gradients> linearGradient(GradientContext& c);
Result<Gradients> matmulGradient(GradientContext& c);

// pool_gradients.cpp
Result<Gradients> averageGradient(GradientContext& c);
Result<Gradients> maxPoolGradient(GradientContext& c);

// norm_gradients.cpp
Result<Gradients> batchNormGradient(GradientContext& c);
Result<Gradients> layerNormGradient(GradientContext& c);
Result<Gradients> groupNormGradient(GradientContext& c);  // and of instance_norm
Result<Gradients> lrnGradient(GradientContext& c);
Result<Gradients> softmaxGradient(GradientContext& c);
Result<Gradients> logSoftmaxGradient(GradientContext& c);

// movement_gradients.cpp
Result<Gradients> reshapeGradient(GradientContext& c);
Result<Gradients> transposeGradient(GradientContext& c);
Result<Gradients> sliceGradient(GradientContext& c);
Result<Gradients> padGradient(GradientContext& c);
Result<Gradients> concatGradient(GradientContext& c);
Result<Gradients> splitGradient(GradientContext& c);
Result<Gradients> expandGradient(GradientContext& c);
Result<Gradients> tileGradient(GradientContext& c);
Result<Gradients> depthToSpaceGradient(GradientContext& c);
Result<Gradients> spaceToDepthGradient(GradientContext& c);
Result<Gradients> resizeGradient(GradientContext& c);
Result<Gradients> castGradient(GradientContext& c);

// index_gradients.cpp
Result<Gradients> gatherGradient(GradientContext& c);
Result<Gradients> gatherElementsGradient(GradientContext& c);
Result<Gradients> gatherNdGradient(GradientContext& c);
Result<Gradients> scatterElementsGradient(GradientContext& c);
Result<Gradients> scatterNdGradient(GradientContext& c);
Result<Gradients> oneHotGradient(GradientContext& c);
Result<Gradients> triluGradient(GradientContext& c);
Result<Gradients> reverseSequenceGradient(GradientContext& c);

// fake_quantize_gradient.cpp
Result<Gradients> fakeQuantizeGradient(GradientContext& c);

// recurrent_gradients.cpp
Result<Gradients> recurrentGradient(GradientContext& c);

// ---- what they share ----
// x with its channels behind the batch, where the node has them last; and back.
Value* withChannelsFirst(GradientContext& c, Value* x);
Value* withChannelsAsNode(GradientContext& c, Value* x);
// x, in the node's layout, with its channels last.
Value* withChannelsLast(GradientContext& c, Value* x);
// What arrives at the sums of a product, and at its residual (null: it has none), through what its `post` makes of them.
struct ArrivingAtSums {
  Value *sums, *residual = nullptr;
};
ArrivingAtSums arrivingAtSums(GradientContext& c);

}  // namespace qc
