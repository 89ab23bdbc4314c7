// Kernels of images whose code serves any batch, with the other dims as they are: where the leading dim alone was free, the number of
// images is a number of the plan, which nothing else of the plan may depend on.
//
//   struct FooPlan {
//     AnyBatch batch;                                                            // AnyBatch(node)
//     void eachNumber(const NumberVisitor& visit) { visit(batch.images); }
//     std::string form() const { return batch.sizes; }
//     KernelShape shape() const { return {batch.images.value * unitsOfOne, -1}; }
//   };
//   .onlyNumbers = servesAnyBatch<FooPlan>
#pragma once

#include <algorithm>
#include <string>

#include "codegen/plan/number.h"
#include "ir/graph.h"

namespace qc {

struct AnyBatch {
  Number images = 1;
  std::string sizes;  // of everything else that shapes say

  AnyBatch() = default;
  explicit AnyBatch(const Node& node) {
    const Shape& x = node.operand(0)->type().shape;
    images = Number(x.front());
    bool others = false;  // were free
    const auto add = [&](const Value* v) {
      if (!v) return;
      const Shape& shape = v->type().shape;
      const bool leads = !v->constant() && shape.size() == x.size();
      const Shape rest(shape.begin() + (leads ? 1 : 0), shape.end());
      others = others || wasFree(rest);
      sizes += fmt::format("[{}]", toString(rest));
    };
    for (const Value* v : node.operands()) add(v);
    for (int i = 0; i < node.numResults(); ++i) add(node.result(i));
    images.isFree = images.isFree && !others;
  }
};

template <class Plan>
bool servesAnyBatch(const Plan& plan, const Node&) {
  return plan.batch.images.isFree;
}

}  // namespace qc
