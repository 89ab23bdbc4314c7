#include "runtime/insight/mixture.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "quantizer/modes.h"
#include "quantizer/observers/observer.h"
#include "quantizer/signal_error.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// What a layer may be in place of int8 as its rules have it, besides float.
struct Choice {
  std::string_view name;
  QConfigEntry (*of)(const QConfig& config);
  bool free = false;  // takes no more time: all layers at once are tried first
};
constexpr Choice kChoices[] = {
    {"int8, weights per channel",
     [](const QConfig& config) -> QConfigEntry {
       QConfig finer = config;
       if (scalesOf(finer.weight) != ScalesPer::tensor || roleOf(finer.weight) != ObserverRole::range) return config;
       finer.weight.axis = 0;
       finer.weight.observer = "per_channel_minmax";
       finer.weight.observerArgs = {};
       return finer;
     },
     true},
    {"int8, 16-bit activations",
     [](const QConfig& config) -> QConfigEntry {
       if (modeOf(config) == QuantMode::weightOnly) return config;  // activations are floats
       QConfig wide = config;
       wide.activation.dtype = wide.activation.dtype == DType::s8 ? DType::s16 : DType::u16;
       const auto range = rangeOf(wide.activation.dtype);
       wide.activation.qmin = range.min, wide.activation.qmax = range.max;
       return wide;
     }},
    {"float16 weights", [](const QConfig&) -> QConfigEntry { return halfWeightsQConfig(); }},
    {"dynamic", [](const QConfig&) -> QConfigEntry { return dynamicQConfig(Backend::x86, true); }},
};
constexpr int kInt8 = -1, kFloat = static_cast<int>(std::size(kChoices));

std::string_view nameOf(int choice) { return choice == kFloat ? "float" : choice == kInt8 ? "int8" : kChoices[choice].name; }

constexpr double kSlack = 1e-6;      // of a target: what rounding in its own arithmetic may cost
constexpr double kWorthwhile = 0.5;  // dB that something free has to gain
constexpr int kRuns = 15;            // of a profile, the median of which counts
constexpr int kWarmUp = 2;
constexpr double kClearly = 0.95;   // of the time of a mixture: below it the float model is the cheaper one
constexpr double kCheaper = 0.98;   // of a time: above it the difference may be luck
constexpr double kLeastHarm = 0.1;  // of its own noise: what a layer counts whose neighbours round all the same

// Mean seconds of each node in a model.
Result<std::map<std::string, double>> secondsByNode(const Graph& graph, const Judge& judge) {
  std::map<std::string, double> seconds;
  QC_ASSIGN(Taps taps, Taps::open(graph, {}));
  for (const Way& way : judge.ways()) {
    QC_ASSIGN(const TensorMap sample, judge.samples().sample(way.sample));
    std::map<std::string, std::vector<double>> runs;
    for (int run = -kWarmUp; run < kRuns; ++run) {
      std::map<std::string, double> own;
      QC_TRY(taps.run(sample, [&](const Step& step, std::span<const TensorRef>, double took) -> Status {
        own[step.node->location()] += took;
        return {};
      }));
      for (const auto& [node, took] : own)
        if (run >= 0) runs[node].push_back(took);
    }
    for (auto& [node, took] : runs) {
      std::ranges::nth_element(took, took.begin() + kRuns / 2);
      seconds[node] += way.share * took[kRuns / 2];
    }
  }
  return seconds;
}

class MixtureSearch {
 public:
  MixtureSearch(Trials& trials, const Judge& quick, const Judge& judge, const MixtureTarget& target, const MixtureOptions& options)
      : trials_(trials), quick_(quick), judge_(judge), target_(target), options_(options) {}

  Result<Mixture> run() {
    QC_TRY(begin());
    const Assignment all(units_.size(), kFloat);
    start_.assign(units_.size(), kInt8);
    QC_ASSIGN(MixtureStep int8, measure(start_, "all int8"));
    found_.int8Milliseconds = int8.milliseconds;
    if (!int8.meets || target_.milliseconds) QC_TRY(improveForNothing(int8));
    if (target_.milliseconds) return withinTime(int8);
    best_ = int8.meets ? std::optional(std::pair(start_, int8)) : std::nullopt;
    if (!best_) {
      QC_TRY(rank());
      QC_TRY(fewestFloat(all));
      QC_TRY(takeBack());
      QC_TRY(cheaperThanFloat());
    }
    QC_TRY(holdToFile());
    return result();
  }

 private:
  using Assignment = std::vector<int>;  // by unit

  Status begin() {
    QC_ASSIGN(units_, layerUnits(trials_.model()));
    if (units_.empty())
      return fail(ErrorCode::kInvalidArgument, "nothing is quantized by these rules: there is no accuracy to be won back")
          .help("look at the reasons in the report of quantize");
    QC_ASSIGN(found_.unseen, takeUnseen(units_, trials_, trials_.model(), judge_));
    QC_ASSIGN(const QuantizedModel base, trials_.quantized(*trials_.model().rules));
    base_ = base.model.graph().clone();
    QC_ASSIGN(const std::vector<double> times, judge_.milliseconds({&*base_, trials_.model().simplified.get()}));
    baseTime_ = times[0];
    found_.floatMilliseconds = times[1];
    if (target_.goal) {
      QC_ASSIGN(found_.floatGoal, target_.goal->ofFloat(judge_));
    }
    return {};
  }

  QConfigMapping rulesOf(const Assignment& a) const {
    QConfigMapping rules = *trials_.model().rules;
    for (size_t i = 0; i < units_.size(); ++i) {
      if (a[i] == kInt8) continue;
      const bool choice = a[i] != kFloat && units_[i].config;
      for (const std::string& node : units_[i].nodes)
        if (!choice)
          rules.name(node, keepFloat());
        else
          rules.name(node, kChoices[a[i]].of(*units_[i].config)).force();
    }
    return rules;
  }

  Result<MixtureStep> measure(const Assignment& a, std::string what) {
    if (const auto it = known_.find(a); it != known_.end()) return it->second;
    MixtureStep step;
    step.what = std::move(what);
    step.changed = std::count_if(a.begin(), a.end(), [](int c) { return c != kInt8; });
    const QConfigMapping rules = rulesOf(a);
    QC_ASSIGN(const QuantizedModel model, anew_ ? trials_.quantizedAnew(rules) : trials_.quantized(rules));
    const Graph& graph = model.model.graph();
    if (target_.goal) {
      QC_ASSIGN(const GoalJudgement found, target_.goal->of(graph, judge_));
      step.goal = found.value;
      step.drop = target_.goal->drop(*found_.floatGoal, found.value);
      step.decibels = found.judgement.decibels();
    } else {
      QC_ASSIGN(const Judgement found, judge_.of(graph));
      step.decibels = found.decibels();
    }
    // Against the int8 model in the same turns, since the machine has other things to do at times.
    QC_ASSIGN(const std::vector<double> times, judge_.milliseconds({&*base_, &graph}));
    step.milliseconds = baseTime_ * times[1] / times[0];
    step.meets = (!target_.decibels || step.decibels >= *target_.decibels) && (!target_.drop || *step.drop <= *target_.drop + kSlack) &&
                 (!target_.milliseconds || step.milliseconds <= *target_.milliseconds);
    found_.path.push_back(step);
    known_.emplace(a, step);
    if (options_.measured) options_.measured(step);
    return step;
  }

  // What costs no time, for all layers that have it: where the rest of the search starts.
  Status improveForNothing(MixtureStep& int8) {
    for (int choice = 0; choice < kFloat; ++choice) {
      if (!kChoices[choice].free) continue;
      Assignment a = start_;
      for (size_t i = 0; i < units_.size(); ++i)
        if (units_[i].config && kChoices[choice].of(*units_[i].config) != units_[i].config) a[i] = choice;
      if (a == start_) continue;
      QC_ASSIGN(const MixtureStep step, measure(a, fmt::format("all {}", nameOf(choice))));
      if (step.decibels < int8.decibels + kWorthwhile) continue;
      start_ = std::move(a);
      int8 = step;
    }
    return {};
  }

  // Units by noise that they cost for the time that they save, the worst bargain first.
  Status rank() {
    // Under the rules that the search starts from.
    SensitivityOptions options{.top = std::min<int64_t>(options_.layers, static_cast<int64_t>(units_.size()))};
    options.progress = [&](int64_t done, int64_t total) {
      if (options_.progress) options_.progress("layers", done, total);
    };
    QC_ASSIGN(const Sensitivity seen, sensitivity(trials_, quick_, rulesOf(start_), options));
    QC_ASSIGN(const auto before, secondsByNode(*trials_.model().simplified, quick_));
    QC_ASSIGN(const auto after, secondsByNode(*base_, quick_));
    std::map<std::string, double> harm;
    for (const SensitivityRow& row : seen.rows) {
      const double own = noiseAt(row.lossDecibels());
      const double removed = row.aloneFloat ? noiseAt(seen.allQuantized) - noiseAt(*row.aloneFloat) : own;
      harm[row.unit.name] = std::max(removed, kLeastHarm * own);
    }
    const auto secondsOf = [](const std::map<std::string, double>& all, const LayerUnit& unit) {
      double sum = 0;
      for (const std::string& node : unit.nodes)
        if (const auto it = all.find(node); it != all.end()) sum += it->second;
      return sum;
    };
    const double least = std::max(1e-9, baseTime_ * 1e-3 / static_cast<double>(units_.size()) / 10);
    std::vector<double> value;
    for (const LayerUnit& unit : units_)
      value.push_back(harm[unit.name] / std::max(least, secondsOf(before, unit) - secondsOf(after, unit)));
    order_.resize(units_.size());
    for (size_t i = 0; i < order_.size(); ++i) order_[i] = i;
    std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return value[a] > value[b]; });
    return {};
  }

  Assignment firstFloat(size_t count) const {
    Assignment a = start_;
    for (size_t i = 0; i < count; ++i) a[order_[i]] = kFloat;
    return a;
  }
  std::string floats(size_t count) const {
    return count == 1 ? "float: " + units_[order_[0]].name
                      : fmt::format("float: {} layers, {} the last", count, units_[order_[count - 1]].name);
  }

  // The least number of the worst bargains in float: twice as many until the target is met, then between.
  Status fewestFloat(const Assignment& all) {
    size_t missed = 0, met = 0;
    for (size_t count = 1; met == 0; count = std::min(2 * count, units_.size())) {
      QC_ASSIGN(const MixtureStep step, count == units_.size() ? measure(all, "all float") : measure(firstFloat(count), floats(count)));
      if (step.meets)
        met = count, best_.emplace(count == units_.size() ? all : firstFloat(count), step);
      else if (count == units_.size())
        return unreachable(step);
      else
        missed = count;
    }
    while (met > missed + 1) {
      const size_t middle = (met + missed) / 2;
      QC_ASSIGN(const MixtureStep step, measure(firstFloat(middle), floats(middle)));
      (step.meets ? met : missed) = middle;
      if (step.meets) best_.emplace(firstFloat(middle), step);
    }
    return {};
  }

  // With every layer in float there is still what no rule takes back: integer ends, or a metric that varies from run to run.
  Status unreachable(const MixtureStep& step) const {
    return fail(ErrorCode::kInvalidArgument, "no mixture reaches the target: with all layers in float it has {:.1f} dB{}", step.decibels,
                step.drop ? fmt::format(" and a drop of {:.2f} points", *step.drop) : "")
        .help("ask for less");
  }

  Status attempt(size_t unit, int choice, std::string what, bool cheaper) {
    Assignment a = best_->first;
    a[unit] = choice;
    QC_ASSIGN(const MixtureStep step, measure(a, std::move(what)));
    if (step.meets && (!cheaper || step.milliseconds < kCheaper * best_->second.milliseconds)) best_.emplace(std::move(a), step);
    return {};
  }

  // The best bargains among those in float, back to int8.
  Status takeBack() {
    int64_t tries = 0;
    for (size_t i = order_.size(); i-- > 0 && tries < options_.tries;) {
      const size_t unit = order_[i];
      if (best_->first[unit] != kFloat) continue;
      QC_TRY(attempt(unit, start_[unit], "back to int8: " + units_[unit].name, false));
      ++tries;
    }
    return {};
  }

  // What is neither int8 nor float, where rules and kernels have it and it takes less time.
  Status cheaperThanFloat() {
    int64_t tries = 0;
    for (const size_t unit : order_) {
      if (best_->first[unit] != kFloat || !units_[unit].config) continue;
      for (int choice = 0; choice < kFloat && tries < options_.tries; ++choice) {
        if (kChoices[choice].free || kChoices[choice].of(*units_[unit].config) == units_[unit].config) continue;
        Assignment a = best_->first;
        a[unit] = choice;
        QC_ASSIGN(const PreparedModel tried, trials_.prepared(rulesOf(a)));
        const auto& rows = tried.coverage.rows;
        const bool has =
            std::any_of(rows.begin(), rows.end(), [&](const CoverageRow& r) { return r.node == units_[unit].name && r.quantized; });
        if (!has) continue;
        ++tries;
        QC_TRY(attempt(unit, choice, fmt::format("{}: {}", nameOf(choice), units_[unit].name), true));
      }
    }
    return {};
  }

  // Where recipes go from layer to layer, what they did under other rules led the search.  Here it is what quantize() makes of the mixture;
  // where that misses the target, more of the worst bargains become float, twice as many each time.
  Status holdToFile() {
    QC_ASSIGN(const bool inTurn, trials_.goesInTurn(rulesOf(best_->first)));
    if (!inTurn) return {};
    anew_ = true;
    known_.clear();
    QC_ASSIGN(MixtureStep step, measure(best_->first, "the best of these as a file has it"));
    if (!step.meets && order_.empty()) QC_TRY(rank());
    for (size_t more = 1; !step.meets && !target_.milliseconds; more *= 2) {
      Assignment a = best_->first;
      size_t made = 0;
      for (size_t i = 0; i < order_.size() && made < more; ++i) made += std::exchange(a[order_[i]], kFloat) != kFloat;
      if (made == 0) return unreachable(step);
      QC_ASSIGN(step, measure(a, fmt::format("float: {} layers more", made)));
      best_.emplace(std::move(a), step);
    }
    best_->second = std::move(step);
    return {};
  }

  // As many of the worst bargains in float as the time allows.
  Result<Mixture> withinTime(const MixtureStep& int8) {
    if (!int8.meets)
      return fail(ErrorCode::kInvalidArgument, "no mixture is known to run in {:g} ms: the int8 model takes {:.3f}, the float model {:.3f}",
                  *target_.milliseconds, int8.milliseconds, found_.floatMilliseconds)
          .help("allow more time, or more threads");
    best_.emplace(start_, int8);
    QC_TRY(rank());
    size_t met = 0, missed = units_.size() + 1;
    while (missed > met + 1) {
      const size_t middle = met == 0 && missed > units_.size() ? std::min<size_t>(units_.size(), 4) : (met + missed) / 2;
      QC_ASSIGN(const MixtureStep step, measure(firstFloat(middle), floats(middle)));
      (step.meets ? met : missed) = middle;
      if (step.meets && better(step, best_->second)) best_.emplace(firstFloat(middle), step);
    }
    QC_TRY(holdToFile());
    return result();
  }

  bool better(const MixtureStep& a, const MixtureStep& b) const {
    return target_.goal && *a.drop != *b.drop ? *a.drop < *b.drop : a.decibels > b.decibels;
  }

  Result<Mixture> result() {
    const Assignment all(units_.size(), kFloat);
    // A mixture that costs more than the float model is worth nothing.
    if (!target_.milliseconds && best_->first != all && found_.floatMilliseconds < kClearly * best_->second.milliseconds) {
      QC_ASSIGN(const MixtureStep step, measure(all, "all float"));
      if (step.meets && step.milliseconds < kClearly * best_->second.milliseconds) best_.emplace(all, step);
    }
    found_.result = best_->second;
    found_.rules = rulesOf(best_->first);
    for (size_t i = 0; i < units_.size(); ++i)
      if (best_->first[i] != kInt8) found_.changed.emplace_back(units_[i].name, nameOf(best_->first[i]));
    return std::move(found_);
  }

  Trials& trials_;
  const Judge &quick_, &judge_;
  const MixtureTarget& target_;
  const MixtureOptions& options_;
  std::vector<LayerUnit> units_;
  std::vector<size_t> order_;
  Assignment start_;                         // integers everywhere, as good as they are without a cost in time
  std::map<Assignment, MixtureStep> known_;  // what the search comes back to is not measured again
  std::optional<Graph> base_;
  double baseTime_ = 0;
  std::optional<std::pair<Assignment, MixtureStep>> best_;
  bool anew_ = false;  // models are made without what is known of layers under other rules
  Mixture found_;
};

}  // namespace

Result<Mixture> findMixture(Trials& trials, const Judge& quick, const Judge& judge, const MixtureTarget& target,
                            const MixtureOptions& options) {
  return withoutExceptions([&]() -> Result<Mixture> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(trials.model()));
    if (!trials.model().rules) return fail(ErrorCode::kInvalidArgument, "the model was not prepared with rules");
    if (!target.decibels && !target.drop && !target.milliseconds)
      return fail(ErrorCode::kInvalidArgument, "there is no target").help("give decibels, a drop or milliseconds");
    if (target.drop && !target.goal)
      return fail(ErrorCode::kInvalidArgument, "a drop is one of a metric, and there is none").help("give MixtureTarget::goal");
    return MixtureSearch(trials, quick, judge, target, options).run();
  });
}

}  // namespace qc
