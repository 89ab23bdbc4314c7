// conv_weight_gradient, the op that the gradients of convolutions are built of: products of two activations, summed over images and pixels.
#pragma once

#include "ir/op_def.h"

namespace qc {

void registerWeightGradientOps(OpRegistry& registry);

// The positions p, from `first` to in front of `last`, at which tap number `tap` of one dim reads inside of x.
struct TapRange {
  int64_t first, last;
};
TapRange tapRange(int64_t in, int64_t out, int64_t tap, int64_t stride, int64_t dilation, int64_t pad);

}  // namespace qc
