#include "quantizer/observers/convergence.h"

#include "ir/arithmetic.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <tuple>

#include "quantizer/rules/op_policy.h"

namespace qc {
namespace {

constexpr double kSlack = 0.02;
constexpr int64_t kFew = 16;

std::vector<std::string> dataWarnings(const Ranges& ranges) {
  std::vector<std::string> warnings;
  const auto warn = [&](const std::string& input, std::string text) { warnings.push_back(fmt::format("input '{}': {}", input, text)); };
  for (const auto& [name, input] : ranges.inputs()) {
    if (input.empty() > 0) warn(name, fmt::format("{} of {} samples are empty", input.empty(), input.samples()));
    if (input.allSame() && input.empty() == 0) warn(name, fmt::format("all {} samples are the same", input.samples()));
    if (input.constant() > 0) warn(name, fmt::format("{} of {} samples are constant", input.constant(), input.samples()));
    if (input.noise() * 2 > input.samples())
      warn(name, fmt::format("{} of {} samples look like random noise; ranges of synthetic data do not fit real data", input.noise(),
                             input.samples()));
    if (input.nonFinite() > 0) warn(name, fmt::format("{} elements are NaN or infinite", input.nonFinite()));
  }
  if (ranges.samples() < kFew)
    warnings.push_back(fmt::format("only {} calibration samples; ranges of few samples clip real data", ranges.samples()));
  for (std::string& warning : missingShards(ranges)) warnings.push_back(std::move(warning));
  return warnings;
}

// How many of the samples that were seen are among the first `end` of their set, as they are counted there.
int64_t seenBefore(const DataPart& part, int64_t end) {
  int64_t seen = 0;
  for (const auto& [from, to] : part.seen) seen += std::max<int64_t>(0, std::min(to, end) - from);
  return seen;
}
int64_t seenBefore(const Ranges& ranges, int64_t end) {
  int64_t seen = 0;
  for (const DataPart& part : ranges.parts()) seen += seenBefore(part, end);
  return seen;
}

// Where values stop, whatever the sample: several of 16, and not one or two that came in twice.
bool isBound(const SampleTrace::Extreme& end, int64_t samples) { return end.times > 2 && end.times * 16 > samples; }

// The least and the most that an op can give; nothing where it does not say.
std::optional<ValueRange> reachOf(const Graph* model, const std::string& value) {
  const Value* v = model ? model->findValue(value) : nullptr;
  const Node* n = v ? v->producer() : nullptr;
  if (!n) return std::nullopt;
  if (n->is("clip")) return ValueRange{static_cast<float>(n->real("min")), static_cast<float>(n->real("max"))};
  const auto low = policyOf(*n).fixedLow;
  return low ? std::optional(ValueRange{static_cast<float>(*low), 1}) : std::nullopt;
}

}  // namespace

std::vector<std::string> missingShards(const Ranges& ranges) {
  std::vector<std::string> warnings;
  for (const DataPart& part : ranges.parts())
    if (const int64_t seen = seenBefore(part, part.total); seen < part.total)
      warnings.push_back(fmt::format("{} of {} samples are in: merge the other shards", seen, part.total));
  return warnings;
}

Convergence assess(const Ranges& ranges, const Graph* model) {
  const DefinedArithmetic defined;
  Convergence c;
  c.samples = ranges.samples();
  c.warnings = dataWarnings(ranges);
  std::map<std::pair<int64_t, std::string>, int64_t> ends;
  int64_t silent = 0;
  const int64_t all = seenBefore(ranges, std::numeric_limits<int64_t>::max());
  for (const auto& [id, entry] : ranges.entries()) {
    if (!entry.observer->observed()) ++silent;
    if (entry.trace.empty()) continue;
    Convergence::Row row{id,
                         entry.name,
                         {entry.trace.lowest().value, entry.trace.highest().value},
                         0,
                         entry.trace.lowest(),
                         entry.trace.highest(),
                         entry.observer->nonFinite()};
    const std::vector<ValueRange> chosen = entry.observer->ranges();
    if (!chosen.empty()) row.chosen = chosen[0];
    for (const ValueRange& r : chosen) row.chosen = {std::min(row.chosen.min, r.min), std::max(row.chosen.max, r.max)};
    row.needed = seenBefore(ranges, entry.trace.samplesToCover(row.chosen, kSlack));  // a shard's first sample is another than that of all
    if (row.nonFinite > 0) c.warnings.push_back(fmt::format("value '{}': {} elements are NaN or infinite", row.name, row.nonFinite));
    const std::optional<ValueRange> reach = reachOf(model, row.name);
    for (const SampleTrace::Extreme& e : {row.lowest, row.highest})
      if (e.value != 0 && !isBound(e, c.samples) && !(reach && (e.value == reach->min || e.value == reach->max)))
        ++ends[{e.sample, e.name}];  // every sample reaches the 0 of a ReLU
    c.rows.push_back(std::move(row));
  }
  if (silent > 0) c.warnings.push_back(fmt::format("{} of {} observers saw nothing", silent, ranges.observers()));
  std::sort(c.rows.begin(), c.rows.end(), [](const auto& a, const auto& b) { return std::tie(b.needed, a.id) < std::tie(a.needed, b.id); });
  if (!c.rows.empty()) c.enough = c.rows[c.rows.size() / 20].needed;
  c.converged = c.samples >= kFew && c.enough * 4 <= all * 3;
  for (const auto& [sample, count] : ends) c.influences.push_back({sample.first, sample.second, count});
  std::sort(c.influences.begin(), c.influences.end(),
            [](const auto& a, const auto& b) { return std::tie(b.ends, a.sample, a.name) < std::tie(a.ends, b.sample, b.name); });
  // A sample that sets a quarter of all ends where hundreds compete is likely not one of the kind.
  if (c.samples >= 2 * kFew && c.rows.size() >= 4 && !c.influences.empty() &&
      c.influences[0].ends * 2 > static_cast<int64_t>(c.rows.size()))
    c.warnings.push_back(fmt::format("sample {} ({}) set {} of {} ends of ranges: an outlier?", c.influences[0].sample,
                                     c.influences[0].name, c.influences[0].ends, 2 * c.rows.size()));
  return c;
}

std::string Convergence::verdict() const {
  if (rows.empty()) return fmt::format("{} samples; no record of which of them mattered", samples);
  if (converged && enough == 1) return fmt::format("converged: the first sample of {} already gives 95% of the ranges", samples);
  if (converged) return fmt::format("converged: the first {} samples of {} give 95% of the ranges", enough, samples);
  if (samples < kFew) return fmt::format("too few to tell: {} samples", samples);
  return fmt::format("not converged: after {} samples more than 5% of the ranges still grew; add samples", enough);
}

}  // namespace qc
