// Kernels of images whose code serves any size of them: where their number, height or width were free, these are numbers of the plan, and
// so is what the plan makes of them.  Channels and planes of 3-d images are part of the code.
//
//   struct FooPlan {
//     AnySize size;                                                              // AnySize(node)
//     Number strips;                                                             // free as one of these is
//     void eachNumber(const NumberVisitor& visit) { size.eachNumber(visit), visit(strips); }
//     std::string form() const { return size.rest; }                             // and choices that the code was made by
//     KernelShape shape() const { return {size.images.value * strips.value, scratchBytes}; }
//   };
//   .onlyNumbers = servesAnySize<FooPlan>
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "codegen/plan/number.h"
#include "ir/graph.h"
#include "ir/op_def.h"

namespace qc {

struct AnySize {
  Number images = 1, inH = 1, inW = 1, outH = 1, outW = 1;  // of channel-last tensors; of 1-d data, one row
  std::string rest;                                         // of everything else that shapes say

  AnySize() = default;
  explicit AnySize(const Node& node) {
    const Shape &x = node.operand(0)->type().shape, &y = node.result()->type().shape;
    const size_t rank = x.size();
    if (rank < 3 || y.size() != rank) return;
    images = Number(x[0]);
    inW = Number(x[rank - 2]), outW = Number(y[rank - 2]);
    if (rank > 3) inH = Number(x[rank - 3]), outH = Number(y[rank - 3]);
    bool others = false;  // were free
    const auto add = [&](const Value* v, bool flows) {
      if (!v) return;
      Shape shape = v->type().shape;
      if (flows && shape.size() == rank) {
        if (rank > 3) shape.erase(shape.end() - 3);
        shape.erase(shape.end() - 2);
        shape.erase(shape.begin());
      }
      others = others || wasFree(shape);
      rest += fmt::format("[{}]", toString(shape));
    };
    const std::vector<OperandSpec>& specs = node.def().operands;
    for (int i = 0; i < node.numOperands(); ++i)
      add(node.operand(i), specs[std::min(usize(i), specs.size() - 1)].role == OperandRole::data);
    for (int i = 0; i < node.numResults(); ++i) add(node.result(i), true);
    if (others) eachNumber([](Number& n) { n.isFree = false; });
  }

  bool isFree() const { return images.isFree || hasFreePixels(); }
  bool hasFreePixels() const { return inH.isFree || inW.isFree || outH.isFree || outW.isFree; }
  void eachNumber(const NumberVisitor& visit) { visit(images), visit(inH), visit(inW), visit(outH), visit(outW); }
};

template <class Plan>
bool servesAnySize(const Plan& plan, const Node&) {
  return plan.size.isFree();
}

}  // namespace qc
