// What the driver of recipes (recover.h) does beside the rows of passes/quantize/recipe.h.
#pragma once

#include <string>
#include <string_view>

#include "frontend/data/dataset.h"
#include "passes/pass.h"
#include "passes/quantize/recipe.h"
#include "quantizer/group_params.h"
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

  std::vector<const Node*> layers() const;  // those that recipes may edit, of `original`
};

// Runs the pass of a recipe of layers, once with those statistics, or as its driver does where it wants runs of its own.
Status runRecipe(const Recipe& recipe, LayerRecovery& recovery, std::string_view choice);

std::string recipeTable();  // in Markdown: option, choices, trouble

// Moves the bias of each int8 layer so that its result has the mean of the float model's: correct_biases.cpp.
Status correctBiases(LayerRecovery& recovery, std::string_view choice);

}  // namespace qc
