// How each op is treated in quantization, in one table.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "ir/graph.h"
#include "ir/op_def.h"

namespace qc {

enum class Role {
  weighted,     // constant weights: the reason to quantize at all
  product,      // two activations multiplied
  elementwise,  // computed on the dequantized values or by a table, result rounded once
  averaging,    // integer sum, own output parameters
  sharing,      // moves or selects elements: output parameters are the input's
  keepFloat,
};

struct OpPolicy {
  std::string_view op;
  Role role;
  std::string_view why;         // keepFloat: the reason
  std::optional<int> fixedLow;  // the result lies in [fixedLow, 1] whatever the input: parameters are known beforehand
  // Whether results come near both ends of that range.  A softmax over many positions does not: of a hundred equal ones each is 0.01, two
  // steps of 1/256.  Our own compiler then observes the range; backends with a table keep the fixed parameters, as PyTorch does.
  bool fillsRange = true;
  bool takesWords = false;  // weighted: its integer form takes activations of 16 bits
};

// An op without a row stays float, unless its declaration makes it elementwise.
const OpPolicy& policyOf(const Node& node);

// The operand that holds the weights of a layer, from the op's declaration, and where its output channels lie; null: it has none.
const OperandSpec* weightOf(const OpDef& def);
// The axis of the channels of operand "w" of this very node that may have parameters each; -1: one set of parameters for all.
int weightChannelAxis(const Node& node);

// A row for an op of one's own (ir/custom_op.h).  Errors: there is one; no such op; operands that the role does not fit; no reason.  From
// one thread, before graphs are annotated.
Status registerOpPolicy(const OpPolicy& policy);

// Why this very node cannot be int8 although its op can; empty when it can.
std::string refusal(const Node& node, const OpPolicy& policy);

// Why integers of 16 bits have no code at this node; empty where they have.
std::string refusalOfWords(const Node& node, const OpPolicy& policy);

// Whether operand i carries the data that is quantized (not indices, weights or biases).
bool isDataOperand(const Node& node, const OpPolicy& policy, int i);

// Parameters that a known result range gives to a quantized type: [0, 1] -> 1/256, [-1, 1] -> 2/256 for 8 bits.
std::optional<QuantParams> fixedParams(const OpPolicy& policy, DType dtype, int64_t qmin, int64_t qmax);

// Multiply-adds of a weighted or product node, per element of operand i; 0 when not known.  Free dims count as 64.
double workPerElement(const Node& node, int i);

}  // namespace qc
