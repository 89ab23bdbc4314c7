#include "runtime/insight/trials.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/branches.h"
#include "ir/guarded.h"
#include "passes/pass_manager.h"
#include "passes/quantize/convert_parts.h"
#include "quantizer/rules/spec_json.h"
#include "runtime/workflow/loop_bodies.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// A value that is observed in a branch is seen by the samples that take it, wherever it was computed.
struct Watched {
  std::string value;
  std::vector<std::pair<std::string, bool>> where;  // conditions, and what they have to be
};

// What one observer of a graph with observers watches, and how.
struct Watch {
  std::vector<Watched> values;
  ObservedSpec spec;
  std::string key() const {
    std::string text = fmt::format("{}/{}", toString(QuantSpec(spec)), spec.eps);
    for (const Watched& v : values) {
      text += fmt::format("/{}:{}", v.value.size(), v.value);
      for (const auto& [condition, holds] : v.where) text += fmt::format("?{}:{}={}", condition.size(), condition, holds);
    }
    return text;
  }
};

std::map<int64_t, Watch> watchesOf(const Graph& observed) {
  std::map<int64_t, Watch> watches;
  const std::map<const Node*, Conditions> branches = conditionsOf(observed);
  for (const Node* n = observed.front(); n; n = n->next()) {
    if (!n->is("observe")) continue;
    const auto* spec = std::get_if<ObservedSpec>(&n->annotation()->output);
    if (!spec) continue;  // parameters known beforehand
    const Value* value = n->operand(0);
    while (value->producer() && value->producer()->is("observe")) value = value->producer()->operand(0);
    Watch& watch = watches[n->integer("id")];
    watch.spec = *spec;
    Watched& watched = watch.values.emplace_back(value->name());
    for (const auto& [condition, holds] : conditionsOf(branches, n)) watched.where.emplace_back(condition->name(), holds);
  }
  return watches;
}

// A layer's weights and bias as recipes left them.
struct Recovered {
  Tensor weight;
  QuantSpec weightSpec, biasSpec;
  std::optional<Tensor> bias;
  bool hasBiasSpec = false;
};
using RecoveredLayers = std::map<std::pair<std::string, std::string>, Recovered>;  // by the layer's result and its weights' spec

}  // namespace

struct Trials::Impl {
  PreparedModel model;
  Dataset calibration;
  RecoverOptions recovery;
  std::map<std::string, std::unique_ptr<Observer>> observers;  // by Watch::key()
  BranchCounts branches;                                       // with any observers, of all conditions
  std::optional<LayerObserver> layers;
  RecoveredLayers recovered;
  int64_t runs = 0;

  Result<PreparedModel> prepared(const QConfigMapping& rules) const {
    return prepareModel(Model(model.simplified->clone(), model.name), rules, {.insertions = model.insertions, .simplified = true});
  }

  // Runs the samples for those of these that nobody watched yet; `first`: for the statistics of layers as well.
  Status observe(const std::map<std::string, Watch>& wanted, bool first) {
    std::vector<std::pair<const Watch*, Observer*>> missing;
    std::map<std::string, std::unique_ptr<Observer>> made;
    for (const auto& [key, watch] : wanted) {
      if (observers.contains(key)) continue;
      QC_ASSIGN(std::unique_ptr<Observer> observer, makeObserver(watch.spec));
      missing.emplace_back(&watch, observer.get());
      made.emplace(key, std::move(observer));
    }
    const bool watchesLayers = first && layers && !layers->values().empty();
    if (missing.empty() && !watchesLayers) return {};
    std::vector<std::string> names;
    std::map<std::string, size_t> placeOf;
    const auto look = [&](const std::string& value) {
      if (placeOf.emplace(value, names.size()).second) names.push_back(value);
    };
    for (const auto& [watch, observer] : missing)
      for (const Watched& watched : watch->values) {
        look(watched.value);
        for (const auto& [condition, holds] : watched.where) look(condition);
      }
    std::set<std::string> conditions;
    if (branches.empty())
      for (const auto& [node, guards] : conditionsOf(*model.observed))
        for (const auto& [condition, holds] : guards) conditions.insert(condition->name());
    for (const std::string& condition : conditions) look(condition);
    const size_t ofLayers = names.size();
    if (watchesLayers) names.insert(names.end(), layers->values().begin(), layers->values().end());
    QC_ASSIGN(Taps taps, Taps::open(*model.observed, names, {.threads = recovery.threads}));
    for (int64_t i = 0; i < calibration.size(); ++i) {
      QC_ASSIGN(const TensorMap sample, calibration.sample(i));
      if (Status run = taps.run(sample); !run) return inSample(calibration, i, run.error());
      for (const auto& [watch, observer] : missing)
        for (const Watched& watched : watch->values) {
          const bool isTaken = std::ranges::all_of(watched.where, [&](const auto& where) {
            const Tensor& condition = taps.value(placeOf.at(where.first));
            return condition.numElements() == 1 && (condition.at(0) != 0) == where.second;
          });
          if (isTaken) QC_TRY(observer->observe(taps.value(placeOf.at(watched.value)).ref()));
        }
      for (const std::string& name : conditions)
        if (const Tensor& condition = taps.value(placeOf.at(name)); condition.numElements() == 1)
          ++branches[asText(name)][condition.at(0) != 0 ? 1 : 0];
      if (watchesLayers) layers->see(i, taps.values().subspan(ofLayers));
      recovery.tell("calibrate", usize(i) + 1, usize(calibration.size()));
    }
    ++runs;
    observers.merge(made);
    return {};
  }

  Result<GroupParams> paramsOf(const Graph& observed) {
    std::map<std::string, Watch> wanted;
    const std::map<int64_t, Watch> watches = watchesOf(observed);
    for (const auto& [id, watch] : watches) wanted.emplace(watch.key(), watch);
    QC_TRY(observe(wanted, false));
    GroupParams params;
    params.branches = branches;
    for (const auto& [id, watch] : watches) {
      const Observer& observer = *observers.at(watch.key());
      if (!observer.observed()) continue;
      QC_ASSIGN(QuantParams found, observer.checkedParams());
      params.emplace(id, std::make_shared<const QuantParams>(std::move(found)));
    }
    return params;
  }

  // Takes what recipes did to a layer under the same spec before, if that is known; else does it, and adds it.
  Status recover(Graph& graph, const GroupParams& params, PassContext& cx, RecoveredLayers& recovered) {
    if (!recovery.looksAtLayers() || !layers || !layers->complete()) return {};
    keepUnseenFloat(graph, params, cx);  // whose layers are none to be recovered
    std::vector<std::pair<std::string, std::string>> known, fresh;
    std::map<std::string, QuantSpec> specs;
    for (const Node* layer : int8Layers(graph)) {
      const std::string& name = layer->result()->name();
      const QuantSpec& spec = layer->annotation()->inputs[1];
      const std::pair key(name, toString(spec));
      (recovered.contains(key) ? known : fresh).push_back(key);
      specs.emplace(name, spec);
    }
    const auto layerOf = [&](const std::string& name) { return graph.findValue(name)->producer(); };
    if (!fresh.empty()) {
      // Those that are known are out of the way meanwhile.
      for (const auto& [name, spec] : known) layerOf(name)->annotation()->inputs[1] = QuantSpec();
      LayerObserver copy = *layers;
      RecoverOptions options = recovery;
      options.observer = &copy;
      QC_TRY(qc::recover(graph, params, calibration, options, cx));
      for (const auto& [name, spec] : known) layerOf(name)->annotation()->inputs[1] = specs.at(name);
      for (const auto& key : fresh) {
        const Node& layer = *layerOf(key.first);
        Recovered& r = recovered[key];
        r.weight = *layer.operand("w")->constant();
        r.weightSpec = layer.annotation()->inputs[1];
        r.hasBiasSpec = layer.annotation()->inputs.size() > 2;
        if (r.hasBiasSpec) r.biasSpec = layer.annotation()->inputs[2];
        if (const Value* bias = layer.operand("bias"); bias && bias->constant()) r.bias = *bias->constant();
      }
    }
    for (const auto& key : known) apply(graph, *layerOf(key.first), recovered.at(key));
    graph.eraseDeadNodes();
    return {};
  }

  static void apply(Graph& graph, Node& layer, const Recovered& r) {
    Builder b(graph);
    b.before(&layer);
    layer.setOperand("w", b.constant(layer.operand("w")->name() + "_rounded", r.weight));
    layer.annotation()->inputs[1] = r.weightSpec;
    if (!r.bias || !r.hasBiasSpec) return;
    while (layer.numOperands() < 3) layer.addOperand(nullptr);
    layer.setOperand("bias", b.constant(layer.result()->name() + "_bias_corrected", *r.bias));
    layer.annotation()->inputs.resize(3);
    layer.annotation()->inputs[2] = r.biasSpec;
  }

  Result<QuantizedModel> quantized(const QConfigMapping& rules, RecoveredLayers& known) {
    QC_ASSIGN(PreparedModel tried, prepared(rules));
    QC_ASSIGN(const GroupParams params, paramsOf(*tried.observed));
    Graph graph = tried.observed->clone();
    PassContext cx;
    cx.provide(rules);
    cx.provide(params);
    cx.provide(model.insertions);
    QC_TRY(recover(graph, params, cx, known));
    QC_TRY(runPipeline("convert", graph, cx));
    QC_TRY(putBodies(graph, tried));
    return QuantizedModel{Model(std::move(graph), model.name), std::move(tried.coverage), std::move(cx.remarks), {}, 0, {}, {}};
  }
};

Result<Trials> Trials::open(PreparedModel model, const Dataset& calibration, const RecoverOptions& recover) {
  return withoutExceptions([&]() -> Result<Trials> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    auto impl = std::make_unique<Impl>();
    impl->recovery = recover.under(model.rules);
    impl->recovery.observer = nullptr;
    QC_TRY(impl->recovery.checkChoices());
    if (impl->recovery.movesChannels()) {
      QC_ASSIGN(model, balanceChannels(std::move(model), calibration, impl->recovery));
    }
    impl->model = std::move(model);
    impl->calibration = calibration;
    if (impl->recovery.looksAtLayers()) {
      impl->layers.emplace(impl->recovery.layers());
      impl->layers->watch(*impl->model.observed, int8Layers(*impl->model.observed), calibration.size());
    }
    std::map<std::string, Watch> wanted;
    for (const auto& [id, watch] : watchesOf(*impl->model.observed)) wanted.emplace(watch.key(), watch);
    QC_TRY(impl->observe(wanted, true));
    return Trials(std::move(impl));
  });
}

Status Trials::expect(const std::vector<QConfigMapping>& rules) {
  return withoutExceptions([&]() -> Status {
    const DefinedArithmetic defined;
    std::map<std::string, Watch> wanted;
    for (const QConfigMapping& each : rules) {
      QC_ASSIGN(const PreparedModel tried, impl_->prepared(each));
      for (const auto& [id, watch] : watchesOf(*tried.observed)) wanted.emplace(watch.key(), watch);
    }
    return impl_->observe(wanted, false);
  });
}

Result<QuantizedModel> Trials::quantized(const QConfigMapping& rules) {
  return withoutExceptions([&] {
    const DefinedArithmetic defined;
    return impl_->quantized(rules, impl_->recovered);
  });
}

Result<QuantizedModel> Trials::quantizedAnew(const QConfigMapping& rules) {
  return withoutExceptions([&] {
    const DefinedArithmetic defined;
    RecoveredLayers none;
    return impl_->quantized(rules, none);
  });
}

Result<bool> Trials::goesInTurn(const QConfigMapping& rules) const {
  QC_ASSIGN(const PreparedModel tried, prepared(rules));
  const std::vector<const Node*> layers = int8Layers(*tried.observed);
  return std::any_of(layers.begin(), layers.end(), [&](const Node* layer) { return impl_->recovery.goesInTurn(*layer); });
}

Result<PreparedModel> Trials::prepared(const QConfigMapping& rules) const {
  return withoutExceptions([&] { return impl_->prepared(rules); });
}

Result<GroupParams> Trials::params(const PreparedModel& model) {
  return withoutExceptions([&]() -> Result<GroupParams> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(model));
    return impl_->paramsOf(*model.observed);
  });
}

Trials::Trials(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trials::Trials(Trials&&) noexcept = default;
Trials& Trials::operator=(Trials&&) noexcept = default;
Trials::~Trials() = default;
const PreparedModel& Trials::model() const { return impl_->model; }
bool Trials::movedChannels() const { return impl_->recovery.movesChannels(); }
const Dataset& Trials::calibration() const { return impl_->calibration; }
int64_t Trials::runs() const { return impl_->runs; }

}  // namespace qc
