#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "runtime/insight/report/charts.h"
#include "runtime/insight/report/graph_picture.h"
#include "runtime/insight/report/html.h"
#include "runtime/insight/report/sections.h"

namespace qc::report {
namespace {

using Cell = HtmlTable::Cell;

Cell decibelCell(const std::optional<double>& v) { return Cell::decibels(v.value_or(std::nan(""))); }

constexpr const char* kBarsNote =
    "<p class=\"note\">Signal to noise in dB, from the first layer on the left to the last: the higher the nearer to float. The black mark "
    "is "
    "what the layer would have by its own rounding alone.</p>\n";

}  // namespace

std::string measuredOn(const ReportData& data) {
  return data.measuredOn.empty() ? "" : fmt::format("<p>Measured on {}.</p>\n", escaped(data.measuredOn));
}

std::string graphSection(const ReportData& data) {
  if (!data.graph) return {};
  constexpr size_t kMost = 300;
  std::map<std::string, std::string> reasons;
  if (data.coverage)
    for (const CoverageRow& row : data.coverage->rows)
      if (!row.reason.empty()) reasons[row.node] = row.reason;
  const GraphPicture picture = GraphPicture::of(*data.graph, reasons).readable(kMost);
  std::map<Fate, double> counts;
  for (const GraphPicture::Node& n : picture.nodes) counts[n.fate] += static_cast<double>(n.count);
  const auto part = [&](const char* name, const char* kind, Fate fate) {
    return Part{fmt::format("{} {}", counts[fate], name), kind, counts[fate]};
  };
  return shareBar({part("int8", "int8", Fate::integer), part("float", "float", Fate::real),
                   part("quantize, dequantize", "border", Fate::border)}) +
         (picture.note.empty() ? "" : fmt::format("<p class=\"note\">{}</p>\n", escaped(picture.note))) + "<div class=\"scroll\">" +
         picture.svg() + "</div>\n";
}

std::string coverageSection(const ReportData& data) {
  if (!data.coverage || data.coverage->rows.empty()) return {};
  struct Count {
    double int8 = 0, kept = 0;
  };
  std::map<std::string, Count> byOp;
  HtmlTable reasons({"op", "became", "why", "rule that makes it int8", "node"});
  double int8 = 0;
  for (const bool quantized : {false, true})  // what stayed float is what one looks for
    for (const CoverageRow& row : data.coverage->rows) {
      if (row.quantized != quantized) continue;
      ++(row.quantized ? byOp[row.op].int8 : byOp[row.op].kept);
      int8 += row.quantized;
      reasons.add({Cell::text(row.op), Cell::text(row.quantized ? "int8" : "float"), Cell::text(row.reason),
                   Cell::text(row.remedy ? row.remedy->qconfig + (row.remedy->force ? ", force" : "") : ""), Cell::text(row.node)});
    }
  HtmlTable ops({"op", "int8", "float"});
  for (const auto& [op, count] : byOp) ops.add({Cell::text(op), Cell::of(count.int8), Cell::of(count.kept)});
  const double all = static_cast<double>(data.coverage->rows.size());
  return shareBar({{fmt::format("{} ops int8", int8), "int8", int8}, {fmt::format("{} ops float", all - int8), "float", all - int8}}) +
         ops.html() + reasons.html();
}

std::string noiseSection(const ReportData& data) {
  if (!data.noise || data.noise->empty()) return {};
  std::vector<DepthBar> bars;
  HtmlTable table({"depth", "op", "SQNR dB", "own rounding dB", "layer"});
  for (const LayerNoise& layer : *data.noise) {
    const bool isOutput = layer.op == "output";
    bars.push_back({layer.op + " " + layer.node, layer.total, isOutput ? std::nan("") : layer.own});
    table.add({Cell::of(static_cast<double>(bars.size())), Cell::text(layer.op), decibelCell(layer.total),
               decibelCell(isOutput ? std::nan("") : layer.own), Cell::text(layer.node)});
  }
  return measuredOn(data) + kBarsNote + depthBars(bars) + table.html();
}

std::string debugSection(const ReportData& data) {
  if (!data.debug) return {};
  std::vector<DepthBar> bars;
  HtmlTable table({"depth", "op", "weights dB", "outputs dB", "shadow dB", "cosine", "largest error", "where", "layer"});
  const auto add = [&](const DebuggedLayer& layer) {
    const double total = layer.outputs.of("sqnr"), own = layer.shadow ? layer.shadow->of("sqnr") : std::nan("");
    bars.push_back({layer.pair.op + " " + layer.pair.layer, total, own});
    std::string where;
    for (const Measured& m : layer.outputs.results())
      if (m.name == "max_error") where = m.detail;
    table.add({Cell::of(static_cast<double>(bars.size())), Cell::text(layer.pair.op),
               decibelCell(layer.weights ? layer.weights->sqnr : std::nan("")), decibelCell(total), decibelCell(own),
               Cell::of(layer.outputs.of("cosine")), Cell::of(layer.outputs.of("max_error")), Cell::text(where),
               Cell::text(layer.pair.layer)});
  };
  for (const DebuggedLayer& layer : data.debug->layers) add(layer);
  for (const DebuggedLayer& layer : data.debug->outputs) add(layer);
  std::string out = measuredOn(data);
  for (const NonFinite& n : data.debug->nonFinite)
    out += fmt::format("<p class=\"warn\">{} first in the {} model at {} {} (sample {})</p>\n", n.nan ? "NaN" : "an infinite value",
                       n.reference ? "first" : "second", escaped(n.op), escaped(n.node), n.sample);
  if (bars.empty()) return out;
  out += kBarsNote + depthBars(bars) + table.html();
  if (data.debug->unmatched.empty()) return out;
  out += "<details><summary>Layers that have no counterpart</summary><ul>";
  constexpr size_t kMost = 500;
  for (size_t i = 0; i < std::min(kMost, data.debug->unmatched.size()); ++i)
    out += "<li>" + escaped(shortened(data.debug->unmatched[i], kLongest)) + "</li>\n";
  return out + (data.debug->unmatched.size() > kMost ? fmt::format("<li>and {} more</li>\n", data.debug->unmatched.size() - kMost) : "") +
         "</ul></details>\n";
}

std::string sensitivitySection(const ReportData& data) {
  if (!data.sensitivity || data.sensitivity->rows.empty()) return {};
  HtmlTable table({"op", "alone int8, dB", "all but it int8, dB", "estimated dB", "layer"});
  for (const SensitivityRow& row : data.sensitivity->rows)
    table.add({Cell::text(row.unit.op), decibelCell(row.aloneQuantized), decibelCell(row.aloneFloat), decibelCell(row.estimated),
               Cell::text(row.unit.name)});
  HtmlTable unseen({"not measured", "why"});
  for (const UnseenUnit& u : data.sensitivity->unseen) unseen.add({Cell::text(u.unit.name), Cell::text(u.why)});
  return measuredOn(data) +
         fmt::format("<p>All int8: {:.1f} dB at the outputs. The most harmful layers come first.</p>\n", data.sensitivity->allQuantized) +
         table.html() + (unseen.empty() ? "" : unseen.html());
}

std::string mixtureSection(const ReportData& data) {
  if (!data.mixture) return {};
  HtmlTable steps({"step", "what", "layers changed", "dB", "ms", "drop", "meets the target"});
  int number = 0;
  for (const MixtureStep& s : data.mixture->path)
    steps.add({Cell::of(++number), Cell::text(s.what), Cell::of(static_cast<double>(s.changed)), decibelCell(s.decibels),
               Cell::of(s.milliseconds), Cell::of(s.drop.value_or(std::nan(""))), Cell::text(s.meets ? "yes" : "no")});
  HtmlTable changed({"layer", "in place of int8"});
  for (const auto& [layer, what] : data.mixture->changed) changed.add({Cell::text(layer), Cell::text(what)});
  return fmt::format("<p>int8 {:.3f} ms, float {:.3f} ms, the chosen mixture {:.3f} ms.</p>\n", data.mixture->int8Milliseconds,
                     data.mixture->floatMilliseconds, data.mixture->result.milliseconds) +
         steps.html() + (changed.empty() ? "" : changed.html());
}

}  // namespace qc::report
