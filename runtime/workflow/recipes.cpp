#include "runtime/workflow/recipes.h"

#include <fmt/format.h>

#include "passes/pass_manager.h"
#include "runtime/workflow/reconstruct_layers.h"

namespace qc {
namespace {

// Passes that want more than the statistics which calibration collects.
const std::pair<std::string_view, Status (*)(LayerRecovery&, std::string_view choice)> kDrivers[] = {
    {"reconstruct", reconstructLayers},
    {"correct-bias", correctBiases},
};

}  // namespace

Status runRecipe(const Recipe& recipe, LayerRecovery& recovery, std::string_view choice) {
  for (const auto& [pass, drive] : kDrivers)
    if (pass == recipe.pass) return drive(recovery, choice);
  recovery.cx.provide(recovery.statistics);
  return runPipeline(recipe.pass, recovery.observed, recovery.cx);
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
