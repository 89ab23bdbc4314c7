// Channels that are much larger than the rest, moved into weights where that helps: on the statistics of the layer (the passes), and then
// on samples that had no part in them (here).
#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/constant_view.h"
#include "ir/guarded.h"
#include "passes/pass_manager.h"
#include "passes/quantize/channel_noise.h"
#include "quantizer/channel_statistics.h"
#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/compare.h"
#include "runtime/workflow/recover.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// Of a trial: enough to tell which way is better, and no more.
constexpr int64_t kTrialSamples = 32, kTrialChecks = 16;
constexpr double kMinGain = 0.5;  // dB, below which luck decides
constexpr int64_t kStepsOf7Bits = 127;

// Whether some layer's weights have one scale for all channels.
bool hasOneScale(const Graph& observed) {
  for (const Node* n = observed.front(); n; n = n->next()) {
    if (!n->annotation()) continue;
    for (size_t i = 0; i < n->annotation()->inputs.size(); ++i) {
      const auto* spec = std::get_if<ObservedSpec>(&n->annotation()->inputs[i]);
      const Value* operand = n->operand(static_cast<int>(i));
      if (spec && spec->axis < 0 && spec->blockSize == 0 && operand && operand->constant()) return true;
    }
  }
  return false;
}

// What is asked for and of use to these rules.
bool isAsked(const Recipe& recipe, const RecoverOptions& options, const Graph& observed) {
  return recipe.movesChannels() && options.uses(recipe) && (!recipe.forOneScale || hasOneScale(observed));
}

using Ways = std::set<const Recipe*>;  // those that act; their order is that of the rows

// Of most of the layers' weights.
WeightSteps weightStepsOf(const Graph& observed) {
  std::map<int64_t, int64_t> layers;
  for (const Node* layer : int8Layers(observed))
    if (const auto* spec = std::get_if<ObservedSpec>(&layer->annotation()->inputs[1])) ++layers[spec->qmax - spec->qmin];
  const auto most = std::max_element(layers.begin(), layers.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == layers.end() ? WeightSteps() : WeightSteps{most->first};
}

// A simplified graph with what the channels say moved into weights; `acted`: which of the ways found something to move.
Result<Graph> balancedGraph(Graph graph, const ChannelsByValue& channels, const WeightSteps& weights, const Ways& ways,
                            Ways* acted = nullptr) {
  PassContext cx;
  cx.provide(channels);
  cx.provide(weights);
  for (const Recipe& recipe : recipes()) {
    if (!ways.contains(&recipe)) continue;
    cx.hits.clear();
    QC_TRY(runPipeline(recipe.pass, graph, cx));
    for (const auto& [rule, hits] : cx.hits)
      if (acted && hits > 0) acted->insert(&recipe);
  }
  return graph;
}

struct Balancing {
  PreparedModel model;
  const RecoverOptions& options;
  const Dataset &seen, &unseen;   // by the channels that trials go by
  ChannelsByValue whole, parted;  // of all samples; of those seen

  Result<PreparedModel> at(const Ways& ways, const ChannelsByValue& channels) const {
    QC_ASSIGN(Graph graph, balancedGraph(model.simplified->clone(), channels, weightStepsOf(*model.observed), ways));
    QC_ASSIGN(PreparedModel made,
              prepareModel(Model(std::move(graph), model.name), *model.rules, {.insertions = model.insertions, .simplified = true}));
    made.batchNorms = model.batchNorms;  // whose layers have kept their names; factors stand in the moves
    return made;
  }

  Result<PreparedModel> untried(const Ways& ways, std::string_view why) const {
    for (const Recipe* recipe : ways)
      if (options.remark) options.remark({"balance-channels", "", fmt::format("{} is used without a trial, {}", recipe->name, why)});
    return at(ways, whole);
  }

  // What the outputs of the int8 model have on samples that its ranges have not seen, in dB; nothing when none of those has its shapes.
  Result<std::optional<double>> trial(const PreparedModel& balanced) const {
    QC_ASSIGN(const Ranges ranges, calibrate(balanced, seen.thinned(kTrialSamples), {.threads = options.threads}));
    QC_ASSIGN(const GroupParams params, ranges.params());
    Graph observed = balanced.observed->clone();
    if (weightStepsOf(observed).count < kStepsOf7Bits) QC_TRY(rounded(observed, params));
    QC_ASSIGN(const Graph int8, convertedGraph(observed, params));
    QC_ASSIGN(const Comparison found,
              compareLayers(*model.observed, int8, unseen, {.samples = kTrialChecks, .threads = options.threads, .outputsAlone = true}));
    return found.samples > 0 && found.hasOutputs() ? std::optional(found.outputs()) : std::nullopt;
  }

  // Weights of few bits are rounded as they will be, short of one run for each layer: to the nearest, what that loses would hide the rest.
  Status rounded(Graph& observed, const GroupParams& params) const {
    RecoverOptions how = options.under(model.rules);
    const std::vector<const Node*> layers = int8Layers(observed);
    for (const Recipe& recipe : recipes())
      for (const Node* layer : layers)
        if (recipe.inTurn && recipe.inTurn(how.choiceOf(recipe), *layer)) how.choose(std::string(recipe.name), std::string(recipe.off));
    how.samples = kTrialSamples;
    how.observer = nullptr;
    how.progress = {};
    PassContext cx;
    if (model.rules) cx.provide(*model.rules);
    return recover(observed, params, seen, how, cx);
  }

  // What was asked for, less what does not help there.
  Result<PreparedModel> best() && {
    Ways asked, acted;
    for (const Recipe& recipe : recipes())
      if (isAsked(recipe, options, *model.observed)) asked.insert(&recipe);
    QC_TRY(balancedGraph(model.simplified->clone(), whole, weightStepsOf(*model.observed), asked, &acted));
    if (acted.empty()) return std::move(model);
    if (unseen.size() == 0) return untried(acted, "there is no sample beside the one that its statistics saw: give more samples");
    Ways chosen;
    size_t tried = 0;
    options.tell("trials", 0, asked.size() + 1);
    QC_ASSIGN(std::optional<double> least, trial(model));
    if (!least) return untried(acted, "no output of the model is computed from floats to tell by: compare with `qcompile debug`");
    for (const Recipe& recipe : recipes()) {
      if (!asked.contains(&recipe)) continue;
      options.tell("trials", ++tried, asked.size() + 1);
      if (!acted.contains(&recipe)) continue;
      Ways more = chosen;
      more.insert(&recipe);
      QC_ASSIGN(const PreparedModel balanced, at(more, parted));
      QC_ASSIGN(const std::optional<double> found, trial(balanced));
      const bool helps = *found >= *least + kMinGain;
      if (options.remark && !helps)
        options.remark(
            {"balance-channels", "",
             fmt::format("{} is left out, it gains too little: {:.1f} dB with it, {:.1f} without, at the outputs on {} samples that its "
                         "statistics did not see",
                         recipe.name, *found, *least, std::min(unseen.size(), kTrialChecks))});
      if (!helps) continue;
      chosen = std::move(more);
      least = found;
    }
    options.tell("trials", asked.size() + 1, asked.size() + 1);
    return chosen.empty() ? Result<PreparedModel>(std::move(model)) : at(chosen, whole);
  }
};

// Whether the channels of the value are those of constants that others read as well: on the way to the first constants in front of it and
// behind it.
bool touchesShared(const Value& value) {
  const auto hasConstants = [](const Node& n) {
    const std::vector<Value*> operands = n.operands();
    return std::any_of(operands.begin(), operands.end(), [](const Value* v) { return v && v->constant(); });
  };
  std::vector<const Node*> open;
  std::set<const Node*> seen;
  const auto visit = [&](const Node* n) {
    if (n && seen.insert(n).second) open.push_back(n);
  };
  for (const Node* n = value.producer(); n; n = hasConstants(*n) ? nullptr : n->operand(0) ? n->operand(0)->producer() : nullptr)
    if (readsSharedConstant(*n)) return true;
  for (const Node* user : value.users()) visit(user);
  while (!open.empty()) {
    const Node* n = open.back();
    open.pop_back();
    if (readsSharedConstant(*n)) return true;
    if (hasConstants(*n)) continue;
    for (int i = 0; i < n->numResults(); ++i)
      for (const Node* user : n->result(i)->users()) visit(user);
  }
  return false;
}

// The values whose channels recipes may move, and the axes of these.
struct LookedAt {
  std::vector<std::string> names;
  std::vector<int> axes;
};
LookedAt lookedAt(const PreparedModel& model, const RecoverOptions& options) {
  const Graph& graph = *model.simplified;
  std::vector<const Recipe*> asked;
  for (const Recipe& recipe : recipes())
    if (isAsked(recipe, options, *model.observed)) asked.push_back(&recipe);
  LookedAt found;
  const auto look = [&](const Value& value) {
    if (value.type().dtype != DType::f32 || (options.sharedStay && touchesShared(value))) return;
    for (const Recipe* recipe : asked) {
      const int axis = recipe->channelAxis(value);
      if (axis < 0 || !nth(value.type().shape, axis).isStatic()) continue;
      found.names.push_back(value.name());
      found.axes.push_back(axis);
      return;
    }
  };
  for (const Value* input : graph.inputs()) look(*input);
  for (const Node* n = graph.front(); n; n = n->next())
    if (n->numResults() == 1) look(*n->result());
  return found;
}

Result<PreparedModel> balancedByRecipes(PreparedModel model, const Dataset& samples, const RecoverOptions& wanted) {
  const DefinedArithmetic defined;
  QC_TRY(checkPrepared(model));
  const RecoverOptions options = wanted.under(model.rules);
  QC_TRY(options.checkChoices());
  if (!model.rules || samples.size() == 0 || int8Layers(*model.observed).empty()) return model;
  const Graph& graph = *model.simplified;
  const auto [names, axes] = lookedAt(model, options);
  if (names.empty()) return model;
  Dataset seen = samples, own;
  if (!options.check && samples.size() > 1) own = seen.leaveOut();
  const auto isSeen = [&](int64_t index) { return options.check || samples.size() < 2 || !Dataset::isLeftOut(index, samples.size()); };
  std::vector<ChannelObserver> whole, parted;
  for (size_t k = 0; k < names.size(); ++k) whole.emplace_back(nth(graph.findValue(names[k])->type().shape, axes[k]).size(), axes[k]);
  parted = whole;
  QC_ASSIGN(Taps taps, Taps::open(graph, names, {.threads = options.threads}));
  const std::vector<int64_t> indices = spreadSamples(samples.size(), options.samples);
  for (size_t i = 0; i < indices.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, samples.sample(indices[i]));
    if (Status run = taps.run(sample); !run) return inSample(samples, indices[i], run.error());
    options.tell("channels", i + 1, indices.size());
    for (size_t k = 0; k < names.size(); ++k) {
      whole[k].add(taps.value(k));
      if (own.size() > 0 && isSeen(indices[i])) parted[k].add(taps.value(k));
    }
  }
  Balancing easing{std::move(model), options, seen, options.check ? *options.check : own, {}, {}};
  for (size_t k = 0; k < names.size(); ++k) {
    easing.whole.insert_or_assign(names[k], std::move(whole[k]).take());
    easing.parted.insert_or_assign(names[k], own.size() > 0 ? std::move(parted[k]).take() : easing.whole[names[k]]);
  }
  return std::move(easing).best();
}

}  // namespace

std::vector<std::string_view> couldBalance(const PreparedModel& model, const RecoverOptions& wanted) {
  const RecoverOptions options = wanted.under(model.rules);
  std::vector<std::string_view> found;
  if (!model.rules || int8Layers(*model.observed).empty()) return found;
  for (const Recipe& recipe : recipes()) {
    if (!isAsked(recipe, options, *model.observed)) continue;
    RecoverOptions alone = options;
    for (const Recipe& other : recipes())
      if (&other != &recipe && other.movesChannels()) alone.choose(std::string(other.name), std::string(other.off));
    if (!lookedAt(model, alone).names.empty()) found.push_back(recipe.name);
  }
  return found;
}

Result<PreparedModel> balanceChannels(PreparedModel model, const Dataset& samples, const RecoverOptions& options) {
  return withoutExceptions([&] { return balancedByRecipes(std::move(model), samples, options); });
}

}  // namespace qc
