#include "runtime/insight/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "runtime/insight/answers.h"
#include "runtime/insight/causes/cause.h"
#include "runtime/insight/paired_ends.h"
#include "runtime/insight/sign_flips.h"

namespace qc {
namespace {

// Finer integers or float help whatever the cause is: they are named first where they win clearly more than what speaks of a cause.
// What they win beyond kNear, where int8 is as good as float, counts for nothing.
constexpr double kFinerFactor = 2, kFinerExtra = 6, kNear = 40;
// Fixes that win as much but for this share of it are as good: the cause that stands first in the table says more of them.
constexpr double kAsGood = 0.1;
constexpr size_t kTimedFixes = 8;
// The share of the fixes which are named that may be so by luck alone, where enough samples tell: many are tried, so that the bound on each
// one's probability is that of the procedure over all of its family (falseDiscoveryBound()).  What speaks of something that was seen is one
// family, what may help anything the other: the many of these must not hide the few of those (B. Efron, Annals of Applied Statistics 2,
// 2008: problems that differ in what is known beforehand are not to be combined).
constexpr double kLuck = 0.1;
// What is wrong with a file whatever the samples are needs no test; whether its fix helps beyond luck is said all the same.
enum Family : uint8_t { kSeen, kGuessed, kCertain };

struct MeasuredGraph {
  double decibels = 0;
  std::optional<double> drop;
  std::vector<double> bySample = {};
};

// Counts the samples that a fix brings nearer to the float model, and the others.
void countSamples(const MeasuredGraph& before, const MeasuredGraph& after, Cause& cause) {
  cause.samples = static_cast<int64_t>(std::min(before.bySample.size(), after.bySample.size()));
  for (size_t i = 0; i < usize(cause.samples); ++i) {
    cause.better += after.bySample[i] < before.bySample[i];
    cause.worse += after.bySample[i] > before.bySample[i];
  }
}

// That luck brings the samples nearer as far as this fix does: factors of their noise, so that a quiet sample counts like a loud one.
double chanceOf(const MeasuredGraph& before, const MeasuredGraph& after) {
  constexpr double kNone = 1e-30;
  std::vector<double> gains;
  for (size_t i = 0; i < std::min(before.bySample.size(), after.bySample.size()); ++i)
    gains.push_back(std::log(std::max(before.bySample[i], kNone)) - std::log(std::max(after.bySample[i], kNone)));
  return signFlips(gains);
}

class Explainer {
 public:
  Explainer(const Model& model, const QConfigMapping& rules, const Dataset& calibration, const Dataset& heldOut,
            const ExplainOptions& options)
      : model_(model), rules_(rules), calibration_(calibration), heldOut_(heldOut), options_(options) {}

  Result<Explanation> run() {
    QC_ASSIGN(PreparedModel prepared, prepareModel(model_, rules_));
    RecoverOptions recover = options_.recover;
    recover.progress = [&](const char* stage, int64_t done, int64_t total) { tell(stage, done, total); };
    QC_ASSIGN(Trials trials, Trials::open(prepared, calibration_, recover));
    QC_ASSIGN(judge_, Judge::open(*prepared.observed, heldOut_, judgeOptions()));
    QC_ASSIGN(const Judge inSample,
              Judge::open(*prepared.observed, calibration_, {.samples = options_.samples, .threads = recover.threads}));
    if (options_.goal) {
      QC_ASSIGN(goalOfFloat_, options_.goal->ofFloat(*judge_));
    }
    QC_ASSIGN(const QuantizedModel base, trials.quantized(rules_));
    const Graph& graph = base.model.graph();
    QC_ASSIGN(const MeasuredGraph whole, measure(*judge_, graph));
    QC_ASSIGN(const Judgement seen, inSample.of(graph));
    found_.decibels = whole.decibels;
    found_.drop = whole.drop;
    found_.inSample = seen.decibels();
    found_.samples = judge_->size();
    if (options_.quantized) {
      QC_ASSIGN(quantized_, withOutputsOf(model_.graph(), *options_.quantized));
      options_.quantized = &*quantized_;
      QC_ASSIGN(given_, measure(*judge_, *options_.quantized));
      found_.given = given_->decibels;
    }
    Evidence evidence{.model = model_,
                      .rules = rules_,
                      .calibration = calibration_,
                      .heldOut = heldOut_,
                      .options = options_,
                      .trials = trials,
                      .quantized = graph,
                      .decibels = found_.decibels,
                      .inSample = found_.inSample};
    QC_TRY(gather(evidence));
    std::vector<std::pair<const CauseRow*, Suspect>> suspects;
    for (const CauseRow& row : causeTable()) {
      QC_ASSIGN(std::vector<Suspect> some, row.detect(evidence));
      std::stable_sort(some.begin(), some.end(), [](const Suspect& a, const Suspect& b) { return a.weight > b.weight; });
      if (some.size() > row.most) some.resize(row.most);
      for (Suspect& suspect : some) suspects.emplace_back(&row, std::move(suspect));
    }
    for (size_t i = 0; i < suspects.size(); ++i) {
      QC_TRY(tryOut(trials, *suspects[i].first, suspects[i].second, whole));
      tell("causes", static_cast<int64_t>(i) + 1, static_cast<int64_t>(suspects.size()));
    }
    verify();
    order();
    QC_TRY(time(graph, *prepared.simplified));
    for (Verified& v : verified_) found_.causes.push_back(std::move(v.cause));
    return std::move(found_);
  }

 private:
  struct Verified {
    Cause cause;
    const CauseRow* row = nullptr;
    bool finer = false;
    Graph graph;
    double chance = 1;  // that it is luck
    bool tested = false;
    Family family = kSeen;
  };

  JudgeOptions judgeOptions() const {
    return {.samples = options_.goal ? heldOut_.size() : options_.samples, .threads = options_.recover.threads};
  }
  void tell(const char* stage, int64_t done, int64_t total) const {
    if (options_.progress) options_.progress(stage, done, total);
  }

  Result<MeasuredGraph> measure(const Judge& judge, const Graph& graph) const {
    if (!options_.goal || &judge != &*judge_) {
      QC_ASSIGN(const Judgement found, judge.of(graph));
      return MeasuredGraph{found.decibels(), std::nullopt, found.bySample};
    }
    QC_ASSIGN(const GoalJudgement found, options_.goal->of(graph, judge));
    return MeasuredGraph{found.judgement.decibels(), options_.goal->drop(goalOfFloat_, found.value), found.judgement.bySample};
  }

  // As quantize makes it: where nothing but rules changes, and no recipe of them, from what is known of the ranges.
  Result<Graph> made(Trials& trials, const Fix& fix) const {
    if (fix.repaired) return fix.repaired->clone();
    if (!fix.anew && !fix.calibration && fix.rules.recipes() == rules_.recipes()) {
      QC_ASSIGN(const QuantizedModel model, trials.quantized(fix.rules));
      return model.model.graph().clone();
    }
    QC_ASSIGN(const PreparedModel prepared, prepareModel(model_, fix.rules));
    RecoverOptions recover = options_.recover;
    recover.observer = nullptr;
    for (const auto& [name, choice] : fix.rules.recipes()) recover.choose(name, choice);
    QC_ASSIGN(const QuantizedModel model, calibrateAndQuantize(prepared, fix.calibration ? *fix.calibration : calibration_,
                                                               {.recover = recover}, {.threads = recover.threads}));
    return model.model.graph().clone();
  }

  // Those of its fixes that help, but for any that an earlier one beats in both, gain and chance.
  Status tryOut(Trials& trials, const CauseRow& row, const Suspect& suspect, const MeasuredGraph& base) {
    std::vector<Verified> helping;
    for (const Fix& fix : suspect.fixes) {
      ++found_.tried;
      auto graph = made(trials, fix);
      if (!graph) continue;  // rules that this model cannot have
      MeasuredGraph before = fix.repaired ? *given_ : base;
      const Judge* judge = &*judge_;
      std::optional<Judge> own;
      if (fix.judged) {
        QC_ASSIGN(own, Judge::open(*trials.model().observed, *fix.judged, judgeOptions()));
        judge = &*own;
        QC_ASSIGN(const QuantizedModel whole, trials.quantized(rules_));
        QC_ASSIGN(before, measure(*judge, whole.model.graph()));
      }
      QC_ASSIGN(const MeasuredGraph after, measure(*judge, *graph));
      Cause cause;
      cause.kind = row.kind;
      cause.layer = suspect.layer;
      cause.evidence = suspect.evidence;
      cause.remedy = fix.words;
      cause.rules = fix.rules;
      cause.rulesChanged = fix.rules.toJson() != rules_.toJson();
      cause.samplesLeftOut = fix.leftOut;
      cause.source = fix.source;
      cause.before = before.decibels, cause.after = after.decibels;
      cause.dropBefore = before.drop, cause.dropAfter = after.drop;
      countSamples(before, after, cause);
      const double chance = chanceOf(before, after);
      const bool tested = cause.samples >= kTellingSamples;
      const Family family = row.certain ? kCertain : fix.finer || row.guess ? kGuessed : kSeen;
      if (tested) chances_[family].push_back(chance);
      if (cause.gain() < options_.leastGain) continue;
      if (family != kCertain && (tested ? chance >= 0.5 : cause.better <= cause.worse)) continue;
      const auto beats = [&](const Verified& v) {
        return cause.gain() < v.cause.gain() + options_.leastGain && (!tested || v.chance <= chance);
      };
      if (std::find_if(helping.begin(), helping.end(), beats) != helping.end()) continue;
      helping.push_back(Verified{std::move(cause), &row, fix.finer, std::move(*graph), chance, tested, family});
    }
    if (!helping.empty()) helping_.push_back(std::move(helping));
    return {};
  }

  // Of each suspect the best fix that is not luck; of two that are as good, the first.
  void verify() {
    double bounds[std::extent_v<decltype(chances_)>];
    std::ranges::transform(chances_, bounds, [](const auto& chances) { return falseDiscoveryBound(chances, kLuck); });
    for (std::vector<Verified>& fixes : helping_) {
      Verified* best = nullptr;
      for (Verified& v : fixes) {
        v.cause.told = v.tested && v.chance <= bounds[v.family];
        if (v.tested && !v.cause.told && v.family != kCertain)
          ++found_.uncertain;
        else if (!best || v.cause.gain() >= best->cause.gain() + options_.leastGain)
          best = &v;
      }
      if (best) verified_.push_back(std::move(*best));
    }
    helping_.clear();
  }

  // Largest first; of those that are as good, the one whose cause stands first in the table.
  void order() {
    const auto worth = [](const Verified& v) {
      if (!v.finer) return v.cause.gain();
      const double gain = std::min(v.cause.after, std::max(v.cause.before, kNear)) - v.cause.before;
      return (gain - kFinerExtra) / (v.row->fallback ? kFinerFactor * kFinerFactor : kFinerFactor);
    };
    std::stable_sort(verified_.begin(), verified_.end(), [&](const Verified& a, const Verified& b) { return worth(a) > worth(b); });
    for (auto from = verified_.begin(); from != verified_.end(); ++from) {
      const double least = worth(*from) - std::max(options_.leastGain, kAsGood * worth(*from));
      const auto asGood = std::find_if(from, verified_.end(), [&](const Verified& v) { return worth(v) < least; });
      const auto first = std::min_element(from, asGood, [](const Verified& a, const Verified& b) { return a.row < b.row; });
      std::rotate(from, first, first + 1);
    }
  }

  Status time(const Graph& base, const Graph& floats) {
    std::vector<const Graph*> graphs{&base, &floats};
    for (size_t i = 0; i < verified_.size() && i < kTimedFixes; ++i) graphs.push_back(&verified_[i].graph);
    QC_ASSIGN(const std::vector<double> times, judge_->milliseconds(graphs));
    found_.milliseconds = times[0];
    found_.floatMilliseconds = times[1];
    for (size_t i = 0; i < verified_.size(); ++i) {
      verified_[i].cause.millisecondsBefore = times[0];
      verified_[i].cause.millisecondsAfter = i < kTimedFixes ? times[i + 2] : 0;
    }
    return {};
  }

  const Model& model_;
  const QConfigMapping& rules_;
  const Dataset &calibration_, &heldOut_;
  ExplainOptions options_;
  std::optional<Graph> quantized_;  // as given, with the outputs of the model
  std::optional<Judge> judge_;
  double goalOfFloat_ = 0;
  std::optional<MeasuredGraph> given_;
  std::vector<double> chances_[3];              // of all fixes that enough samples tell of, by family
  std::vector<std::vector<Verified>> helping_;  // for each suspect
  std::vector<Verified> verified_;
  Explanation found_;
};

// That more than half of so many coins fall on one side.
double majorityByLuck(int64_t coins) {
  double ways = 0, choices = 1;
  for (int64_t heads = 0; heads <= coins; ++heads) {
    if (2 * heads > coins) ways += choices;
    choices *= static_cast<double>(coins - heads) / static_cast<double>(heads + 1);
  }
  return ways / std::pow(2, coins);
}

}  // namespace

std::string Explanation::uncertainty() const {
  if (samples < kTellingSamples)
    return fmt::format(
        "help is not told from luck on {} sample{}: what brings more of them nearer to float than farther is named, as luck alone may "
        "with {:.0f} of the {} fixes that were tried; {} samples tell, with --check or more of -d",
        samples, samples == 1 ? "" : "s", std::ceil(static_cast<double>(tried) * majorityByLuck(samples)), tried, kTellingSamples);
  if (uncertain == 0) return {};
  return fmt::format(
      "{} of {} fixes won at least as much as is asked, but of so many tries luck alone may do that on {} samples: "
      "more of them tell (--check; with --labels all are measured on)",
      uncertain, tried, samples);
}

Result<Explanation> explain(const Model& model, const QConfigMapping& rules, const Dataset& calibration, const Dataset& heldOut,
                            const ExplainOptions& options) {
  return withoutExceptions([&]() -> Result<Explanation> {
    const DefinedArithmetic defined;
    return Explainer(model, rules, calibration, heldOut, options).run();
  });
}

}  // namespace qc
