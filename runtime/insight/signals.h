// What a graph computes with, apart from how it is written down: a value, its integers and what readers get back of them are one signal.
// Signals have names that hold in the float model, whoever made the file, and the factors by which passes made them other than there.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct Signal {
  const Value* raw = nullptr;           // as it is computed; null: in integers alone
  const Value* seen = nullptr;          // as floats that readers get: behind the rounding, where there is one; null: nobody reads floats
  bool rounded = false;                 // there is a quantize behind it
  QuantPtr params = nullptr;            // of that; null: found at run time
  std::vector<std::string> names = {};  // of the same value in the float model, the surest first
  int axis = 0;
  std::vector<float> factors = {};  // this = factor * that of the float model, for each channel; empty: the same

  const Value* compared() const { return seen ? seen : raw; }
};

class Signals {
 public:
  // notes: what the graph says of its float model and cannot be true.
  static Signals of(const Graph& graph, std::vector<std::string>& notes);

  const std::vector<Signal>& all() const { return all_; }
  int indexOf(const Value* value) const;  // -1: a constant, or a shape or a parameter of rounding
  int find(std::string_view name) const;  // by the name of any of its values, or by a name in the float model; -1: none

 private:
  void add(const Node& node);
  int start(const Value* value);
  void rename(const Graph& graph, std::vector<std::string>& notes);
  std::vector<Signal> all_;
  std::map<const Value*, int> byValue_;
  std::map<std::string, int, std::less<>> byName_;
};

// A node without those suffixes that quantizers give to names: "conv_quant" is "conv".
std::string plainName(std::string_view name);

// The operands that are weights of this very node: constants, as floats or as integers behind a dequantize; of a product one side may be.
std::vector<int> weightOperands(const Node& node);
inline bool hasWeights(const Node& node) { return !weightOperands(node).empty(); }

}  // namespace qc
