#include "runtime/insight/ledger.h"

#include <algorithm>
#include <map>
#include <regex>
#include <set>

#include "ir/arithmetic.h"
#include "ir/guarded.h"
#include "ir/quantized.h"

namespace qc {
namespace {

constexpr double kNoise = 0.02;    // of a time: what two runs of one program differ by
constexpr int kRounds = 4;         // until no region loses
constexpr size_t kMostSingly = 4;  // layers that lose inside of regions that win: so many are tried one by one

class Search {
 public:
  Search(Trials& trials, CostSource& costs, const LedgerOptions& options) : trials_(trials), costs_(costs), options_(options) {}

  Result<Ledger> run() {
    QC_ASSIGN(units_, layerUnits(trials_.model()));
    if (units_.empty())
      return fail(ErrorCode::kInvalidArgument, "nothing is quantized by these rules: there is nothing to weigh")
          .help("look at the reasons in the report of quantize");
    QC_TRY(findKept());
    found_.measured = costs_.measures();
    found_.target = costs_.target();
    found_.threads = costs_.threads();
    QC_TRY(add({}, "all int8"));
    QC_TRY(byRegion());
    QC_TRY(byLayer());
    Set all;
    for (size_t i = 0; i < units_.size(); ++i)
      if (!kept_[i]) all.insert(i);
    QC_TRY(add(all, kept_.empty() || all.size() == units_.size() ? "all float" : "all float but what is kept"));
    QC_TRY(choose());
    tellRows();
    return std::move(found_);
  }

 private:
  using Set = std::set<size_t>;  // of units, in float
  struct Candidate {
    Set floats;
    std::string what;
    Graph graph;
  };

  Status findKept() {
    kept_.assign(units_.size(), false);
    for (const std::string& text : options_.keepInt8) {
      std::regex pattern;
      try {
        pattern.assign(text);
      } catch (const std::regex_error& e) {
        return fail(ErrorCode::kInvalidArgument, "'{}' is not a regular expression: {}", text, e.what())
            .help("name nodes that stay integers by an ECMAScript regular expression");
      }
      bool matched = false;
      for (size_t i = 0; i < units_.size(); ++i)
        for (const std::string& node : units_[i].nodes)
          if (std::regex_search(node, pattern)) kept_[i] = matched = true;
      if (!matched)
        return fail(ErrorCode::kInvalidArgument, "nothing that is quantized has a name like '{}', so nothing is kept in integers", text)
            .help("the names are those of the coverage in the report");
    }
    return {};
  }

  QConfigMapping rulesOf(const Set& floats) const {
    std::vector<const LayerUnit*> units;
    for (const size_t i : floats) units.push_back(&units_[i]);
    return withFloat(*trials_.model().rules, units);
  }

  Status add(Set floats, std::string what) {
    for (const Candidate& known : candidates_)
      if (known.floats == floats) return {};
    QC_ASSIGN(const QuantizedModel model, trials_.quantized(rulesOf(floats)));
    candidates_.push_back({std::move(floats), std::move(what), model.model.graph().clone()});
    if (options_.progress) options_.progress("ledger", static_cast<int64_t>(candidates_.size()), 0);
    return {};
  }

  // The latest candidate beside float.
  Status weigh() {
    const Graph* const both[] = {&candidates_.back().graph, trials_.model().simplified.get()};
    QC_ASSIGN(const std::vector<ProgramCost> costs, costs_.of(both));
    const auto stepsByNode = [](const ProgramCost& cost) {
      std::map<std::string, double> seconds;
      for (const StepProfile& step : cost.steps) seconds[step.node] += step.seconds;
      return seconds;
    };
    int8Steps_ = stepsByNode(costs[0]);
    floatSteps_ = stepsByNode(costs[1]);
    rows_ = weighedRegions(costs[0], costs[1].steps, units_);
    return {};
  }

  Set unitsIn(const LedgerRow& row) const {
    const std::set<std::string> names(row.nodes.begin(), row.nodes.end());
    Set units;
    for (size_t i = 0; i < units_.size(); ++i)
      if (std::any_of(units_[i].nodes.begin(), units_[i].nodes.end(), [&](const std::string& n) { return names.contains(n); }))
        units.insert(i);
    return units;
  }

  // What loses becomes float; then the next round, as its neighbours have other borders now.
  Status byRegion() {
    for (int round = 0; round < kRounds; ++round) {
      QC_TRY(weigh());
      Set floats = candidates_.back().floats;
      const size_t before = floats.size();
      for (const LedgerRow& row : rows_) {
        const Set units = unitsIn(row);
        const bool news = std::any_of(units.begin(), units.end(), [&](size_t i) { return !told_.contains(i); });
        told_.insert(units.begin(), units.end());
        if (news && !units.empty()) found_.rows.push_back(row);
        if (row.wins) continue;
        for (const size_t i : units)
          if (!kept_[i]) floats.insert(i);
      }
      if (floats.size() == before) return {};
      QC_TRY(add(std::move(floats), fmt::format("regions that lose in float{}", round > 0 ? ", again" : "")));
    }
    return weigh();
  }

  // Layers that lose in regions that win: what their borders would cost is seen in the whole alone.
  Status byLayer() {
    const auto secondsOf = [&](const std::map<std::string, double>& steps, const LayerUnit& unit) {
      double sum = 0;
      for (const std::string& node : unit.nodes)
        if (const auto it = steps.find(node); it != steps.end()) sum += it->second;
      return sum;
    };
    const Set base = candidates_.back().floats;
    std::vector<std::pair<double, size_t>> losers;
    for (size_t i = 0; i < units_.size(); ++i) {
      const double loss = secondsOf(int8Steps_, units_[i]) - secondsOf(floatSteps_, units_[i]);
      if (loss > 0 && !kept_[i] && !base.contains(i)) losers.emplace_back(-loss, i);
    }
    std::sort(losers.begin(), losers.end());
    Set all = base;
    for (size_t k = 0; k < losers.size(); ++k) {
      all.insert(losers[k].second);
      if (k >= kMostSingly) continue;
      Set one = base;
      one.insert(losers[k].second);
      QC_TRY(add(std::move(one), "float as well: " + units_[losers[k].second].name));
    }
    if (losers.size() > 1) QC_TRY(add(std::move(all), fmt::format("float as well: all {} layers that lose", losers.size())));
    return {};
  }

  Status choose() {
    std::vector<const Graph*> graphs;
    for (const Candidate& c : candidates_) graphs.push_back(&c.graph);
    graphs.push_back(trials_.model().simplified.get());
    QC_ASSIGN(std::vector<ProgramCost> costs, costs_.of(graphs));
    // Without integers it is the float model, whatever the clock says.
    for (size_t k = 0; k < candidates_.size(); ++k)
      if (!isQuantized(candidates_[k].graph)) costs[k].seconds = costs.back().seconds = std::min(costs[k].seconds, costs.back().seconds);
    std::vector<MixtureTime> times;
    for (size_t k = 0; k < candidates_.size(); ++k) {
      times.push_back({costs[k].seconds, static_cast<int64_t>(units_.size() - candidates_[k].floats.size())});
      found_.path.push_back({candidates_[k].what, times[k].seconds * 1e3, times[k].integers});
    }
    found_.floatMilliseconds = costs.back().seconds * 1e3;
    found_.chosen = chosenMixture(times);
    const Set& floats = candidates_[found_.chosen].floats;
    for (const size_t i : floats) found_.madeFloat.push_back(units_[i].name);
    found_.rules = rulesOf(floats);
    return {};
  }

  // What became of each region, by what was chosen in the end.
  void tellRows() {
    const Set& floats = candidates_[found_.chosen].floats;
    for (LedgerRow& row : found_.rows) {
      const Set units = unitsIn(row);
      const auto inFloat = std::count_if(units.begin(), units.end(), [&](size_t i) { return floats.contains(i); });
      const auto kept = std::count_if(units.begin(), units.end(), [&](size_t i) { return kept_[i]; });
      row.int8 = inFloat == 0;
      row.part = inFloat > 0 && inFloat < static_cast<std::ptrdiff_t>(units.size());
      if (row.int8 && !row.wins)
        row.reason = kept > 0 ? "kept on request" : fmt::format("the whole takes longer without it ({})", row.reason);
      else if (!row.int8 && row.wins)
        row.reason = row.part ? fmt::format("{} of {} layers lose in it", inFloat, units.size())
                              : fmt::format("the whole is no faster with it: {:.3f} ms, in float {:.3f}", found_.int8Milliseconds(),
                                            found_.floatMilliseconds);
    }
  }

  Trials& trials_;
  CostSource& costs_;
  const LedgerOptions& options_;
  std::vector<LayerUnit> units_;
  std::vector<bool> kept_;  // by unit
  std::vector<Candidate> candidates_;
  std::vector<LedgerRow> rows_;                           // of the latest candidate
  std::map<std::string, double> int8Steps_, floatSteps_;  // its seconds by node
  Set told_;                                              // units with a row
  Ledger found_;
};

}  // namespace

size_t chosenMixture(std::span<const MixtureTime> mixtures) {
  size_t best = 0;
  for (size_t i = 1; i < mixtures.size(); ++i)
    if (mixtures[i].seconds < mixtures[best].seconds) best = i;
  const double most = mixtures.empty() ? 0 : mixtures[best].seconds * (1 + kNoise);
  for (size_t i = 0; i < mixtures.size(); ++i)
    if (mixtures[i].seconds <= most && mixtures[i].integers < mixtures[best].integers) best = i;
  return best;
}

Result<Ledger> neverSlower(Trials& trials, CostSource& costs, const LedgerOptions& options) {
  return withoutExceptions([&]() -> Result<Ledger> {
    const DefinedArithmetic defined;
    QC_TRY(checkPrepared(trials.model()));
    if (!trials.model().rules) return fail(ErrorCode::kInvalidArgument, "the model was not prepared with rules");
    return Search(trials, costs, options).run();
  });
}

}  // namespace qc
