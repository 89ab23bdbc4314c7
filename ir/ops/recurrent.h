// What lstm, gru and rnn compute, read from a node once: for their evaluation, the pass that splits them and their kernels.
//
// The split form (ops lstm_steps, gru_steps, rnn_steps) takes what the inputs contribute ready made, for all steps at once:
//   X  [seq, batch, directions * gates * hidden] (batch first: [batch, seq, ...]) = dot(W, x) + Wb
//   R  [directions, gates, panels, hidden, kPanel]: the recurrent weights, kPanel rows side by side, zeros behind the last row
//   B  [directions, gates * hidden]: the recurrent bias alone
// and has no W.  The other operands, the results and all arithmetic are those of the whole op.
//
// q.dynamic_lstm, q.dynamic_gru and q.dynamic_rnn (dynamic_recurrent.cpp) multiply integers, and their split form has
//   R       [directions, gates, panels, lines, kPanel, kGroup]: minus their zero points, s8 or, where that is too narrow, s16;
//           kGroup elements of one row lie together
//   R_scale, R_sums [directions, gates, panels, kPanel]: of each row, f32 and s32
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ir/graph.h"
#include "ir/scalar_expr.h"

namespace qc {

struct RecurrentForm {
  enum class Cell : uint8_t { lstm, gru, rnn } cell = Cell::lstm;
  enum class Operand : uint8_t { x, w, r, b, lengths, initialH, initialC, p, scale, sums };
  static constexpr int64_t kPanel = 16;  // rows
  static constexpr int64_t kGroup = 4;   // elements of a row

  bool steps = false;    // the split form
  bool dynamic = false;  // products of integers whose parameters are found as it goes
  int64_t gates = 1, hidden = 1, directions = 1;
  std::vector<std::vector<ScalarExpr>> activations;  // [direction]: f, g, h as far as the cell has them; of arg 0
  float clip = 0;                                    // of every activation's argument; 0: none
  bool batchFirst = false, reverseOnly = false, inputForget = false, linearBeforeReset = false;

  bool reverse(int64_t direction) const { return direction == 1 || reverseOnly; }
  int64_t panels() const { return (hidden + kPanel - 1) / kPanel; }
  // Of R in the split form: a panel's lines and its elements, the sizes of all, and where a weight stands in its direction.
  int64_t group() const { return dynamic ? kGroup : 1; }
  int64_t lines() const { return (hidden + group() - 1) / group(); }
  int64_t panelSize() const { return lines() * kPanel * group(); }
  std::vector<int64_t> panelSizes() const;
  int64_t panelIndex(int64_t gate, int64_t row, int64_t k) const {
    return (gate * panels() + row / kPanel) * panelSize() + (k / group() * kPanel + row % kPanel) * group() + k % group();
  }
  // Index among the node's operands; -1: the op has none such.
  int place(Operand operand) const;

  // Errors: an activation that does not exist, or not as many as the cell takes.
  static Result<RecurrentForm> of(std::string_view op, const AttrDict& attrs);
};

// A step in one direction, unit by unit: stated once as formulas, which the evaluation and the emitter walk.
struct RecurrentStep {
  // What formulas speak of (ScalarExpr::arg) and write, each a vector over the hidden units.
  enum Value : uint8_t {
    h,
    c,
    gated,                 // r * h of gru
    input,                 // of every gate: dot(W, x) + Wb
    state = input + 4,     // of every gate: the last product + Rb
    peephole = state + 4,  // of i, o and f
    kValues = peephole + 3,
  };
  struct Assignment {
    Value to;
    ScalarExpr formula;
  };
  // state = dot(R, factor) + Rb for `gates` gates from `first` on, then the assignments: each sees what was written before.
  struct Part {
    Value factor;
    int64_t first, gates;
    std::vector<Assignment> assignments;
  };
  std::vector<Part> parts;

  // Without `peepholes` no formula speaks of them.
  static RecurrentStep of(const RecurrentForm& form, int64_t direction, bool peepholes);
};

// Whether the op is one of the twelve.
bool isRecurrent(std::string_view op);

}  // namespace qc
