// Which values of two models of the same origin are the same: a float model and what a quantizer made of it, ours or another, or two
// quantized ones.  By what the file says was moved, by names without what tools hang on them, and where names were lost by what computes
// from what.
//
//   QC_ASSIGN(const Pairing pairs, pairModels(floatGraph, int8Graph));
//   for (const LayerPair& layer : pairs.layers) ... layer.reference, layer.actual    // names of values, one in each graph
//
// A value of the actual model is `factor` times that of the reference, for each channel.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct ValuePair {
  std::string reference, actual;  // as readers get them: behind the rounding, where there is one
  std::string computed;           // in the actual graph, in front of the rounding; the same where there is none
  bool rounded = false;
  bool border = false;        // of layers: computed from values, and read by one
  QuantPtr params = nullptr;  // of the actual integers; null: none, or found at run time
  int axis = 0;
  std::vector<float> factors = {};  // empty: no factors

  // Of values in the units of the reference: those that `params` become when the factors are taken out; null: none.
  QuantPtr paramsOfReference() const;
  // x times the factors, or divided by them.
  void toActual(std::span<float> x, std::span<const int64_t> sizes) const;
  void toReference(std::span<float> x, std::span<const int64_t> sizes) const;
};

// A layer: what computes from rounded values, or with weights, up to where it is rounded next.
struct LayerPair : ValuePair {
  std::string layer, op;  // the name of the node with weights, else of the last, as in the reference
  // The nodes with weights, empty where they are not in both models, and what the actual weights have of the factors at both of their ends:
  // actual = reference * result / input.
  std::string referenceNode, actualNode;
  std::vector<float> factorsOfResult = {}, factorsOfInput = {};
  bool output = false;  // of the model
};

struct Pairing {
  std::vector<ValuePair> values;       // all, in the order of the actual graph
  std::vector<LayerPair> layers;       // then the outputs
  std::vector<std::string> decisions;  // results whose sizes data decides, by the name that they have in both
  std::vector<std::string>
      unmatched;                   // rounded values, and results of layers, of the actual graph that the reference has no counterpart of
  std::vector<std::string> notes;  // what was not believed

  const ValuePair* find(std::string_view actual) const;  // by a value's name in the actual graph, in front of or behind the rounding
};

// Errors: other inputs or outputs.
Result<Pairing> pairModels(const Graph& reference, const Graph& actual);

}  // namespace qc
