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

std::string listed(const std::vector<std::string>& texts, const char* kind) {
  std::string out;
  constexpr size_t kMost = 200;
  for (size_t i = 0; i < std::min(kMost, texts.size()); ++i)
    out += fmt::format("<p class=\"{}\">{}</p>\n", kind, escaped(shortened(texts[i], 4 * kLongest)));
  if (texts.size() > kMost) out += fmt::format("<p class=\"{}\">and {} more</p>\n", kind, texts.size() - kMost);
  return out;
}

// What became of the node of each step; grey where that is not known.
std::vector<const char*> kindsOf(const std::vector<StepProfile>& steps, const Graph* graph) {
  std::map<std::pair<std::string, std::string>, Fate> fates;
  if (graph)
    for (const GraphPicture::Node& n : GraphPicture::of(*graph).nodes) fates[{n.op, n.name}] = n.fate;
  std::vector<const char*> kinds;
  for (const StepProfile& s : steps) {
    const auto found = fates.find({s.op, s.node});
    kinds.push_back(wordOf(found == fates.end() ? Fate::end : found->second));
  }
  return kinds;
}

}  // namespace

std::string summarySection(const ReportData& data) {
  std::string out;
  for (const auto& [name, value] : data.facts)
    out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", escaped(shortened(name, kLongest)), escaped(shortened(value, 4 * kLongest)));
  if (!out.empty()) out = "<dl>" + out + "</dl>\n";
  return out + listed(data.warnings, "warn") + listed(data.notes, "note");
}

std::string inputsSection(const ReportData& data) {
  if (!data.inputs) return {};
  std::string out = listed(data.inputs->warnings, "warn");
  for (const InputReport::Source& source : data.inputs->sources) {
    out +=
        fmt::format("<p>{} samples, {} of them looked at: <code>{}</code></p>\n", source.samples, source.looked, escaped(source.how.str()));
    HtmlTable table({"input", "type", "smallest", "largest", "mean", "means of channels", "not finite"});
    for (const FedInput& f : source.inputs) {
      std::string channels;
      for (const double c : f.channels) channels += (channels.empty() ? "" : ", ") + number(c);
      const double none = std::nan("");
      const bool any = f.elements > f.nonFinite;
      table.add({HtmlTable::Cell::text(f.name), HtmlTable::Cell::text(toString(f.dtype)), HtmlTable::Cell::of(any ? f.min : none),
                 HtmlTable::Cell::of(any ? f.max : none), HtmlTable::Cell::of(any ? f.mean : none), HtmlTable::Cell::text(channels),
                 HtmlTable::Cell::of(static_cast<double>(f.nonFinite))});
    }
    if (!table.empty()) out += table.html();
  }
  return out;
}

std::string timelineSection(const ReportData& data) {
  if (!data.steps || data.steps->empty()) return {};
  double total = 0;
  for (const StepProfile& s : *data.steps) total += s.seconds;
  HtmlTable table({"step", "us", "%", "rate", "op", "kernel", "result", "node"});
  int number = 0;
  for (const StepProfile& s : *data.steps) {
    const double amount = s.seconds > 0 ? static_cast<double>(s.operations > 0 ? s.operations : s.bytes) / s.seconds / 1e9 : 0;
    table.add({HtmlTable::Cell::of(++number), HtmlTable::Cell::of(s.seconds * 1e6, fmt::format("{:.1f}", s.seconds * 1e6)),
               HtmlTable::Cell::of(s.share * 100, fmt::format("{:.1f}", s.share * 100)),
               HtmlTable::Cell::of(amount, fmt::format("{:.1f} {}", amount, s.operations > 0 ? "GOP/s" : "GB/s")),
               HtmlTable::Cell::text(s.op), HtmlTable::Cell::text(s.kernel.empty() ? "reference" : s.kernel),
               HtmlTable::Cell::text(shortened(s.result, 60)), HtmlTable::Cell::text(s.node)});
  }
  return fmt::format("<p>{:.1f} us in {} steps, from the first to the last:</p>\n{}", total * 1e6, data.steps->size(),
                     timeline(*data.steps, kindsOf(*data.steps, data.graph))) +
         table.html();
}

std::string nextSection(const ReportData& data) {
  std::string out;
  for (const auto& [what, how] : data.next)
    out += fmt::format("<li>{}{}</li>\n", escaped(what), how.empty() ? "" : "<pre>" + escaped(how) + "</pre>");
  return out.empty() ? out : "<ol>" + out + "</ol>\n";
}

std::string rulesSection(const ReportData& data) {
  constexpr size_t kMost = 200000;  // bytes
  if (data.rules.empty()) return {};
  std::string lines;
  for (size_t at = 0; at < std::min(kMost, data.rules.size());) {  // line breaks are of the text's own making
    const size_t end = std::min(data.rules.find('\n', at), data.rules.size());
    lines += escaped(shortened(std::string_view(data.rules).substr(at, end - at), 4 * kLongest)) + "\n";
    at = end + 1;
  }
  return fmt::format("<details><summary>as --config takes them</summary><pre>{}</pre></details>\n", lines) +
         (data.rules.size() > kMost ? "<p class=\"note\">There are more; --write-rules writes all of them.</p>\n" : "");
}

}  // namespace qc::report
