#include "runtime/workflow/recipes.h"

#include <array>

#include "passes/quantize/equalize_layers.h"
#include "passes/quantize/smooth_quant.h"

namespace qc {
namespace {

int smoothedAxis(const Value& value) { return isSmoothable(value) ? value.type().rank() - 1 : -1; }

int equalizedAxis(const Value& value) {
  const Node* producer = value.producer();
  return producer && producer->numResults() == 1 ? equalizableAxis(*producer) : -1;
}

}  // namespace

std::span<const Recipe> recipes() {
  static const std::array kRows = {
      Recipe{.name = "smooth-quant",
             .help = "on: outliers in what linear layers read go into their weights; off",
             .trouble = "a few loud channels in what linear layers read",
             .choices = {"on", "off"},
             .byDefault = "on",
             .off = "off",
             .pass = "smooth-quant",
             .channelAxis = smoothedAxis,
             .helpsDynamic = true},
      Recipe{.name = "equalize",
             .help = "on: channels of one layer and the weights of the next share their differences; off",
             .trouble = "channels of unlike size between two layers",
             .choices = {"on", "off"},
             .byDefault = "on",
             .off = "off",
             .pass = "equalize-layers",
             .channelAxis = equalizedAxis},
      Recipe{.name = "round-weights",
             .help = "calibrated: to the integers that change the results of a layer least; nearest",
             .trouble = "rounding errors of weights that add up on inputs like the calibration data",
             .choices = {"calibrated", "nearest"},
             .byDefault = "calibrated",
             .off = "nearest",
             .pass = "round-weights",
             .wantsProducts = true},
      Recipe{.name = "bias-correction",
             .help = "fast: for the mean error of the weights; full: from runs of the int8 model, as many as there are layers; off",
             .trouble = "a shift of the mean of a layer's result",
             .choices = {"off", "fast", "full"},
             .byDefault = "fast",
             .off = "off",
             .apply = correctBiases},
  };
  return kRows;
}

std::string recipeTable() {
  std::string text = "| flag, key in the rules | choices, the default first | for |\n| --- | --- | --- |\n";
  for (const Recipe& recipe : recipes()) {
    std::string choices(recipe.byDefault);
    for (const std::string_view choice : recipe.choices)
      if (choice != recipe.byDefault) choices += fmt::format(", {}", choice);
    text += fmt::format("| `--{}` | {} | {} |\n", recipe.name, choices, recipe.trouble);
  }
  return text;
}

}  // namespace qc
