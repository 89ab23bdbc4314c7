// What calibration samples can win back of the accuracy that rounding costs: here the samples run, and the recipes (recipes.h) get what
// they need.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/data/dataset.h"
#include "passes/pass.h"
#include "quantizer/group_params.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/prepared_model.h"
#include "runtime/workflow/recipes.h"

namespace qc {

struct RecoverOptions {
  std::map<std::string, std::string, std::less<>> choices = {};  // by name of a recipe; else the rules', else the default
  int64_t samples = 128;                                         // at most so many of the calibration samples, evenly spread
  int64_t positions = 8192;                                      // of every layer, at least, over all samples
  int threads = 1;
  // Samples that have no part in calibration: what moves channels is kept if it helps on them.  None: a part of the samples is left out of
  // that decision.
  const Dataset* check = nullptr;
  bool sharedStay = false;            // constants that several layers read, in one form or several, stay as they are
  LayerObserver* observer = nullptr;  // that calibration of the same model and samples carried: they need not run for it again
  std::function<void(const char* stage, int64_t done, int64_t total)> progress = {};
  std::function<void(const Remark&)> remark = {};  // what was decided against

  RecoverOptions& choose(std::string recipe, std::string choice) {
    choices.insert_or_assign(std::move(recipe), std::move(choice));
    return *this;
  }
  std::string_view choiceOf(const Recipe& recipe) const;
  bool uses(const Recipe& recipe) const { return choiceOf(recipe) != recipe.off; }
  RecoverOptions under(const std::optional<QConfigMapping>& rules) const;  // with the choices of the rules where it has none
  Status checkChoices() const;                                             // error: no such recipe, or not a choice of it

  void tell(const char* stage, size_t done, size_t total) const {
    if (progress) progress(stage, static_cast<int64_t>(done), static_cast<int64_t>(total));
  }
  bool movesChannels() const;
  bool looksAtLayers() const;
  bool goesInTurn(const Node& layer) const;  // whether what recipes make of it depends on the layers before it
  LayerObserverOptions layers() const;
};

// The same function, easier to quantize: by the recipes of channels.  What is given where there is nothing to move, or nothing that helps;
// so for rules that make no layer int8, and for a quantizer of one's own.
Result<PreparedModel> balanceChannels(PreparedModel model, const Dataset& samples, const RecoverOptions& options);

// The recipes for which balanceChannels() would look for something to move.
std::vector<std::string_view> couldBalance(const PreparedModel& model, const RecoverOptions& options);

// The recipes of layers.  Edits a graph with observers whose parameters are known.  Memory does not grow with the number of samples.
Status recover(Graph& observed, const GroupParams& params, const Dataset& samples, const RecoverOptions& options, PassContext& cx);

// The statistics of what these layers read, by name of the layer, in a graph where their results have kept their names.
Result<StatisticsByLayer> observeLayers(const Graph& graph, const std::vector<const Node*>& layers, const Dataset& samples,
                                        const RecoverOptions& options, bool products);

}  // namespace qc
