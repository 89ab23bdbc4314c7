#include "runtime/insight/report/html.h"

#include <fmt/format.h>

#include <cmath>

#include "ir/visible.h"

namespace qc::report {

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : visible(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string shortened(std::string_view text, size_t most) {
  const std::string shown = visible(text);
  std::vector<size_t> starts;  // of characters
  for (size_t i = 0; i < shown.size(); ++i)
    if ((static_cast<unsigned char>(shown[i]) & 0xC0) != 0x80) starts.push_back(i);
  if (starts.size() <= most || most < 3) return shown;
  const size_t tail = (most - 1) * 2 / 3, head = most - 1 - tail;  // the end of a name tells more than its beginning
  return shown.substr(0, starts[head]) + "\u2026" + shown.substr(starts[starts.size() - tail]);
}

std::string number(double value) {
  if (std::isnan(value)) return "none";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (value == std::round(value) && std::fabs(value) < 1e9) return fmt::format("{:.0f}", value);
  return fmt::format("{:.4g}", value);
}

HtmlTable::Cell HtmlTable::Cell::text(std::string_view text) {
  const std::string shown = shortened(text, kLongest);
  return {escaped(shown), {}, shown.size() > 22};
}

HtmlTable::Cell HtmlTable::Cell::of(double value) { return {report::number(value), value}; }

HtmlTable::Cell HtmlTable::Cell::decibels(double value) {
  return of(value, std::isfinite(value) ? fmt::format("{:.1f}", value) : report::number(value));
}

std::string HtmlTable::html() const {
  constexpr size_t kMost = 1000;
  std::string out = "<div class=\"scroll\"><table class=\"sortable\"><thead><tr>";
  for (size_t i = 0; i < heads_.size(); ++i) {
    const bool right = !rows_.empty() && i < rows_[0].size() && rows_[0][i].number;
    out += fmt::format("<th{} scope=\"col\"><button type=\"button\">{}</button></th>", right ? " class=\"n\"" : "", escaped(heads_[i]));
  }
  out += "</tr></thead>\n<tbody>\n";
  for (size_t r = 0; r < std::min(kMost, rows_.size()); ++r) {
    out += "<tr>";
    for (const Cell& cell : rows_[r]) {
      if (cell.number)
        out += fmt::format("<td class=\"n\" data-v=\"{}\">{}</td>",
                           std::isfinite(*cell.number) ? fmt::format("{:.9g}", *cell.number) : number(*cell.number), cell.html);
      else
        out += (cell.wide ? "<td class=\"w\">" : "<td>") + cell.html + "</td>";
    }
    out += "</tr>\n";
  }
  out += "</tbody></table></div>\n";
  if (rows_.size() > kMost) out += fmt::format("<p class=\"note\">The first {} of {} rows are shown.</p>\n", kMost, rows_.size());
  return out;
}

}  // namespace qc::report
