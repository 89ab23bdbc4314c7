#include "quantizer/touches_floats.h"

#include <algorithm>

namespace qc {

bool touchesFloats(const Node& node) {
  const auto isOne = [](const Value* v) { return v && (isFloat(v->type().dtype) || v->type().isQuantized()); };
  for (int r = 0; r < node.numResults(); ++r)
    if (isOne(node.result(r))) return true;
  const auto operands = node.operands();
  return std::any_of(operands.begin(), operands.end(), isOne);
}

}  // namespace qc
