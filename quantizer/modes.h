// The modes that need no calibration: parameters of activations at run time, weights alone, weights in float16.  A configuration says
// by its specs which mode it means; what each op does in it is here, the static mode is in annotate.cpp.
//
//   dynamic       activation.dynamic: the input is quantized at run time, per tensor or (observer "per_token") per row; integer weights
//   weightOnly    activation.observer = "placeholder": integer weights, float arithmetic
//   halfWeights   weight.dtype = f16: weights stored in float16, float arithmetic
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quantizer/rules/op_policy.h"
#include "quantizer/rules/qconfig.h"

namespace qc {

enum class QuantMode { none, full, dynamic, weightOnly, halfWeights };
QuantMode modeOf(const QConfig& config);

struct ModeDecision {
  QuantMode mode = QuantMode::none;    // what was asked for, or less
  std::string refusal = {};            // why the node stays float; empty when it does not
  std::string how = {};                // "input u8 at run time per tensor, weights s8 per channel"
  std::vector<QuantSpec> inputs = {};  // of the operands
  std::string_view remedy = {};        // the configuration by which a rule that forces it gives more; empty: none
};
// For every mode but `full`.  minWorkPerElement: see BackendOptions.  byGlobalRule: no rule names this node or its type; then of a
// recurrent layer that reads the model's input the recurrent weights alone become integers: raw features span orders of magnitude, so that
// one scale for a sequence of them loses the quiet ones, and so does one scale for the weights that make up for it.
// The configuration for an op with weights whose static mode is float, and that has another one; empty where there is none.
std::string_view modeForWeights(const Node& node);
ModeDecision decideMode(const Node& node, const QConfig& config, QuantMode mode, double minWorkPerElement, bool byGlobalRule);

}  // namespace qc
