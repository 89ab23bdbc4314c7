// Losses as IR: one number of a batch, the mean over its items as PyTorch's functions have it.  Batches are the first dim.
#pragma once

#include "ir/graph.h"

namespace qc {

// -log softmax(logits)[label]: logits [N, classes] (or [N, ..., classes]), labels s32 or s64 [N] (or [N, ...]).
Result<Value*> crossEntropyLoss(Builder& b, Value* logits, Value* labels);
// Means over all elements.
Result<Value*> squaredErrorLoss(Builder& b, Value* y, Value* target);
Result<Value*> absoluteErrorLoss(Builder& b, Value* y, Value* target);
// T^2 KL(softmax(teacher / T) || softmax(logits / T)) along a dim, the last where it is -1, summed there, the mean of the rest.
Result<Value*> distillationLoss(Builder& b, Value* logits, Value* teacher, float temperature, int axis = -1);

}  // namespace qc
