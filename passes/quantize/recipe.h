// A recipe wins back of the accuracy that rounding costs: a pass, and what the driver (runtime/workflow), the command line and the rules
// must know of it.  From its row in recipes.def follow the options of the command line with their help and refusals, what is collected
// while samples run, and which passes run on it.  There are two kinds:
//
//   of channels   before calibration the pass moves what is much larger in a few channels than in the rest into the weights beside them; it
//                 wants the statistics of the channels of some values, and is kept if it helps on samples that it has not seen
//   of layers     with the parameters known, the pass edits weights and biases of the graph with observers; it wants the statistics of what
//                 the int8 layers read
//
// Statistics of each kind are collected for all its recipes in one run of the samples; those of layers in calibration's.  To add a recipe:
// a file with its pass, a row in recipes.def, a golden folder.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "ir/graph.h"

namespace qc {

struct Recipe {
  std::string_view name;  // --NAME, and the key of RecoverOptions::choices
  std::string_view help;
  std::string_view trouble;  // that it is for
  std::vector<std::string_view> choices;
  std::string_view byDefault, off;  // off: does nothing

  // Of channels.  The axis of the channels of a value of a simplified float graph that the pass could do something about; -1: of none.
  int (*channelAxis)(const Value& value) = nullptr;
  bool helpsDynamic = false;  // with its option dynamic=1 it helps layers that quantize at run time, without samples

  // Of layers.
  bool wantsProducts = false;  // of inputs with each other, beside their means
  // Whether what this choice makes of a layer depends on what became of the layers before it.
  bool (*inTurn)(std::string_view choice, const Node& layer) = nullptr;

  // Of either kind.
  bool forOneScale = false;  // it helps weights alone that have one scale for all channels

  std::string_view pass = {};  // that edits the graph, with the statistics of its kind; filled in from the row

  bool movesChannels() const { return channelAxis != nullptr; }
};

std::span<const Recipe> recipes();  // in the order in which they act

}  // namespace qc
