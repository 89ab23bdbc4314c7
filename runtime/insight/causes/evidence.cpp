// What the causes look at, in one run of the float model over the calibration samples and one over the held-out ones.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "frontend/data/sample_error.h"
#include "quantizer/quantizer.h"
#include "runtime/insight/causes/cause.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

constexpr int64_t kHeldOut = 32;

const Value* behindObservers(const Value* v) {
  while (v->producer() && v->producer()->is("observe")) v = v->producer()->operand(0);
  return v;
}

int channelAxis(int rank) { return rank >= 4 ? 1 : rank - 1; }

// Calls see(index, element, channel) for the finite ones.
template <class See>
void forElements(const Tensor& t, See see) {
  if (t.dtype() != DType::f32) return;
  const int rank = t.rank(), axis = channelAxis(rank);
  int64_t inner = 1;
  for (int d = axis + 1; d < rank; ++d) inner *= nth(t.sizes(), d);
  const int64_t channels = rank > 0 ? std::max<int64_t>(1, nth(t.sizes(), axis)) : 1;
  const auto x = t.as<float>();
  for (size_t i = 0; i < x.size(); ++i)
    if (std::isfinite(x[i])) see(static_cast<double>(x[i]), usize(static_cast<int64_t>(i) / inner % channels));
}

// The quantized nodes that read a value, through what only moves it.
void addReaders(const Value* value, ValueFacts& facts) {
  std::vector<const Value*> open{value};
  for (size_t i = 0; i < open.size(); ++i)
    for (const Use* use : open[i]->uses()) {
      const Node* user = use->user();
      const bool moves = user->annotation() && std::holds_alternative<SharedSpec>(user->annotation()->output);
      if (user->is("observe") || moves)
        open.push_back(user->result());
      else if (user->annotation() && isClaim(*user->annotation()))
        facts.readers.push_back(displayName(*user));
      if (moves && !user->is("observe")) facts.movers.push_back(displayName(*user));
    }
}

struct Sums {
  double signal = 0, clip = 0;
  int64_t elements = 0, outside = 0;
};

Result<std::vector<InputFacts>> inputsOf(const Graph& graph, const Dataset& samples) {
  std::vector<InputFacts> found;
  const Dataset some = samples.thinned(kHeldOut);
  for (const Value* input : graph.inputs()) {
    if (input->type().dtype != DType::f32) continue;
    double sum = 0, squares = 0, count = 0;
    for (int64_t i = 0; i < some.size(); ++i) {
      QC_ASSIGN(const auto sample, some.sample(i));
      if (const auto it = sample.find(input->name()); it != sample.end())
        forElements(it->second, [&](double x, size_t) { sum += x, squares += x * x, ++count; });
    }
    if (count == 0) continue;
    const double mean = sum / count;
    found.push_back({input->name(), mean, std::sqrt(std::max(0.0, squares / count - mean * mean))});
  }
  return found;
}

}  // namespace

Status gather(Evidence& e) {
  const PreparedModel& model = e.trials.model();
  QC_ASSIGN(e.units, layerUnits(model));
  QC_ASSIGN(const GroupParams params, e.trials.params(model));
  std::map<int64_t, std::vector<std::string>> members;
  std::map<std::string, size_t> known;
  for (const Node* n = model.observed->front(); n; n = n->next()) {
    const auto* spec = n->is("observe") ? std::get_if<ObservedSpec>(&n->annotation()->output) : nullptr;
    const auto found = spec ? params.find(n->integer("id")) : params.end();
    if (found == params.end() || found->second->scales.size() != 1) continue;
    const Value* value = behindObservers(n->operand(0));
    members[n->integer("id")].push_back(value->name());
    if (!known.emplace(value->name(), e.values.size()).second) continue;
    ValueFacts& facts = e.values.emplace_back();
    facts.name = value->name();
    facts.node = value->producer() ? displayName(*value->producer()) : value->name();
    facts.spec = *spec;
    const QuantParams& q = *found->second;
    facts.low = q.scale() * (static_cast<double>(q.qmin) - q.zeroPoint());
    facts.high = q.scale() * (static_cast<double>(q.qmax) - q.zeroPoint());
    if (value->producer() && value->producer()->annotation()) facts.writers.push_back(facts.node);
    addReaders(value, facts);
  }
  for (ValueFacts& facts : e.values)
    for (const auto& [id, names] : members)
      if (std::find(names.begin(), names.end(), facts.name) != names.end())
        for (const std::string& name : names)
          if (name != facts.name) facts.sharedWith.push_back(name);
  std::vector<std::string> names;
  for (const ValueFacts& facts : e.values) names.push_back(facts.name);
  QC_ASSIGN(Taps taps, Taps::open(*model.observed, names, {.threads = e.options.recover.threads}));
  constexpr double kNone = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < e.calibration.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, e.calibration.sample(i));
    if (Status run = taps.run(sample); !run) return inSample(e.calibration, i, run.error());
    for (size_t k = 0; k < names.size(); ++k) {
      ValueFacts& facts = e.values[k];
      auto& [low, high] = facts.bySample.emplace_back(kNone, -kNone);
      forElements(taps.value(k), [&](double x, size_t c) {
        low = std::min(low, x), high = std::max(high, x);
        if (facts.channels.size() <= c) facts.channels.resize(c + 1);
        facts.channels[c] = std::max(facts.channels[c], std::fabs(x));
      });
      facts.seenLow = i == 0 ? low : std::min(facts.seenLow, low);
      facts.seenHigh = i == 0 ? high : std::max(facts.seenHigh, high);
    }
  }
  const Dataset held = e.heldOut.thinned(kHeldOut);
  std::vector<Sums> sums(names.size());
  for (int64_t i = 0; i < held.size(); ++i) {
    QC_ASSIGN(const TensorMap sample, held.sample(i));
    if (Status run = taps.run(sample); !run) return inSample(held, i, run.error());
    for (size_t k = 0; k < names.size(); ++k) {
      const ValueFacts& facts = e.values[k];
      const double slack = (facts.high - facts.low) / 512;
      forElements(taps.value(k), [&](double x, size_t) {
        Sums& s = sums[k];
        ++s.elements;
        s.signal += x * x;
        const double beyond = std::max({facts.low - x, x - facts.high, 0.0});
        s.outside += beyond > slack;
        s.clip += beyond * beyond;
      });
    }
  }
  for (size_t k = 0; k < names.size(); ++k) {
    if (sums[k].elements == 0) continue;
    e.values[k].clipped = static_cast<double>(sums[k].outside) / static_cast<double>(sums[k].elements);
    e.values[k].clippedNoise = sums[k].signal > 0 ? sums[k].clip / sums[k].signal : 0;
  }
  QC_ASSIGN(e.seenInputs, inputsOf(e.model.graph(), e.calibration));
  QC_ASSIGN(e.heldInputs, inputsOf(e.model.graph(), e.heldOut));
  return {};
}

}  // namespace qc
