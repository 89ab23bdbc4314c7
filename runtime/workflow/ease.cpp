// Channels that are much larger than the rest, moved into weights where that helps: on the statistics of the layer (the passes), and then
// on samples that had no part in them (here).
#include <memory>
#include <optional>

#include "ir/arithmetic.h"
#include "passes/pass_manager.h"
#include "passes/quantize/equalize_layers.h"
#include "passes/quantize/smooth_quant.h"
#include "runtime/workflow/calibrate.h"
#include "runtime/workflow/channel_observer.h"
#include "runtime/workflow/compare.h"
#include "runtime/workflow/other_shapes.h"
#include "runtime/workflow/recover.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// Of a trial: enough to tell which way is better, and no more.
constexpr int64_t kTrialSamples = 32, kTrialChecks = 16;
constexpr double kLeastGain = 0.5;  // dB, below which luck decides

struct Ways {
  bool smooth = false, equalize = false;
  bool operator==(const Ways&) const = default;
};

// A simplified graph with what the channels say moved into weights; `acted`: which of the ways found something to move.
Result<Graph> easedGraph(Graph graph, const ChannelsByValue& channels, Ways ways, Ways* acted = nullptr) {
  PassContext cx;
  cx.provide(channels);
  if (ways.smooth) QC_TRY(runPipeline("smooth-quant", graph, cx));
  if (ways.equalize) QC_TRY(runPipeline("equalize-layers", graph, cx));
  if (acted) *acted = {cx.hits["smooth-quant/layers"] > 0, cx.hits["equalize-layers/pairs"] > 0};
  return graph;
}

// The eased model at other shapes: by the same channels, so that its weights are the same.
Model::Reshaper easedReshaper(const Model& model, const Graph& simplified, const ChannelsByValue& channels, Ways ways) {
  if (!model.reshaper()) return {};
  const auto float32 = std::make_shared<const Model>(model.graph().clone(), model.name(), model.reshaper());
  const auto graph = std::make_shared<const Graph>(simplified.clone());
  return [float32, graph, channels, ways](const Shapes& shapes) -> Result<Model> {
    QC_ASSIGN(Graph other, simplifiedAt(*float32, shapes));
    for (const auto& [name, found] : channels)
      if (!sameValue(other, *graph->findValue(name)))
        return fail(ErrorCode::kUnsupported, "this value does not exist at the shapes of a sample")
            .on(name)
            .help("calibrate with RecoverOptions::smoothQuant and RecoverOptions::equalize off, or with samples of the model's shape");
    QC_ASSIGN(Graph eased, easedGraph(std::move(other), channels, ways));
    return Model(std::move(eased), float32->name());
  };
}

struct Easing {
  const Model& model;
  const QConfigMapping& rules;
  const RecoverOptions& options;
  Graph simplified;
  const Dataset &seen, &unseen;   // by the channels that trials go by
  ChannelsByValue whole, parted;  // of all samples; of those seen

  Result<Model> at(Ways ways, const ChannelsByValue& channels) const {
    if (ways == Ways{}) return Model(model.graph().clone(), model.name(), model.reshaper());
    QC_ASSIGN(Graph graph, easedGraph(simplified.clone(), channels, ways));
    return Model(std::move(graph), model.name(), easedReshaper(model, simplified, channels, ways));
  }

  // What the outputs of the int8 model have on samples that its ranges have not seen, in dB; nothing when none of those has its shapes.
  Result<std::optional<double>> trial(Ways ways) const {
    QC_ASSIGN(const Model eased, at(ways, parted));
    PassContext cx;
    QC_ASSIGN(const Graph prepared, preparedGraph(eased, rules, cx));
    QC_ASSIGN(const Ranges ranges, calibrate(eased, rules, seen.thinned(kTrialSamples), {.threads = options.threads}));
    QC_ASSIGN(const GroupParams params, ranges.params());
    QC_ASSIGN(const Graph int8, convertedGraph(prepared, params));
    QC_ASSIGN(const Comparison found,
              compareLayers(prepared, int8, unseen, {.samples = kTrialChecks, .threads = options.threads, .outputsAlone = true}));
    return found.samples > 0 ? std::optional(found.outputs()) : std::nullopt;
  }

  // What was asked for, less what does not help there.
  Result<Model> best() const {
    Ways acted;
    QC_TRY(easedGraph(simplified.clone(), whole, {options.smoothQuant, options.equalize}, &acted));
    if (acted == Ways{} || unseen.size() == 0) return at(acted, whole);
    Ways chosen;
    options.tell("trials", 0, 3);
    QC_ASSIGN(std::optional<double> least, trial(chosen));
    if (!least) return at(acted, whole);
    for (const auto way : {&Ways::smooth, &Ways::equalize}) {
      options.tell("trials", way == &Ways::smooth ? 1 : 2, 3);
      if (!(acted.*way)) continue;
      Ways more = chosen;
      more.*way = true;
      QC_ASSIGN(const std::optional<double> found, trial(more));
      const bool helps = *found >= *least + kLeastGain;
      if (options.remark && !helps)
        options.remark(
            {"ease", "",
             fmt::format("{} is left out, it gains too little: {:.1f} dB with it, {:.1f} without, at the outputs on {} samples that its "
                         "statistics did not see",
                         way == &Ways::smooth ? "smooth-quant" : "equalize", *found, *least, std::min(unseen.size(), kTrialChecks))});
      if (!helps) continue;
      chosen = more;
      least = found;
    }
    options.tell("trials", 3, 3);
    return at(chosen, whole);
  }
};

}  // namespace

Result<Model> eased(const Model& model, const QConfigMapping& rules, const Dataset& samples, const RecoverOptions& options) {
  const DefinedArithmetic defined;
  PassContext cx;
  QC_ASSIGN(const Graph prepared, preparedGraph(model, rules, cx));
  const bool quantizes = !int8Layers(prepared).empty();
  Graph graph = model.graph().clone();
  QC_TRY(runPipeline("simplify", graph, cx));
  std::vector<std::string> names;
  std::vector<int> axes;
  const auto look = [&](const Value& value, int axis) {
    if (axis < 0 || !value.type().isStatic() || value.type().dtype != DType::f32) return;
    names.push_back(value.name());
    axes.push_back(axis);
  };
  const auto smoothAxis = [&](const Value& value) { return options.smoothQuant && isSmoothable(value) ? value.type().rank() - 1 : -1; };
  for (const Value* input : graph.inputs()) look(*input, smoothAxis(*input));
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (n->numResults() != 1) continue;
    const int axis = smoothAxis(*n->result());
    look(*n->result(), axis < 0 && options.equalize ? equalizableAxis(*n) : axis);
  }
  if (!quantizes || names.empty() || samples.size() == 0) return Model(model.graph().clone(), model.name(), model.reshaper());
  Dataset seen = samples, own;
  if (!options.check && samples.size() > 1) own = seen.leaveOut();
  const auto isSeen = [&](int64_t index) { return options.check || samples.size() < 2 || !Dataset::isLeftOut(index, samples.size()); };
  std::vector<ChannelObserver> whole, parted;
  for (size_t k = 0; k < names.size(); ++k)
    whole.emplace_back(graph.findValue(names[k])->type().shape[static_cast<size_t>(axes[k])].size(), axes[k]);
  parted = whole;
  const auto tapsAt = [&](const Shapes& shapes) -> Result<Taps> {
    if (shapes == inputShapes(graph)) return Taps::open(graph, names, {.threads = options.threads});
    QC_ASSIGN(const Graph other, simplifiedAt(model, shapes));
    return Taps::open(other, names, {.threads = options.threads});
  };
  PerShapes<Taps> taps;
  const std::vector<int64_t> indices = spreadSamples(samples.size(), options.samples);
  for (size_t i = 0; i < indices.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, anySample(model, samples, indices[i]));
    QC_ASSIGN(Taps * there, taps.at(shapesOf(sample), tapsAt));
    QC_TRY(there->run(sample));
    options.tell("channels", i + 1, indices.size());
    for (size_t k = 0; k < names.size(); ++k) {
      whole[k].add(there->value(k));
      if (own.size() > 0 && isSeen(indices[i])) parted[k].add(there->value(k));
    }
  }
  Easing easing{model, rules, options, std::move(graph), seen, options.check ? *options.check : own, {}, {}};
  for (size_t k = 0; k < names.size(); ++k) {
    easing.whole.insert_or_assign(names[k], std::move(whole[k]).take());
    easing.parted.insert_or_assign(names[k], own.size() > 0 ? std::move(parted[k]).take() : easing.whole[names[k]]);
  }
  return easing.best();
}

}  // namespace qc
