// The gradient of fake quantization.  Straight through: that of x passes where the integer lies inside the range.  With `learnable` scale
// and zero point have theirs (LSQ), of what PyTorch's _fake_quantize_learnable_* compute:
//
//   integer below qmin   scale dy * (qmin - z)     zero point -dy * s
//   integer above qmax   scale dy * (qmax - z)     zero point -dy * s
//   inside               scale dy * (y - x) / s    zero point 0
#include "ir/ops/fake_quantize.h"
#include "ir/ops/gradients.h"

namespace qc {

Result<Gradients> fakeQuantizeGradient(GradientContext& c) {
  const AttrDict& attrs = c.node().attrs();
  const FakeQuantizeParts q(attrs);
  const ScalarExpr scale = ScalarExpr::arg(1), dy = ScalarExpr::arg(3);
  const auto where = [&](const ScalarExpr& below, const ScalarExpr& inside, const ScalarExpr& above) {
    return expr::select(expr::lt(q.integer, q.low), below, expr::select(expr::lt(q.high, q.integer), above, inside));
  };
  const auto of = [&](int operand, const ScalarExpr& slope) {
    return c.sumTo(c.map(slope, {c.operand(0), c.operand(1), c.operand(2), c.upstream()}), c.type(operand).shape);
  };
  Gradients all = c.none();
  if (c.wants(0)) all[0] = of(0, where(0.f, dy, 0.f));
  if (attrs.integer("learnable") == 0) return all;
  const ScalarExpr weighted = static_cast<float>(attrs.real("grad_factor")) * dy;
  if (c.wants(1)) all[1] = of(1, weighted * where(q.low - q.zero, q.rounded - q.steps, q.high - q.zero));
  if (c.wants(2)) all[2] = of(2, where(-(weighted * scale), 0.f, -(weighted * scale)));
  return all;
}

}  // namespace qc
