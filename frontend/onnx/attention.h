// What the attention ops of ONNX's own domain and of com.microsoft are made of.
#pragma once

#include "frontend/onnx/node.h"

namespace qc {

// The number of queries, of keys with those of the past, and of the past alone.
struct AttentionSizes {
  DimExpr queries, keys, past;
};

// [batch, sequence, heads * size] -> [batch, heads, sequence, size]; four dims are in that form already.
Result<Value*> splitHeads(OnnxNode& n, Value* v, int64_t heads);
// Back again.
Result<Value*> joinHeads(OnnxNode& n, Value* v);
// 0 where a query sees a key by its place, else -inf: [queries, keys].
Result<Value*> causalBias(OnnxNode& n, const AttentionSizes& sizes);
// `present` [batch, heads, sequence, size] behind `past`, if there is one.
Result<Value*> behindPast(OnnxNode& n, Value* past, Value* present);
// So many elements from `start` on along one dim.
Result<Value*> slicedAlong(OnnxNode& n, Value* v, size_t dim, int64_t start, const DimExpr& size, int64_t step = 1);

struct Rotation {
  Value *cos, *sin;  // by batch entry, or for all, place and pair: [batch or 1, sequence, pairs]
  int64_t turned;    // elements of a head, from the first on: twice the pairs
  bool interleaved;  // element 2i and 2i + 1 are a pair, not i and i + pairs
};
// x: [batch, sequence, heads * size], or [batch, heads, sequence, size] where `heads` is 0.
Result<Value*> rotated(OnnxNode& n, Value* x, int64_t heads, const Rotation& rotation);

}  // namespace qc
