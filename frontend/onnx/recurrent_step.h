// One round of a loop as one step of a recurrence: what a frontend that knows no GRU writes for it, read back.
//
// A round computes the next state [batch, hidden] from the state and from the input of the step, x[round].  It is a step of `rnn`, `gru`
// or, where there are two states, `lstm`, where its arithmetic is that of RecurrentStep (ir/ops/recurrent.h) with constant weights:
// products of the input and of the state with matrices, biases in any order, cut into gates before or behind the sums.  What else it
// computes is found nowhere in the result.
#pragma once

#include <optional>
#include <string>

#include "ir/graph.h"

namespace qc {

struct RecurrentRound {
  const Value* state = nullptr;  // of the round: [batch, hidden], read by nothing outside
  const Value* cell = nullptr;   // of lstm; else null
  DimExpr number;                // of the round, from 0: a symbol
  const Node* before = nullptr;  // the last node in front of the round; null: none
};

struct ReadStep {
  std::string op;             // rnn, gru, lstm
  AttrDict attrs;             // of the op
  Value* sequence = nullptr;  // [steps, batch, input]
  Tensor w, r;                // [1, gates * hidden, depth]
  std::optional<Tensor> b;    // [1, 2 * gates * hidden]
};

// From the state, and the cell where there is one, behind the round.  Nothing: it is not such a step.
std::optional<ReadStep> readStep(const RecurrentRound& round, const Value* next, const Value* nextCell);

}  // namespace qc
