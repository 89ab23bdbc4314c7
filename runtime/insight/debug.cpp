#include "runtime/insight/debug.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>
#include <set>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/branches.h"
#include "ir/guarded.h"
#include "ir/quantized.h"
#include "passes/lower/bound_graph.h"
#include "passes/pass_manager.h"
#include "runtime/insight/paired_ends.h"
#include "runtime/insight/shadow.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// Values to be seen, each once.
class Wanted {
 public:
  size_t add(const std::string& name) {
    const auto [it, added] = places_.emplace(name, names.size());
    if (added) names.push_back(name);
    return it->second;
  }
  std::vector<std::string> names;

 private:
  std::map<std::string, size_t> places_;
};

// With layers over plain integers, as ONNX writes them, in the form between quantize and dequantize.
Result<Graph> recognized(const Graph& graph) {
  Graph copy = graph.clone();
  PassContext cx;
  QC_TRY(runPipeline("fold-constants{narrow_weights=1},recognize-integer,dce", copy, cx));
  return copy;
}

class Debugging {
 public:
  Debugging(const Graph& reference, const Graph& actual, const Dataset& samples, const DebugOptions& options)
      : reference_(reference), actual_(actual), samples_(samples), options_(options), branches_(conditionsOf(actual)) {}

  Result<Debugged> run() {
    QC_ASSIGN(pairing_, pairModels(reference_, actual_));
    QC_TRY(choose());
    Debugged found;
    QC_ASSIGN(auto weights, compareWeights(reference_, actual_, pairing_.layers, pairing_.notes));
    outputs_.resize(pairing_.layers.size());
    unlike_.resize(pairing_.layers.size());
    shadows_.resize(pairing_.layers.size());
    QC_TRY(runSamples(found));
    for (size_t k = 0; k < pairing_.layers.size(); ++k) {
      DebuggedLayer layer{pairing_.layers[k], weights[k], std::move(outputs_[k]), std::move(shadows_[k])};
      (layer.pair.output ? found.outputs : found.layers).push_back(std::move(layer));
    }
    found.unmatched = std::move(pairing_.unmatched);
    found.notes = std::move(pairing_.notes);
    for (size_t k = 0; k < unlike_.size(); ++k)
      if (unlike_[k] > 0)
        found.notes.push_back(
            fmt::format("'{}': the models give another number of values for {} of {} samples, as their data decides it; "
                        "figures leave these out",
                        pairing_.layers[k].layer, unlike_[k], found.samples));
    if (apart_ > 0)
      found.notes.push_back(fmt::format("the data of the models takes other branches for {} of {} samples; no layer is shadowed on these",
                                        apart_, found.samples));
    for (size_t i = 0; i < reference_.outputs().size(); ++i)
      if (const TensorType& type = reference_.outputs()[i]->type(); !isFloat(type.dtype) && !type.isQuantized())
        found.notes.push_back(fmt::format("output '{}' is {}, not float: compare holds it against that of the other model",
                                          reference_.outputNames()[i], toString(type.dtype)));
    return found;
  }

 private:
  // The layers that were asked for; outputs always.
  Status choose() {
    if (std::none_of(pairing_.layers.begin(), pairing_.layers.end(), [](const LayerPair& l) { return !l.output; }) &&
        !pairing_.unmatched.empty())
      return fail(ErrorCode::kInvalidArgument, "the models have no layer in common, neither by name nor by what computes from what")
          .on(pairing_.unmatched.front())
          .help("give the float model that the quantized one was made of");
    if (options_.layers.empty()) return {};
    std::regex pattern;
    try {
      pattern = std::regex(options_.layers);
    } catch (const std::regex_error& e) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is not a regular expression: {}", options_.layers, e.what());
    }
    const auto all = pairing_.layers.size();
    std::erase_if(pairing_.layers, [&](const LayerPair& l) { return !l.output && !std::regex_search(l.layer, pattern); });
    if (std::all_of(pairing_.layers.begin(), pairing_.layers.end(), [](const LayerPair& l) { return l.output; }))
      return fail(ErrorCode::kInvalidArgument, "no layer of {} matches '{}'", all, options_.layers).help("run without it for their names");
    return {};
  }

  Status runSamples(Debugged& found) {
    Wanted theirs, ours;
    for (const LayerPair& layer : pairing_.layers) {
      theirs_.push_back(theirs.add(layer.reference));
      ours_.push_back(ours.add(layer.actual));
    }
    if (options_.shadow) {
      for (const ValuePair& pair : pairing_.values)
        if (pair.border) feeds_[pair.computed] = theirs.add(pair.reference);
      for (const std::string& name : pairing_.decisions) feeds_[name] = theirs.add(name);
    }
    for (const Node* n = actual_.front(); n && options_.shadow; n = n->next())
      if (const Value* condition = conditionOf(*n)) conditions_[condition->name()] = ours.add(condition->name());
    QC_ASSIGN(Taps x, Taps::open(reference_, theirs.names, {.threads = options_.threads}));
    QC_ASSIGN(Taps y, Taps::open(actual_, ours.names, {.threads = options_.threads}));
    const std::vector<int64_t> indices = spreadSamples(samples_.size(), options_.samples);
    if (indices.empty()) return fail(ErrorCode::kInvalidData, "there are no samples to compare on");
    for (const int64_t index : indices) {
      QC_ASSIGN(const TensorMap sample, samples_.sample(index));
      if (Status run = one(x, y, sample, index); !run) return inSample(samples_, index, run.error());
      ++found.samples;
      if (options_.progress) options_.progress(found.samples, static_cast<int64_t>(indices.size()));
    }
    for (const bool reference : {true, false}) {
      const int64_t index = reference ? badReference_ : badActual_;
      if (index < 0) continue;
      QC_ASSIGN(const TensorMap sample, samples_.sample(index));
      QC_ASSIGN(const std::vector<NonFinite> places,
                reference ? firstNonFinite(reference_, sample) : firstNonFinite(actual_, sampleFor(actual_, sample)));
      for (NonFinite place : places) {
        place.reference = reference;
        place.sample = index;
        found.nonFinite.push_back(std::move(place));
      }
    }
    return {};
  }

  Status one(Taps& x, Taps& y, const TensorMap& sample, int64_t index) {
    const TensorMap theirs = sampleFor(actual_, sample);
    QC_TRY(x.run(sample));
    QC_TRY(y.run(theirs));
    for (size_t k = 0; k < pairing_.layers.size(); ++k)
      QC_TRY(compare(k, false, x.value(theirs_[k]), y.value(ours_[k]), index, outputs_[k]));
    return options_.shadow ? runShadow(x, y, theirs, index) : Status();
  }

  Status compare(size_t k, bool shadow, const Tensor& want, const Tensor& is, int64_t index, Measurement& into) {
    const LayerPair& layer = pairing_.layers[k];
    if (want.dtype() != DType::f32 || is.dtype() != DType::f32) return {};
    if (want.numElements() == 0 && is.numElements() == 0) return {};  // as in a branch that is not taken
    if (want.sizes() != is.sizes()) {
      if (!mayBeOne(reference_.findValue(layer.reference)->type().shape, actual_.findValue(layer.actual)->type().shape))
        return fail(ErrorCode::kInvalidArgument, "{} in one model, {} in the other: they are not of one origin", want.type().str(),
                    is.type().str())
            .at(layer.layer)
            .on(layer.actual)
            .help("give the float model that the quantized one was made of");
      if (!shadow) ++unlike_[k];
      return {};
    }
    Tensor moved = is;
    if (!layer.factors.empty()) layer.toReference(moved.mutableAs<float>(), moved.sizes());
    if (badReference_ < 0 && !allFinite(want.as<float>())) badReference_ = index;
    if (badActual_ < 0 && !shadow && !allFinite(is.as<float>())) badActual_ = index;
    const QuantPtr params = layer.paramsOfReference();
    QC_TRY(into.add({want.as<float>(), moved.as<float>(), want.sizes(), params.get(), index}));
    if (!options_.log) return {};
    return guarded("a logger", [&] { return options_.log({layer, shadow, index, want.sizes(), want.as<float>(), moved.as<float>()}); });
  }

  // ---- Shadow ----
  struct Fed {
    Shadow shadow;
    std::vector<size_t> layers;  // of its taps
    Taps taps;
  };

  bool isRun(const std::string& name, const std::map<std::string, bool>& taken) const {
    const Value* v = actual_.findValue(name);
    return std::ranges::all_of(conditionsOf(branches_, v ? v->producer() : nullptr), [&](const auto& guard) {
      const auto known = taken.find(guard.first->name());
      return known != taken.end() && known->second == guard.second;
    });
  }

  Result<Fed> fedAt(const Shapes& shapes, const std::map<std::string, bool>& taken) const {
    Graph bound = actual_.clone();
    for (const auto& [name, holds] : taken) {  // with the sizes the branches are settled
      Value* condition = bound.findValue(name);
      Tensor value(DType::boolean, condition->type().isStatic() ? condition->type().sizes() : std::vector<int64_t>());
      storeElement(DType::boolean, value.mutableData(), 0, holds ? 1 : 0);
      Builder b(bound);
      b.before(bound.front());
      condition->replaceAllUsesWith(b.constant({}, std::move(value)), true);
    }
    if (hasFreeDims(actual_) || !taken.empty()) {
      QC_ASSIGN(bound, boundGraph(bound, shapes));
    }
    Pairing there = pairing_;
    std::erase_if(there.values, [&](const ValuePair& pair) { return !isRun(pair.computed, taken); });
    std::erase_if(there.decisions, [&](const std::string& name) { return !isRun(name, taken); });
    QC_ASSIGN(Shadow shadow, shadowOf(bound, there));
    std::vector<std::string> names;
    std::vector<size_t> layers;
    for (size_t k = 0; k < shadow.results.size(); ++k) {
      if (shadow.results[k].empty()) continue;
      names.push_back(shadow.results[k]);
      layers.push_back(k);
    }
    QC_ASSIGN(Taps taps, Taps::open(shadow.graph, names, {.threads = options_.threads}));
    return Fed{std::move(shadow), std::move(layers), std::move(taps)};
  }

  Status runShadow(Taps& x, const Taps& y, const TensorMap& sample, int64_t index) {
    std::map<std::string, bool> taken;
    for (const auto& [name, tap] : conditions_)
      if (const Tensor& value = y.value(tap); value.numElements() == 1) taken[name] = value.at(0) != 0;
    QC_ASSIGN(Fed* const fed, shapes_[taken].at(shapesOf(sample), [&](const Shapes& shapes) { return fedAt(shapes, taken); }));
    TensorMap inputs = sample;
    for (const Shadow::Feed& feed : fed->shadow.feeds) {
      Tensor value = x.value(feeds_.at(feed.pair.computed));
      if (!feed.pair.factors.empty()) feed.pair.toActual(value.mutableAs<float>(), value.sizes());
      inputs.insert_or_assign(feed.input, std::move(value));
    }
    // What the first model has there may be of other sizes, or not there: its data took another branch.
    if (!bindingsOf(fed->shadow.graph, shapesOf(inputs))) {
      ++apart_;
      return {};
    }
    QC_TRY(fed->taps.run(inputs));
    for (size_t i = 0; i < fed->layers.size(); ++i) {
      const size_t k = fed->layers[i];
      if (!shadows_[k]) shadows_[k].emplace();
      QC_TRY(compare(k, true, x.value(theirs_[k]), fed->taps.value(i), index, *shadows_[k]));
    }
    return {};
  }

  const Graph &reference_, &actual_;
  const Dataset& samples_;
  const DebugOptions& options_;
  const std::map<const Node*, Conditions> branches_;
  Pairing pairing_;
  std::vector<size_t> theirs_, ours_;    // where the values of a layer are among the taps
  std::map<std::string, size_t> feeds_;  // those that a shadow reads, by name in the actual graph
  std::vector<Measurement> outputs_;
  std::vector<int64_t> unlike_;  // samples of which data decides another size in one model than in the other
  int64_t apart_ = 0;            // samples of which data takes another branch in one model than in the other
  std::vector<std::optional<Measurement>> shadows_;
  int64_t badReference_ = -1, badActual_ = -1;                    // the first sample with values that are no numbers
  std::map<std::string, size_t> conditions_;                      // of the branches of the actual graph: where they are among its taps
  std::map<std::map<std::string, bool>, PerShapes<Fed>> shapes_;  // by what these are
};

}  // namespace

Result<Debugged> debugModels(const Model& reference, const Model& actual, const Dataset& samples, const DebugOptions& options) {
  return withoutExceptions([&]() -> Result<Debugged> {
    const DefinedArithmetic defined;
    QC_ASSIGN(const Graph x, recognized(reference.graph()));
    QC_ASSIGN(const Graph y, recognized(actual.graph()));
    QC_ASSIGN(Debugged found, Debugging(x, y, samples, options).run());
    if (isQuantized(x) && !isQuantized(y))
      found.notes.emplace_back(
          "the first model is quantized and the second is not: figures are against the first; the float model comes first");
    return found;
  });
}

}  // namespace qc
