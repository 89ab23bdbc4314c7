#include "passes/training/losses.h"

#include <numeric>

#include "ir/scalar_expr.h"
#include "passes/graph_util.h"

namespace qc {
namespace {

using E = ScalarExpr;

Result<Value*> meanOfAll(Builder& b, Value* x) {
  std::vector<int64_t> axes(x->type().shape.size());
  std::iota(axes.begin(), axes.end(), 0);
  return b.create("reduce_mean", {x}, {{"axes", axes}, {"keepdims", int64_t{0}}});
}

// Classes lie along `axis`; -1: the last dim.
Status requireLogits(const Value* x, int axis = -1) {
  const TensorType& t = x->type();
  const int at = axis < 0 ? t.rank() - 1 : axis;
  if (at >= 0 && at < t.rank() && isFloat(t.dtype) && !t.isQuantized() && nth(t.shape, at).isStatic() && nth(t.shape, at).size() > 0)
    return {};
  return fail(ErrorCode::kInvalidArgument, "a loss over classes needs floats with the classes in {}, got {}",
              axis < 0 ? "the last dim" : fmt::format("dim {}", axis), t.str())
      .on(x->name());
}

Status requireSame(const Value* y, const Value* target) {
  if (y->type() == target->type()) return {};
  return fail(ErrorCode::kInvalidArgument, "a loss between {} and {}", y->type().str(), target->type().str()).on(y->name());
}

}  // namespace

Result<Value*> crossEntropyLoss(Builder& b, Value* logits, Value* labels) {
  QC_TRY(requireLogits(logits));
  const TensorType& t = logits->type();
  const int64_t last = t.rank() - 1;
  if (labels->type().shape != Shape(t.shape.begin(), t.shape.end() - 1) || !isInteger(labels->type().dtype))
    return fail(ErrorCode::kInvalidArgument, "labels of {} for logits {}", labels->type().str(), t.str()).on(labels->name());
  // By index, so that a label that no class has is an error of the data.
  QC_ASSIGN(Value * scores, b.create("log_softmax", {logits}, {{"axis", last}}));
  std::vector<DimExpr> shape;
  for (const Dim& d : labels->type().shape) shape.push_back(d.expr());
  shape.emplace_back(1);
  QC_ASSIGN(Value * at, b.create("reshape", {labels}, {{"shape", shape}}));
  QC_ASSIGN(Value * own, b.create("gather_elements", {scores, at}, {{"axis", last}}));
  QC_ASSIGN(Value * mean, meanOfAll(b, own));
  return b.create("neg", {mean});
}

Result<Value*> squaredErrorLoss(Builder& b, Value* y, Value* target) {
  QC_TRY(requireSame(y, target));
  QC_ASSIGN(Value * squares, mapped(b, (E::arg(0) - E::arg(1)) * (E::arg(0) - E::arg(1)), {y, target}));
  return meanOfAll(b, squares);
}

Result<Value*> absoluteErrorLoss(Builder& b, Value* y, Value* target) {
  QC_TRY(requireSame(y, target));
  QC_ASSIGN(Value * distances, mapped(b, expr::abs(E::arg(0) - E::arg(1)), {y, target}));
  return meanOfAll(b, distances);
}

Result<Value*> distillationLoss(Builder& b, Value* logits, Value* teacher, float temperature, int axis) {
  QC_TRY(requireLogits(logits, axis));
  QC_TRY(requireSame(logits, teacher));
  if (!(temperature > 0)) return fail(ErrorCode::kInvalidArgument, "a temperature of {}", temperature);
  const int64_t along = axis < 0 ? logits->type().rank() - 1 : axis;
  const auto scores = [&](Value* x) -> Result<Value*> {
    QC_ASSIGN(Value * scaled, mapped(b, E::arg(0) / temperature, {x}));
    return b.create("log_softmax", {scaled}, {{"axis", along}});
  };
  QC_ASSIGN(Value * own, scores(logits));
  QC_ASSIGN(Value * wanted, scores(teacher));
  QC_ASSIGN(Value * terms, mapped(b, temperature * temperature * expr::exp(E::arg(1)) * (E::arg(1) - E::arg(0)), {own, wanted}));
  QC_ASSIGN(Value * sums, b.create("reduce_sum", {terms}, {{"axes", std::vector<int64_t>{along}}, {"keepdims", int64_t{0}}}));
  return meanOfAll(b, sums);
}

}  // namespace qc
