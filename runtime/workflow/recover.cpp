#include "runtime/workflow/recover.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/constant_view.h"
#include "ir/guarded.h"
#include "passes/quantize/convert_parts.h"
#include "quantizer/rules/nearest.h"
#include "runtime/workflow/recipes.h"
#include "runtime/workflow/taps.h"

namespace qc {

std::string_view RecoverOptions::choiceOf(const Recipe& recipe) const {
  const auto it = choices.find(recipe.name);
  return it == choices.end() ? recipe.byDefault : std::string_view(it->second);
}

RecoverOptions RecoverOptions::under(const std::optional<QConfigMapping>& rules) const {
  RecoverOptions options = *this;
  if (rules)
    for (const auto& [name, choice] : rules->recipes()) options.choices.try_emplace(name, choice);
  return options;
}

Status RecoverOptions::checkChoices() const {
  for (const auto& [name, choice] : choices) {
    std::vector<std::string> names;
    const Recipe* found = nullptr;
    for (const Recipe& recipe : recipes()) {
      names.emplace_back(recipe.name);
      if (recipe.name == name) found = &recipe;
    }
    if (!found) return fail(ErrorCode::kInvalidArgument, "there is no recipe '{}'", name).help(didYouMean(name, names));
    if (std::find(found->choices.begin(), found->choices.end(), choice) == found->choices.end())
      return fail(ErrorCode::kInvalidArgument, "recipe '{}' has no choice '{}'", name, choice)
          .help(fmt::format("choose {}", fmt::join(found->choices, " or ")));
  }
  return {};
}

bool RecoverOptions::movesChannels() const {
  return std::any_of(recipes().begin(), recipes().end(), [&](const Recipe& recipe) { return recipe.movesChannels() && uses(recipe); });
}

bool RecoverOptions::looksAtLayers() const {
  return std::any_of(recipes().begin(), recipes().end(), [&](const Recipe& recipe) { return !recipe.movesChannels() && uses(recipe); });
}

bool RecoverOptions::goesInTurn(const Node& layer) const {
  return std::any_of(recipes().begin(), recipes().end(),
                     [&](const Recipe& recipe) { return recipe.inTurn && recipe.inTurn(choiceOf(recipe), layer); });
}

LayerObserverOptions RecoverOptions::layers() const {
  const bool products =
      std::any_of(recipes().begin(), recipes().end(), [&](const Recipe& recipe) { return recipe.wantsProducts && uses(recipe); });
  return {.samples = samples, .positions = positions, .gram = products};
}

Result<StatisticsByLayer> observeLayers(const Graph& graph, const std::vector<const Node*>& layers, const Dataset& samples,
                                        const RecoverOptions& options, bool products) {
  LayerObserver observer({.samples = options.samples, .positions = options.positions, .gram = products});
  observer.watch(graph, layers, samples.size());
  QC_ASSIGN(Taps taps, Taps::open(graph, observer.values(), {.threads = options.threads}));
  size_t done = 0;
  for (const int64_t index : observer.samples()) {
    QC_ASSIGN(const TensorMap sample, samples.sample(index));
    if (Status run = taps.run(sample); !run) return inSample(samples, index, run.error());
    observer.see(index, taps.values());
    options.tell("weights and biases", ++done, observer.samples().size());
  }
  return std::move(observer).take();
}

std::vector<const Node*> LayerRecovery::layers() const {
  std::vector<const Node*> found = int8Layers(original);
  if (options.sharedStay) std::erase_if(found, [](const Node* layer) { return readsSharedConstant(*layer); });
  return found;
}

namespace {

Status recoverByRecipes(Graph& observed, const GroupParams& params, const Dataset& samples, const RecoverOptions& options,
                        PassContext& cx) {
  const DefinedArithmetic defined;
  QC_TRY(options.checkChoices());
  if (!options.looksAtLayers()) return {};
  keepUnseenFloat(observed, params, cx);
  const Graph original = observed.clone();
  const std::vector<const Node*> layers = int8Layers(original);
  if (layers.empty() || samples.size() == 0) return {};
  StatisticsByLayer statistics;
  if (options.observer && options.observer->complete()) {
    statistics = std::move(*options.observer).take();
  } else {
    QC_ASSIGN(statistics, observeLayers(original, layers, samples, options, options.layers().gram));
  }
  if (options.sharedStay)
    for (const Node* layer : layers)
      if (readsSharedConstant(*layer)) statistics.erase(layer->result()->name());
  LayerRecovery recovery{observed, original, params, statistics, samples, options, cx};
  for (const Recipe& recipe : recipes()) {
    if (recipe.movesChannels() || !options.uses(recipe)) continue;
    QC_TRY(runRecipe(recipe, recovery, options.choiceOf(recipe)));
  }
  return {};
}

}  // namespace

Status recover(Graph& observed, const GroupParams& params, const Dataset& samples, const RecoverOptions& options, PassContext& cx) {
  return withoutExceptions([&] { return recoverByRecipes(observed, params, samples, options, cx); });
}

}  // namespace qc
