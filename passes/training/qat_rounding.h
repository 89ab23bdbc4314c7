// What fake quantization of activations and that of weights have in common: the nodes that it is made of.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar_expr.h"
#include "quantizer/observers/observer.h"

namespace qc {

Tensor scalarTensor(float value);
// The scales of a weight of these sizes, in a shape that spreads over it.
Tensor spreadScales(const QuantParams& params, const std::vector<int64_t>& sizes);

// Scale and zero point of a range, as calculateQParams() has them.
struct RangeFormulas {
  RangeFormulas(const ObservedSpec& spec, const ScalarExpr& min, const ScalarExpr& max);
  ScalarExpr scale, zeroPoint;
};

class QatRounding {
 public:
  explicit QatRounding(Graph& graph) : graph(graph), b(graph) {}

  Graph& graph;
  Builder b;
  int inserted = 0;

  Result<Value*> map(const ScalarExpr& expression, std::vector<Value*> operands);
  // op: reduce_min or reduce_max, over all axes but keptAxis; -1: over all.
  Result<Value*> extreme(const char* op, Value* x, int keptAxis);
  // A constant that train-step does not take for a parameter.
  Value* untrained(Value* constant) { return b.make("identity", {constant}); }
  Result<Value*> rounded(Value* x, Value* scale, Value* zeroPoint, int64_t qmin, int64_t qmax, bool learns, const std::string& name);
};

}  // namespace qc
