// Result elements in the order of memory, for kernels whose operands broadcast numpy-wise.  Neighbouring dims that every operand
// walks alike are one; the innermost is the vector loop, in which an operand has stride 1 or 0 (broadcast).  A work unit is one trip
// of the inner loop, or, when everything is one dense run, a block of it.
#pragma once

#include "codegen/emit/emit.h"

namespace qc {

struct IterationSpace {
  std::vector<int64_t> dims;                  // outer to inner
  std::vector<std::vector<int64_t>> strides;  // [operand][dim], in elements; result: last entry
  int64_t inner() const { return dims.back(); }
};

// Of the first `operands` operands and the first result.
IterationSpace iterationSpace(const Node& node, int operands);

// Calls body(offsets in elements per operand and result, count) for each unit; count is a constant.
KernelShape emitUnits(KernelEmitter& e, const IterationSpace& space, const std::function<void(const std::vector<Reg>&, int64_t)>& body);

}  // namespace qc
