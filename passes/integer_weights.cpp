#include "passes/integer_weights.h"

#include <algorithm>

#include "ir/interp.h"
#include "ir/op_def.h"
#include "passes/graph_util.h"

namespace qc {
namespace {

// Its elements lie along one dim of a weight of these sizes, or it is a single one.
std::optional<int64_t> innerOf(const Tensor& zero, const std::vector<int64_t>& sizes) {
  if (zero.numElements() == 1) return numElements(sizes);
  const auto& own = zero.sizes();
  const auto dim = std::find_if(own.begin(), own.end(), [](int64_t n) { return n != 1; });
  if (own.size() > sizes.size() || *dim != zero.numElements()) return std::nullopt;
  int64_t inner = 1;
  for (int64_t behind = own.end() - dim - 1; behind > 0; --behind) inner *= nth(sizes, std::ssize(sizes) - behind);
  return inner;
}

bool isProductsWeight(const Use* use) { return use->index() == 1 && (use->user()->is("conv") || use->user()->is("matmul")); }

}  // namespace

std::optional<IntegerWeights> IntegerWeights::of(const Value* v) {
  if (!isPlain(v, DType::s32) || !v->type().isStatic()) return std::nullopt;
  if (v->constant()) return IntegerWeights{v->constant()};
  IntegerWeights weights;
  const Node* node = v->producer();
  if (node && node->is("sub")) {
    weights.zero = node->operand(1)->constant();
    if (!weights.zero || node->operand(0)->type().shape != v->type().shape) return std::nullopt;
    const auto inner = innerOf(*weights.zero, v->type().sizes());
    if (!inner) return std::nullopt;
    weights.zeroInner = *inner;
    node = node->operand(0)->producer();
  }
  const Value* narrow = node ? widenedIntegers(*node) : nullptr;
  weights.values = narrow ? narrow->constant() : nullptr;
  return weights.values ? std::optional(weights) : std::nullopt;
}

bool widensWeights(const Node& node) {
  const auto uses = node.numResults() == 1 ? node.result()->uses() : std::vector<Use*>();
  if (uses.empty() || node.result()->isOutput() || !IntegerWeights::of(node.result())) return false;
  return std::all_of(uses.begin(), uses.end(), [](const Use* use) {
    return isProductsWeight(use) || (use->index() == 0 && use->user()->is("sub") && widensWeights(*use->user()));
  });
}

}  // namespace qc
