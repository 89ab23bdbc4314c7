#include "runtime/insight/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "frontend/data/sample_error.h"
#include "ir/arithmetic.h"
#include "ir/decided_sizes.h"
#include "ir/files.h"
#include "ir/guarded.h"
#include "passes/quantize/convert_parts.h"
#include "quantizer/observers/observer.h"
#include "quantizer/quantizer.h"
#include "quantizer/signal_error.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

using nlohmann::json;

constexpr double kLeast = 1e-3;  // of all noise: below it figures say nothing

// By the names of layers, as a file that is written again after each of them.
class State {
 public:
  static Result<State> open(const std::string& path, std::string key) {
    State state;
    state.path_ = path;
    state.key_ = std::move(key);
    std::error_code error;
    if (path.empty() || !std::filesystem::exists(path, error)) return state;
    QC_ASSIGN(const std::string text, readFile(path, int64_t{1} << 28));
    releaseInput(path);  // it is written again
    const json found = json::parse(text, nullptr, false);
    const auto bad = [&](std::string_view what) {
      return fail(ErrorCode::kInvalidData, "'{}' {}", path, what).help("delete it, or name another file");
    };
    if (!found.is_object() || found.value("format", json()) != "qcompile sensitivity 1") return bad("is not a state of a sensitivity run");
    if (found.value("of", json()) != state.key_) return bad("is the state of another model, other samples, other rules or another metric");
    const json units = found.value("layers", json());
    if (!units.is_object()) return bad("holds no layers");
    for (const auto& [name, values] : units.items()) {
      if (!values.is_array() || values.size() != 4) return bad("holds a layer without its four figures");
      for (const json& v : values)
        if (!v.is_null() && !v.is_number()) return bad("holds a figure that is not a number");
      state.units_[name] = values;
    }
    return state;
  }

  bool take(SensitivityRow& row) const {
    const auto it = units_.find(row.unit.name);
    if (it == units_.end()) return false;
    std::optional<double>* to[] = {&row.aloneQuantized, &row.aloneFloat, &row.goalQuantized, &row.goalFloat};
    for (size_t i = 0; i < std::size(to); ++i)
      if (it->second[i].is_number()) *to[i] = it->second[i].get<double>();
    return row.aloneQuantized.has_value() && row.aloneFloat.has_value();
  }

  Status put(const SensitivityRow& row) {
    if (path_.empty()) return {};
    json values = json::array();
    for (const std::optional<double>& v : {row.aloneQuantized, row.aloneFloat, row.goalQuantized, row.goalFloat})
      values.push_back(v ? json(*v) : json());
    units_[row.unit.name] = std::move(values);
    json layers = json::object();
    for (const auto& [name, figures] : units_) layers[name] = figures;
    const json all = {{"format", "qcompile sensitivity 1"}, {"of", key_}, {"layers", layers}};
    return writeFileAtomically(path_, all.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
  }

 private:
  std::string path_, key_;
  std::map<std::string, json> units_;
};

// FNV-1a.
class Digest {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) value_ = (value_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    value_ = (value_ ^ 0xff) * 0x100000001b3u;
  }
  std::string str() const { return fmt::format("{:016x}", value_); }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

// Beside their names their bytes: a file of samples may have been written again under its name.
Result<std::string> digestOf(const Dataset& samples, int64_t count, const std::function<int64_t(int64_t)>& index) {
  Digest digest;
  digest.add(samples.fingerprint(samples.size()));
  for (int64_t i = 0; i < count; ++i) {
    QC_ASSIGN(const TensorMap sample, samples.sample(index(i)));
    for (const auto& [name, tensor] : sample) {
      digest.add(name);
      digest.add(tensor.type().str());
      digest.add({static_cast<const char*>(tensor.data()), usize(tensor.byteSize())});
    }
  }
  return digest.str();
}

// What the figures depend on.
Result<std::string> keyOf(const Trials& trials, const PreparedModel& model, const Judge& judge, const SensitivityOptions& options) {
  const Dataset& calibration = trials.calibration();
  QC_ASSIGN(const std::string calibrated, digestOf(calibration, calibration.size(), [](int64_t i) { return i; }));
  QC_ASSIGN(const std::string judged, digestOf(judge.samples(), judge.size(), [&](int64_t i) { return judge.index(i); }));
  Digest goal;
  goal.add(options.goalKey);
  const json key = {fingerprint(*model.observed),
                    calibrated,
                    judged,
                    judge.size(),
                    model.rules->toJson(),
                    options.modules,
                    options.goal ? options.goal->name : "",
                    options.goal ? goal.str() : ""};
  return key.dump(-1, ' ', false, json::error_handler_t::replace);
}

// What rounding the weights of each int8 layer adds to its result, against the signal, were its inputs alike: by the layer's name.
Result<std::map<std::string, double>> weightNoise(const Graph& observed) {
  std::map<std::string, double> noise;
  for (const Node* layer : int8Layers(observed)) {
    const Tensor& w = *layer->operand("w")->constant();
    const auto* spec = std::get_if<ObservedSpec>(&layer->annotation()->inputs[1]);
    if (!spec || w.dtype() != DType::f32 || w.numElements() == 0) continue;
    QC_ASSIGN(const QuantParams params, observeConstant(w, *spec));
    double signal = 0, steps = 0;
    for (const float v : w.as<float>()) signal += static_cast<double>(v) * v;
    for (const float s : params.scales) steps += static_cast<double>(s) * s;
    const double each = static_cast<double>(w.numElements()) / static_cast<double>(params.scales.size());
    if (signal > 0) noise[displayName(*layer)] = steps * each / 12 / signal;
  }
  return noise;
}

// Where the noise at the outputs came in: backwards through the units, of what reaches one a part is its own (from rounding its weights and
// its result) and the rest was in its inputs, all held against the signals there in one run of the quantized model.
Status estimate(const Graph& observed, const Judge& judge, const Graph& quantized, double noise, std::vector<SensitivityRow>& rows) {
  QC_ASSIGN(const Comparison seen, compareLayers(observed, quantized, judge.samples(), {.samples = judge.size()}));
  QC_ASSIGN(const auto ofWeights, weightNoise(observed));
  std::map<std::string, const LayerNoise*> byName;
  for (const LayerNoise& layer : seen.layers) byName.emplace(layer.node, &layer);
  const auto most = [&](const std::vector<std::string>& names, double LayerNoise::* which) {
    double found = 0;
    for (const std::string& name : names)
      if (const auto it = byName.find(name); it != byName.end()) found = std::max(found, noiseAt(it->second->*which));
    return found;
  };
  std::map<std::string, size_t> unitOf;
  for (size_t i = 0; i < rows.size(); ++i)
    for (const std::string& node : rows[i].unit.nodes) unitOf.emplace(node, i);
  std::vector<std::set<size_t>> sources(rows.size());
  std::vector<bool> read(rows.size());
  for (size_t i = 0; i < rows.size(); ++i)
    for (const std::string& node : rows[i].unit.inputs)
      if (const auto it = unitOf.find(node); it != unitOf.end() && it->second < i) {
        sources[i].insert(it->second);
        read[it->second] = true;
      }
  const auto ends = static_cast<double>(std::max<int64_t>(1, std::count(read.begin(), read.end(), false)));
  std::vector<double> arrives(rows.size());
  for (size_t i = rows.size(); i-- > 0;) {
    const LayerUnit& unit = rows[i].unit;
    if (!read[i]) arrives[i] += 1 / ends;
    double own = most(unit.last, &LayerNoise::own);
    for (const std::string& node : unit.nodes)
      if (const auto it = ofWeights.find(node); it != ofWeights.end()) own += it->second;
    double before = most(unit.inputs, &LayerNoise::total);
    for (const size_t source : sources[i]) before = std::max(before, most(rows[source].unit.last, &LayerNoise::total));
    const double part = sources[i].empty() ? 1 : own + before > 0 ? own / (own + before) : 0;
    rows[i].estimated = decibels(1, noise * std::max(kLeast, arrives[i] * part));
    double sum = 0;
    for (const size_t source : sources[i]) sum += most(rows[source].unit.last, &LayerNoise::total);
    for (const size_t source : sources[i])
      arrives[source] += arrives[i] * (1 - part) *
                         (sum > 0 ? most(rows[source].unit.last, &LayerNoise::total) / sum : 1 / static_cast<double>(sources[i].size()));
  }
  return {};
}

Result<Sensitivity> found(Trials& trials, const Judge& judge, const QConfigMapping& rules, const SensitivityOptions& options) {
  QC_ASSIGN(const PreparedModel model, trials.prepared(rules));
  QC_ASSIGN(std::vector<LayerUnit> units, layerUnits(model));
  if (units.empty())
    return fail(ErrorCode::kInvalidArgument, "nothing is quantized by these rules, so no layer can be to blame")
        .help("look at the reasons in the report of quantize");
  if (options.modules) units = byModule(units);
  std::string key;
  if (!options.state.empty()) {
    QC_ASSIGN(key, keyOf(trials, model, judge, options));
  }
  QC_ASSIGN(State state, State::open(options.state, std::move(key)));
  Sensitivity result;
  QC_ASSIGN(result.unseen, takeUnseen(units, trials, model, judge));
  result.samples = judge.size();
  const auto measure = [&](const QConfigMapping& tried, std::optional<double>& goal) -> Result<Judgement> {
    QC_ASSIGN(const QuantizedModel made, trials.quantized(tried));
    if (!options.goal) return judge.of(made.model.graph());
    QC_ASSIGN(const GoalJudgement found, options.goal->of(made.model.graph(), judge));
    goal = found.value;
    return found.judgement;
  };
  for (LayerUnit& unit : units) result.rows.emplace_back().unit = std::move(unit);
  QC_ASSIGN(const QuantizedModel whole, trials.quantized(rules));
  QC_ASSIGN(const Judgement all, measure(rules, result.goalAll));
  result.allQuantized = all.decibels();
  QC_TRY(estimate(*model.observed, judge, whole.model.graph(), all.noise(), result.rows));
  if (options.goal) {
    QC_ASSIGN(result.goalFloat, options.goal->ofFloat(judge));
  }

  std::vector<SensitivityRow*> order;
  for (SensitivityRow& row : result.rows) order.push_back(&row);
  std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->estimated < b->estimated; });
  if (options.top >= 0 && usize(options.top) < order.size()) order.resize(usize(options.top));
  std::vector<QConfigMapping> ahead;
  for (const SensitivityRow* row : order)
    if (SensitivityRow known = *row; !state.take(known)) {
      ahead.push_back(withNothingBut(rules, row->unit));
      ahead.push_back(withFloat(rules, {&row->unit}));
    }
  QC_TRY(trials.expect(ahead));
  double added = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    SensitivityRow& row = *order[i];
    if (state.take(row)) {
      ++result.resumed;
    } else {
      QC_ASSIGN(const Judgement alone, measure(withNothingBut(rules, row.unit), row.goalQuantized));
      QC_ASSIGN(const Judgement without, measure(withFloat(rules, {&row.unit}), row.goalFloat));
      row.aloneQuantized = alone.decibels();
      row.aloneFloat = without.decibels();
      QC_TRY(state.put(row));
    }
    added += noiseAt(*row.aloneQuantized);
    if (options.progress) options.progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(order.size()));
  }
  result.measured = static_cast<int64_t>(order.size());
  if (all.noise() > 0) result.added = added / noiseAt(result.allQuantized);
  std::stable_sort(result.rows.begin(), result.rows.end(), [](const SensitivityRow& a, const SensitivityRow& b) {
    return std::pair(!a.aloneQuantized, a.lossDecibels()) < std::pair(!b.aloneQuantized, b.lossDecibels());
  });
  return result;
}

}  // namespace

Result<std::vector<UnseenUnit>> takeUnseen(std::vector<LayerUnit>& units, Trials& trials, const PreparedModel& model, const Judge& judge) {
  return withoutExceptions([&]() -> Result<std::vector<UnseenUnit>> {
    const DefinedArithmetic defined;
    std::vector<UnseenUnit> unseen;
    const Graph& graph = *model.observed;
    if (!firstDecidingByData(graph)) return unseen;  // every sample runs all
    QC_ASSIGN(const GroupParams params, trials.params(model));
    const std::map<const Node*, std::string> uncalibrated = unseenNodes(graph, params);
    std::map<std::string, std::vector<const Node*>> nodesOf;
    for (const Node* n = graph.front(); n; n = n->next())
      if (!n->is("observe") && n->annotation() && isClaim(*n->annotation())) nodesOf[displayName(*n)].push_back(n);
    std::vector<std::string> values;
    std::map<const Node*, size_t> placeOf;
    for (const LayerUnit& unit : units)
      for (const std::string& name : unit.nodes)
        for (const Node* n : nodesOf[name])
          if (placeOf.emplace(n, values.size()).second) values.push_back(n->result()->name());
    QC_ASSIGN(Taps taps, Taps::open(graph, values));
    std::vector<int64_t> elements(values.size());
    for (int64_t i = 0; i < judge.size(); ++i) {
      QC_ASSIGN(const TensorMap sample, judge.samples().sample(judge.index(i)));
      if (Status run = taps.run(sample); !run) return inSample(judge.samples(), judge.index(i), run.error());
      for (size_t k = 0; k < values.size(); ++k) elements[k] += taps.value(k).numElements();
    }
    std::vector<LayerUnit> seen;
    for (LayerUnit& unit : units) {
      std::string why;
      // In the body of a loop: whoever runs the loop may run it.
      bool runs = std::ranges::all_of(unit.nodes, [&](const std::string& name) { return nodesOf[name].empty(); });
      for (const std::string& name : unit.nodes)
        for (const Node* n : nodesOf[name]) {
          const auto it = uncalibrated.find(n);
          if (it != uncalibrated.end())
            why = it->second + ": it stays float";
          else if (elements[placeOf.at(n)] > 0)
            runs = true;
        }
      if (runs)
        seen.push_back(std::move(unit));
      else
        unseen.push_back(
            {std::move(unit), why.empty() ? fmt::format("none of the {} samples that are measured on runs it", judge.size()) : why});
    }
    if (seen.empty())
      return fail(ErrorCode::kInvalidData, "no sample runs what is quantized: {}", unseen[0].why)
          .on(unseen[0].unit.name)
          .help("give samples that take its branch, to calibrate with and to measure on");
    units = std::move(seen);
    return unseen;
  });
}

Result<Sensitivity> sensitivity(Trials& trials, const Judge& judge, const QConfigMapping& rules, const SensitivityOptions& options) {
  return withoutExceptions([&]() -> Result<Sensitivity> {
    const DefinedArithmetic defined;
    return found(trials, judge, rules, options);
  });
}

Result<Sensitivity> sensitivity(Trials& trials, const Judge& judge, const SensitivityOptions& options) {
  if (!trials.model().rules) return fail(ErrorCode::kInvalidArgument, "the model was not prepared with rules");
  return sensitivity(trials, judge, *trials.model().rules, options);
}

}  // namespace qc
