#include "tools/inspect_ranges.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "ir/visible.h"
#include "quantizer/observers/convergence.h"
#include "quantizer/observers/seen_histogram.h"

namespace qc::tools {
namespace {

// One value of the file.
struct Row {
  std::string name, observer;
  std::vector<ValueRange> ranges;  // of channels; empty: it saw nothing, or gives none
  std::optional<ValueRange> hull;  // of them
  const SampleTrace* trace = nullptr;
  int64_t elements = 0, nonFinite = 0;
  std::optional<Histogram> histogram;
};

std::vector<Row> rowsOf(const Ranges& ranges) {
  std::vector<Row> rows;
  for (const auto& [id, entry] : ranges.entries()) {
    const Observer& o = *entry.observer;
    std::vector<ValueRange> chosen = o.observed() ? o.ranges() : std::vector<ValueRange>();
    const std::optional<ValueRange> hull = hullOf(chosen);
    rows.push_back({entry.name, o.name(), std::move(chosen), hull, &entry.trace, o.elements(), o.nonFinite(), seenHistogram(o)});
  }
  return rows;
}

std::string text(double v) { return fmt::format("{:.5g}", v); }

nlohmann::json rowJson(const Row& r) {
  nlohmann::json j = {{"value", r.name}, {"observer", r.observer}, {"elements", r.elements}, {"non_finite", r.nonFinite}};
  nlohmann::json channels = nlohmann::json::array();
  for (const ValueRange& c : r.ranges) channels.push_back({c.min, c.max});
  j["ranges"] = channels;
  if (!r.trace->empty()) j["seen"] = {r.trace->lowest().value, r.trace->highest().value};
  if (r.histogram && r.hull)
    j["histogram"] = {{"bins", r.histogram->bins()},
                      {"quarter", quantileOf(*r.histogram, 0.25)},
                      {"median", quantileOf(*r.histogram, 0.5)},
                      {"three_quarters", quantileOf(*r.histogram, 0.75)},
                      {"clipped", clippedShare(*r.histogram, *r.hull)}};
  return j;
}

}  // namespace

bool isRangesFile(const std::string& path) { return path.ends_with(".qcal"); }

Status inspectRanges(const std::string& path, bool json, const ReportFlags& report) {
  QC_ASSIGN(const Ranges ranges, Ranges::load(path));
  const std::vector<Row> rows = rowsOf(ranges);
  const Convergence verdict = assess(ranges);
  if (report) {
    ReportData data{.title = "Ranges: " + path};
    data.facts = {{"file", path}, {"model", ranges.model()}, {"samples", std::to_string(ranges.samples())}, {"enough?", verdict.verdict()}};
    data.warnings = verdict.warnings;
    data.ranges = &ranges;
    QC_TRY(report.write(std::move(data)));
  }
  if (json) {
    nlohmann::json values = nlohmann::json::array(), inputs = nlohmann::json::object();
    for (const Row& r : rows) values.push_back(rowJson(r));
    for (const auto& [name, trace] : ranges.inputs()) {
      inputs[name] = {{"samples", trace.samples()}};
      if (trace.range()) inputs[name].update({{"min", trace.range()->min}, {"max", trace.range()->max}});
    }
    printJson({{"samples", ranges.samples()},
               {"model", ranges.model()},
               {"values", values},
               {"inputs", inputs},
               {"verdict", verdict.verdict()},
               {"warnings", verdict.warnings}});
    return {};
  }
  for (const auto& [name, trace] : ranges.inputs())
    if (trace.range())
      fmt::print("input '{}' as fed: {:.4g} to {:.4g}, {} samples\n", visible(name), trace.range()->min, trace.range()->max,
                 trace.samples());
  Table table({"from", "to", "seen from", "to", "clipped %", "quarter", "median", "three quarters", "elements", "observer", "value"});
  for (const Row& r : rows) {
    const bool chosen = r.hull.has_value(), histogram = r.histogram && chosen, seen = !r.trace->empty();
    const std::string channels = r.ranges.size() > 1 ? fmt::format(" ({} channels)", r.ranges.size()) : "";
    table.add({chosen ? text(r.hull->min) : "", chosen ? text(r.hull->max) : "", seen ? text(r.trace->lowest().value) : "",
               seen ? text(r.trace->highest().value) : "",
               histogram ? fmt::format("{:.3f}", clippedShare(*r.histogram, *r.hull) * 100) : "",
               histogram ? text(quantileOf(*r.histogram, 0.25)) : "", histogram ? text(quantileOf(*r.histogram, 0.5)) : "",
               histogram ? text(quantileOf(*r.histogram, 0.75)) : "", std::to_string(r.elements), r.observer + channels, visible(r.name)});
  }
  fmt::print("{}{} values, {} samples\n{}\n", table.str(), rows.size(), ranges.samples(), verdict.verdict());
  for (const std::string& w : verdict.warnings) fmt::print(stderr, "warning: {}\n", visible(w));
  return {};
}

}  // namespace qc::tools
