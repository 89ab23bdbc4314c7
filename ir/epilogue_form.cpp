#include "ir/epilogue_form.h"

#include <algorithm>

namespace qc {

ResultBounds resultBounds(const QuantParams& to, const AttrDict& attrs) {
  int64_t low = to.qmin, high = to.qmax;
  if (attrs.find("clamp_min")) low = std::max(low, attrs.integer("clamp_min"));
  if (attrs.find("clamp_max")) high = std::min(high, attrs.integer("clamp_max"));
  return {static_cast<int32_t>(low), static_cast<int32_t>(high)};
}

EpilogueForm EpilogueForm::of(const Node& node) {
  EpilogueForm form;
  form.integers = node.operand(0)->type().isQuantized();
  form.residual = node.operand("residual");
  if (const ScalarExpr* post = node.expr("post"))
    form.post = *post;
  else if (form.residual)
    form.post = ScalarExpr::arg(0) + ScalarExpr::arg(1);
  form.to = node.result()->type().quant;
  if (form.to) form.bounds = resultBounds(*form.to, node.attrs());
  return form;
}

}  // namespace qc
