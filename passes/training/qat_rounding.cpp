#include "passes/training/qat_rounding.h"

#include <algorithm>
#include <cmath>

#include "passes/graph_util.h"

namespace qc {

using E = ScalarExpr;

Tensor scalarTensor(float value) { return Tensor::ofFloats({}, std::vector<float>{value}); }

Tensor spreadScales(const QuantParams& params, const std::vector<int64_t>& sizes) {
  std::vector<int64_t> spread;
  if (params.axis >= 0) {
    spread.assign(sizes.size() - usize(params.axis), 1);
    spread[0] = nth(sizes, params.axis);
  }
  Tensor scales(DType::f32, std::move(spread));
  for (int64_t i = 0; i < scales.numElements(); ++i) nth(scales.mutableAs<float>(), i) = params.scale(i);
  return scales;
}

RangeFormulas::RangeFormulas(const ObservedSpec& spec, const E& min, const E& max) : scale(0.f), zeroPoint(0.f) {
  const auto qmin = static_cast<float>(spec.qmin), qmax = static_cast<float>(spec.qmax);
  const E lo = expr::min(min, 0.f), hi = expr::max(max, 0.f);
  // Nothing but zeros has no scale of its own.
  const E eps = expr::select(expr::lt(lo, hi), static_cast<float>(spec.eps), static_cast<float>(std::max(spec.eps, kEpsTorch)));
  if (spec.scheme == QScheme::affine) {
    scale = expr::max((hi - lo) / (qmax - qmin), eps);
    zeroPoint = expr::clamp(qmin - expr::unary(E::Op::round, lo / scale), qmin, qmax);
    return;
  }
  scale = expr::max(expr::max(-lo, hi) / ((qmax - qmin) / 2), eps);
  if (isSigned(spec.dtype)) return;
  const IntRange own = rangeOf(spec.dtype);
  const bool custom = spec.qmin != own.min || spec.qmax != own.max;
  zeroPoint = static_cast<float>(custom ? (spec.qmin + spec.qmax) / 2 : (own.max + 1) / 2);
}

Result<Value*> QatRounding::map(const E& expression, std::vector<Value*> operands) {
  if (expression.op() == E::Op::constant) return b.constant("", scalarTensor(expression.value()));
  return mapped(b, expression, std::move(operands));
}

Result<Value*> QatRounding::extreme(const char* op, Value* x, int keptAxis) {
  std::vector<int64_t> axes;
  for (int d = 0; d < x->type().rank(); ++d)
    if (d != keptAxis) axes.push_back(d);
  return b.create(op, {x}, {{"axes", axes}, {"keepdims", int64_t{keptAxis >= 0}}});
}

Result<Value*> QatRounding::rounded(Value* x, Value* scale, Value* zeroPoint, int64_t qmin, int64_t qmax, bool learns,
                                    const std::string& name) {
  ++inserted;
  const double spread = static_cast<double>(x->type().numElements()) * static_cast<double>(std::max<int64_t>(qmax, 1));
  return b.create("fake_quantize_with", {x, scale, zeroPoint},
                  {{"qmin", qmin}, {"qmax", qmax}, {"learnable", int64_t{learns}}, {"grad_factor", learns ? 1 / std::sqrt(spread) : 1.0}},
                  name);
}

}  // namespace qc
