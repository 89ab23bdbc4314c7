// What passes moved between the values of a float model and those of the graph that became of it, so that the two can be compared.  A graph
// carries it as a property ("qcompile.moved", a line for each move) through every pass, into .qir and into the metadata of an ONNX file.
//
//   equalize_layers %h, %r axis=1 f32[16] = hex"..."       these values are those of the same name in the float model, times a factor each
//   smooth_quant %x_smoothed of %x axis=2 f32[8] = [..]    so is this one of another name
//   smooth_quant %x_restored of %x                         it has the values of that one
//   fold_batch_norm %y of %c                               %c went into %y, together with the scale and shift behind it
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct Move {
  struct Pair {
    std::string value, of;  // here, in the float model
  };
  std::string by;  // the pass, with '_'
  std::vector<Pair> values;
  int axis = 0;                                            // of the channels
  std::vector<float> factors;                              // value = factor * of, for each channel; empty: nothing but the name
  bool folded() const { return by == "fold_batch_norm"; }  // `of` is not a value of this graph in any form
};

// Collects the moves of a pass.
class Moves {
 public:
  explicit Moves(std::string_view by) : by_(by) {}
  void add(std::vector<Move::Pair> values, int axis = 0, std::vector<float> factors = {});
  void addTo(Graph& graph) const;  // behind those that it has

 private:
  std::string by_, lines_;
};

// In the order in which they were made.  Error: the property is not of this form, which any file may bring.
Result<std::vector<Move>> movesOf(const Graph& graph);
void forgetMoves(Graph& graph);  // for a float model to begin with

}  // namespace qc
