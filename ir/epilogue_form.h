// What a convolution or linear layer ends in: the way from its sums to what it stores, read off a conv, linear, q.* or k.* node in one
// place for evaluation, packing, reference ops and emitters.
//
//   float         y = post(sum + bias, residual)             without bias nothing is added
//   integer form  q = requantize(sum, factor, zy, low, high)  integers in and out, no post; factor = requantMultiplier(sx, sw[c], sy)
//   float form    y = post(float(sum) * factor, residual)     factor = f32(sx * sw[c])
//   and of floats, where the result is quantized: q = finish(y, 1 / sy, zy, low, high)
//
// post is a0 + a1 by itself where there is a residual.
#pragma once

#include <optional>

#include "ir/graph.h"
#include "ir/qmath.h"
#include "ir/scalar_expr.h"

namespace qc {

struct ResultBounds {
  int32_t low, high;
};
// The integers of a result: those of its parameters, narrowed by the attributes clamp_min and clamp_max where the op has them.
ResultBounds resultBounds(const QuantParams& to, const AttrDict& attrs);

struct EpilogueForm {
  bool integers = false;            // sums are exact int32, scaled per channel
  std::optional<ScalarExpr> post;   // of the (scaled) sum a0 and the residual a1; none: the sum itself
  const Value* residual = nullptr;  // null: none
  QuantPtr to;                      // parameters of the result; null: floats
  ResultBounds bounds{0, 0};        // of the result's integers

  static EpilogueForm of(const Node& node);

  bool integerForm() const { return integers && to && !post; }
  ScalarExpr formula() const { return post.value_or(ScalarExpr::arg(0)); }
  float factor(float sx, float sw) const { return integerForm() ? qmath::requantMultiplier(sx, sw, to->scale()) : sx * sw; }
  float inverseScale() const { return 1.0f / to->scale(); }
  int32_t ofSum(int32_t acc, float factor) const { return qmath::requantize(acc, factor, to->zeroPoint(), bounds.low, bounds.high); }
  int32_t ofFloat(float y) const { return qmath::finish(y, inverseScale(), to->zeroPoint(), bounds.low, bounds.high); }
};

}  // namespace qc
