// Sections that weigh one thing against another: causes and their fixes, integers and float, two models.
#include <fmt/format.h>

#include <cmath>

#include "runtime/insight/report/html.h"
#include "runtime/insight/report/sections.h"

namespace qc::report {
namespace {

using Cell = HtmlTable::Cell;

Cell milliseconds(double v) { return Cell::of(v, fmt::format("{:.4f}", v)); }
Cell microseconds(double seconds) { return Cell::of(seconds * 1e6, fmt::format("{:.1f}", seconds * 1e6)); }
Cell count(int64_t n) { return Cell::of(static_cast<double>(n)); }
double orNone(const std::optional<double>& v) { return v.value_or(std::nan("")); }

void addCounts(HtmlTable& table, const std::string& what, const PairedCounts& c) {
  table.add({Cell::text(what), count(c.samples()), count(c.both + c.onlyA), count(c.both + c.onlyB), count(c.onlyA), count(c.onlyB),
             Cell::of(c.p(), fmt::format("{:.3g}", c.p()))});
}

}  // namespace

std::string causesSection(const ReportData& data) {
  if (!data.explanation) return {};
  const Explanation& found = *data.explanation;
  std::string out = measuredOn(data) + fmt::format("<p>int8: {:.1f} dB at the outputs, {:.1f} dB on the calibration samples.</p>\n",
                                                   found.decibels, found.inSample);
  if (found.given) out += fmt::format("<p>The quantized model as given: {:.1f} dB.</p>\n", *found.given);
  if (found.drop) out += fmt::format("<p>{:.2f} points below the float model.</p>\n", *found.drop);
  if (const std::string luck = found.uncertainty(); !luck.empty()) out += fmt::format("<p>{}.</p>\n", escaped(luck));
  if (found.causes.empty()) return out + fmt::format("<p>No cause was found whose fix helps: {} fixes were tried.</p>\n", found.tried);
  out += "<p class=\"note\">Each fix was tried and measured; what did not help is not here. The largest cause comes first.</p>\n";
  // Points are there where answers were given.
  const bool points = found.drop.has_value();
  std::vector<std::string> heads = {"cause", "kind", "what shows it", "fix", "dB before", "dB after", "better on"};
  if (points) heads.insert(heads.end(), {"points lost before", "points lost after"});
  heads.insert(heads.end(), {"ms before", "ms after", "layer"});
  HtmlTable table(std::move(heads));
  for (const Cause& c : found.causes) {
    std::vector<Cell> row = {
        count(&c - found.causes.data() + 1),
        Cell::text(c.kind),
        Cell::text(c.evidence),
        Cell::text(c.remedy),
        Cell::decibels(c.before),
        Cell::decibels(c.after),
        Cell::of(static_cast<double>(c.better), fmt::format("{} of {}{}", c.better, c.samples, c.told ? "" : ", luck?"))};
    if (points) row.insert(row.end(), {Cell::of(orNone(c.dropBefore)), Cell::of(orNone(c.dropAfter))});
    const Cell after = c.millisecondsAfter > 0 ? milliseconds(c.millisecondsAfter) : Cell::of(std::nan(""));
    row.insert(row.end(), {milliseconds(c.millisecondsBefore), after, Cell::text(c.layer)});
    table.add(std::move(row));
  }
  return out + table.html();
}

std::string ledgerSection(const ReportData& data) {
  if (!data.ledger) return {};
  const Ledger& ledger = *data.ledger;
  HtmlTable regions({"int8 ms", "float ms", "gain ms", "borders", "became", "region", "reason"});
  for (const LedgerRow& row : ledger.rows)
    regions.add({milliseconds(row.int8Milliseconds), milliseconds(row.floatMilliseconds), milliseconds(row.gain()), count(row.borders),
                 Cell::text(row.becameWord()), Cell::text(row.region), Cell::text(row.reason)});
  HtmlTable path({"ms", "int8 layers", "whole model"});
  path.add({milliseconds(ledger.floatMilliseconds), count(0), Cell::text("float")});
  for (const LedgerStep& step : ledger.path) path.add({milliseconds(step.milliseconds), count(step.int8Layers), Cell::text(step.what)});
  return fmt::format("<p>Regions of integers beside float, {} ({} thread(s)). Chosen: {}, {:.4f} ms; all int8 {:.4f}, float {:.4f}.</p>\n",
                     ledger.measured ? "measured in turns, minima, on " + escaped(ledger.target)
                                     : "by the cost model for " + escaped(ledger.target),
                     ledger.threads, ledger.path.empty() ? "float" : escaped(ledger.path[ledger.chosen].what), ledger.milliseconds(),
                     ledger.int8Milliseconds(), ledger.floatMilliseconds) +
         (regions.empty() ? "" : regions.html()) + path.html();
}

std::string besideSection(const ReportData& data) {
  if (!data.beside) return {};
  const BesideData& beside = *data.beside;
  double first = 0, second = 0;
  int64_t losers = 0;
  HtmlTable table({"layer", beside.first + " us", beside.second + " us", "gain us", "", "op", beside.first + " kernel",
                   beside.second + " kernel", "node"});
  for (const LayerCost& l : beside.layers) {
    first += l.seconds, second += l.floatSeconds;
    losers += l.loses();
    table.add({count(&l - beside.layers.data() + 1), microseconds(l.seconds), microseconds(l.floatSeconds),
               microseconds(l.floatSeconds - l.seconds), Cell::text(l.loses() ? "loses" : ""), Cell::text(l.op), Cell::text(l.kernels),
               Cell::text(l.floatKernels), Cell::text(l.node)});
  }
  return fmt::format("<p>{}</p>\n<p>{} {:.1f} us, {} {:.1f} us; {} of {} layers lose.</p>\n", escaped(beside.basis), escaped(beside.first),
                     first * 1e6, escaped(beside.second), second * 1e6, losers, beside.layers.size()) +
         table.html();
}

std::string answersSection(const ReportData& data) {
  if (!data.answers) return {};
  const AnswersData& a = *data.answers;
  std::string out = fmt::format("<p>{}</p>\n", escaped(a.words));
  if (a.paired.samples > 0) out += fmt::format("<p>The answers agree on {} of {} samples.</p>\n", a.paired.agreed, a.paired.samples);
  if (a.paired.labelled) {
    out +=
        fmt::format("<p>Right by {}; p is McNemar's: how often luck alone would part equally good models so far.</p>\n", escaped(a.metric));
    HtmlTable classes({"label", "samples", "A right", "B right", "A alone", "B alone", "p"});
    addCounts(classes, "all", a.paired.all);
    for (const PairedCounts& c : a.paired.classes) addCounts(classes, std::to_string(c.label), c);
    out += classes.html();
  }
  if (!a.paired.differences.empty()) {
    HtmlTable table(a.labels.empty() ? std::vector<std::string>{"A", "B", "sample"}
                                     : std::vector<std::string>{"A", "B", "label", "sample"});
    for (const PairedAnswers::Difference& d : a.paired.differences) {
      std::vector<Cell> row = {count(d.a), count(d.b)};
      if (!a.labels.empty()) row.push_back(count(a.labels.at(d.sample)));
      row.push_back(Cell::text(a.samples.at(d.sample)));
      table.add(std::move(row));
    }
    out += "<h3>Samples that are answered differently</h3>\n" + table.html();
  }
  HtmlTable outputs({"SQNR dB", "cosine", "largest difference", "output"});
  for (const AnswersData::Output& o : a.outputs)
    outputs.add({Cell::decibels(o.decibels), Cell::of(o.cosine), Cell::of(o.largest), Cell::text(o.name)});
  return out + "<h3>Numbers of B against those of A</h3>\n" + outputs.html();
}

}  // namespace qc::report
