// Result elements in the order of memory, for kernels whose operands broadcast numpy-wise.  Neighbouring dims that every operand
// walks alike are one; the innermost is the vector loop, in which an operand has stride 1 or 0 (broadcast).  A work unit is one trip
// of the inner loop, or, when everything is one dense run, a block of it.
#pragma once

#include "codegen/emit/emit.h"

namespace qc {

struct IterationSpace {
  std::vector<Number> dims;                  // outer to inner
  std::vector<std::vector<Number>> strides;  // [operand][dim], in elements; result: last entry
  const Number& inner() const { return dims.back(); }

  void eachNumber(const NumberVisitor& visit) {
    for (Number& n : dims) visit(n);
    for (auto& of : strides)
      for (Number& n : of) visit(n);
  }
  std::string form() const;
  KernelShape shape() const;
};

// Of the first `operands` operands and the first result.
IterationSpace iterationSpace(const Node& node, int operands);

// Calls body(offsets in elements per operand and result, count) for each unit.
KernelShape emitUnits(KernelEmitter& e, const IterationSpace& space, const std::function<void(const std::vector<Reg>&, Reg count)>& body);

}  // namespace qc
