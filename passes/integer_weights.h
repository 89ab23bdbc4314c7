// Weights of layers whose arithmetic is written out in integers (MatMulInteger, ConvInteger): 8 bits in the model, widened to s32 by a
// cast, their zero point taken off behind it.  They are read through that chain, so that nobody needs the copy that is four times as large.
#pragma once

#include <optional>

#include "ir/graph.h"
#include "ir/signed_index.h"

namespace qc {

struct IntegerWeights {
  const Tensor* values = nullptr;  // s32, or u8 or s8
  const Tensor* zero = nullptr;    // s32, along one dim at most; null: none
  int64_t zeroInner = 1;           // elements of a weight between two of its zero point

  // Constants only; nothing for anything else.
  static std::optional<IntegerWeights> of(const Value* v);
  // Element i as the arithmetic sees it.
  int32_t at(int64_t i) const {
    const int32_t v = values->dtype() == DType::s32  ? nth(values->as<int32_t>(), i)
                      : values->dtype() == DType::s8 ? nth(values->as<int8_t>(), i)
                                                     : nth(values->as<uint8_t>(), i);
    return zero ? static_cast<int32_t>(int64_t{v} - nth(zero->as<int32_t>(), i / zeroInner % zero->numElements())) : v;
  }
};

// Whether a node is part of such a chain, and all that reads its end are layers that have it for weights.
bool widensWeights(const Node& node);

}  // namespace qc
