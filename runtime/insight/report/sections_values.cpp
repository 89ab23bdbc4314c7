#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "quantizer/observers/seen_histogram.h"
#include "runtime/insight/report/charts.h"
#include "runtime/insight/report/html.h"
#include "runtime/insight/report/sections.h"

namespace qc::report {
namespace {

using Cell = HtmlTable::Cell;

}  // namespace

std::string rangesSection(const ReportData& data) {
  constexpr size_t kCharts = 400;
  if (!data.ranges || data.ranges->entries().empty()) return {};
  HtmlTable table({"value", "histogram", "chosen from", "to", "seen from", "to", "clipped %", "elements", "observer"});
  size_t charts = 0, left = 0;
  for (const auto& [id, entry] : data.ranges->entries()) {
    const Observer& o = *entry.observer;
    const double none = std::nan("");
    const std::vector<ValueRange> ranges = o.observed() ? o.ranges() : std::vector<ValueRange>();
    const ValueRange chosen = hullOf(ranges).value_or(ValueRange{static_cast<float>(none), static_cast<float>(none)});
    const std::optional<Histogram> histogram = seenHistogram(o);
    std::string chart;
    if (histogram && !ranges.empty()) {
      if (charts < kCharts) chart = histogramChart(*histogram, chosen);
      ++(charts < kCharts ? charts : left);
    }
    const double clipped = histogram && !ranges.empty() ? clippedShare(*histogram, chosen) * 100 : none;
    const bool seen = !entry.trace.empty();
    table.add({Cell::text(entry.name),
               {chart, {}},
               Cell::of(chosen.min),
               Cell::of(chosen.max),
               Cell::of(seen ? entry.trace.lowest().value : none),
               Cell::of(seen ? entry.trace.highest().value : none),
               Cell::of(clipped, std::isnan(clipped) ? "" : fmt::format("{:.3f}", clipped)),
               Cell::of(static_cast<double>(o.elements())),
               Cell::text(o.name())});
  }
  return fmt::format(
             "<p>{} values of {} samples. Heights go by the square root of the counts; red is what the chosen range cuts off.{}</p>\n",
             data.ranges->entries().size(), data.ranges->samples(),
             left > 0 ? fmt::format(" Of {} more values the histograms are left out.", left) : "") +
         table.html();
}

std::string weightsSection(const ReportData& data) {
  constexpr size_t kCharts = 400;
  if (!data.weights) return {};
  HtmlTable table({"layer", "channels", "sizes of channels", "smallest", "median", "largest", "largest to median"});
  size_t rows = 0;
  for (const Node* n = data.weights->front(); n; n = n->next()) {
    if (!n->is("const") || !n->result()->type().isQuantized()) continue;
    const QuantParams& q = *n->result()->type().quant;
    if (q.storage == DType::s32 || q.blockSize > 0 || !q.perChannel() || q.scales.size() < 2) continue;
    std::vector<double> sizes;
    for (size_t c = 0; c < q.scales.size(); ++c) {
      const auto zero = static_cast<double>(q.zeroPoint(static_cast<int64_t>(c)));
      sizes.push_back(q.scales[c] * std::max(static_cast<double>(q.qmax) - zero, zero - static_cast<double>(q.qmin)));
    }
    std::vector<double> sorted = sizes;
    std::sort(sorted.begin(), sorted.end());
    const double median = sorted[sorted.size() / 2];
    // The layer behind its dequantize says more than the constant's own name.
    const Node* user = n->result()->users().empty() ? n : n->result()->users().front();
    if (user->is("dequantize") && !user->result()->users().empty()) user = user->result()->users().front();
    const std::string& name = user->location().empty() ? n->result()->name() : user->location();
    table.add({Cell::text(name),
               Cell::of(static_cast<double>(sizes.size())),
               {rows++ < kCharts ? channelStrip(sizes) : "", {}},
               Cell::of(sorted.front()),
               Cell::of(median),
               Cell::of(sorted.back()),
               Cell::of(median > 0 ? sorted.back() / median : std::nan(""))});
  }
  if (table.empty()) return {};
  return "<p>The range of each output channel, its scale times the integers it may use. A channel far above the median is an "
         "outlier.</p>\n" +
         table.html();
}

}  // namespace qc::report
