#include "ir/join.h"

#include <cmath>

#include "ir/op_def.h"

namespace qc {
namespace {

bool isFloats(const Value* v) { return v && v->type().dtype == DType::f32 && !v->type().isQuantized(); }

}  // namespace

bool computesFloats(const Node& node) {
  if (!node.def().has(kElementwise) || !node.def().scalar || node.numResults() != 1 || node.is("map") || !isFloats(node.result()))
    return false;
  for (int i = 0; i < node.numOperands(); ++i)
    if (!isFloats(node.operand(i))) return false;
  return true;
}

std::optional<Join> joining(const Node& user, const Value* current) {
  if (!computesFloats(user) || user.result()->type() != current->type()) return std::nullopt;
  std::vector<ScalarExpr> args;
  Value* residual = nullptr;
  for (Value* v : user.operands()) {
    const Tensor* constant = v->constant();
    if (v == current) {
      args.push_back(ScalarExpr::arg(0));
    } else if (constant && constant->numElements() == 1 && std::isfinite(constant->at(0))) {
      args.emplace_back(static_cast<float>(constant->at(0)));
    } else if (!constant && !residual && v->type() == current->type()) {
      residual = v;
      args.push_back(ScalarExpr::arg(1));
    } else {
      return std::nullopt;
    }
  }
  return Join{user.def().scalar(user.attrs()).substitute(args), residual};
}

}  // namespace qc
