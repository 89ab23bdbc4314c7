#include "runtime/workflow/measured_ends.h"

#include <algorithm>
#include <set>

namespace qc {
namespace {

bool isObserver(const Value* v) { return v->producer() && v->producer()->is("observe"); }

// Breadth first, the first operand first.
const Value* nearestFloats(const Value& output) {
  std::vector<const Value*> open{&output};
  std::set<const Value*> seen;
  for (size_t i = 0; i < open.size(); ++i) {
    const Value* v = open[i];
    if (v->type().isQuantized() || (v->type().dtype == DType::f32 && !isObserver(v))) return v;
    if (!v->producer()) continue;
    for (const Value* operand : v->producer()->operands())
      if (operand && !operand->constant() && seen.insert(operand).second) open.push_back(operand);
  }
  return &output;
}

}  // namespace

std::vector<const Value*> measuredEnds(const Graph& graph) {
  std::vector<const Value*> ends;
  for (const Value* end : graph.outputs()) {
    while (isObserver(end)) end = end->producer()->operand(0);
    ends.push_back(end);
  }
  for (const Value*& end : ends) {
    const Value* floats = nearestFloats(*end);
    if (std::find(ends.begin(), ends.end(), floats) == ends.end()) end = floats;
  }
  return ends;
}

}  // namespace qc
