// Weights of layers whose arithmetic is written out in integers (MatMulInteger, ConvInteger): 8 bits in the model, widened to s32 by a
// cast, their zero point taken off behind it.  They are read through that chain, so that nobody needs the copy that is four times as large.
#pragma once

#include <algorithm>
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
  // visit(value) for every element in order, as the arithmetic sees it.
  template <class Visit>
  void forEach(const Visit& visit) const {
    const auto walk = [&](auto from) {
      if (!zero) {
        for (const auto v : from) visit(static_cast<int32_t>(v));
        return;
      }
      const auto zeros = zero->as<int32_t>();
      for (size_t i = 0, of = 0; i < from.size(); of = of + 1 == zeros.size() ? 0 : of + 1)
        for (const size_t end = std::min(from.size(), i + usize(zeroInner)); i < end; ++i)
          visit(static_cast<int32_t>(int64_t{from[i]} - zeros[of]));
    };
    switch (values->dtype()) {
      case DType::s32: return walk(values->as<int32_t>());
      case DType::s8: return walk(values->as<int8_t>());
      default: return walk(values->as<uint8_t>());
    }
  }
};

// Whether a node is part of such a chain, and all that reads its end are layers that have it for weights.
bool widensWeights(const Node& node);

}  // namespace qc
