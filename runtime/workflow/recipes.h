// Recipes: what wins back of the accuracy that rounding costs, one row each.  From the rows follow the options of the command line with
// their help and refusals, what is collected while samples run, and which passes run on it.  There are two kinds:
//
//   of channels   before calibration a pass moves what is much larger in a few channels than in the rest into the weights beside them; it
//                 wants the statistics of the channels of some values, and is kept if it helps on samples that it has not seen
//   of layers     with the parameters known, a pass edits weights and biases of the graph with observers; it wants the statistics of what
//                 the int8 layers read
//
// Statistics of each kind are collected for all its recipes in one run of the samples; those of layers in calibration's.  To add a recipe:
// a file with its pass, a row in recipes.cpp, a golden folder.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/data/dataset.h"
#include "passes/pass.h"
#include "passes/quantize/group_params.h"
#include "quantizer/layer_statistics.h"

namespace qc {

struct RecoverOptions;

// What a recipe of layers works on.
struct LayerRecovery {
  Graph& observed;        // to be edited: annotated, with observers
  const Graph& original;  // as it was before any recipe
  const GroupParams& params;
  const StatisticsByLayer& statistics;  // of the inputs of its int8 layers in float, by name of the layer's result
  const Dataset& samples;
  const RecoverOptions& options;
  PassContext& cx;
};

struct Recipe {
  std::string_view name;  // --NAME, and the key of RecoverOptions::choices
  std::string_view help;
  std::string_view trouble;  // that it is for
  std::vector<std::string_view> choices;
  std::string_view byDefault, off;  // off: does nothing

  std::string_view pass = {};  // that edits the graph, with the statistics of its kind

  // Of channels.  The axis of the channels of a value of a simplified float graph that the pass could do something about; -1: of none.
  int (*channelAxis)(const Value& value) = nullptr;
  bool helpsDynamic = false;  // with its option dynamic=1 it helps layers that quantize at run time, without samples

  // Of layers.  In place of a pass, where there is more to do than to run one.
  Status (*apply)(LayerRecovery& recovery, std::string_view choice) = nullptr;
  bool wantsProducts = false;  // of inputs with each other, beside their means

  bool movesChannels() const { return channelAxis != nullptr; }
};

std::span<const Recipe> recipes();  // in the order in which they act
std::string recipeTable();          // in Markdown: option, choices, trouble

// Moves the bias of each int8 layer so that its result has the mean of the float model's: correct_biases.cpp.
Status correctBiases(LayerRecovery& recovery, std::string_view choice);

}  // namespace qc
