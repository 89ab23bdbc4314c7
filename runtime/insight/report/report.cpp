#include "runtime/insight/report/report.h"

#include <fmt/format.h>

#include <functional>
#include <string_view>

#include "runtime/insight/report/html.h"
#include "runtime/insight/report/page_parts.h"
#include "runtime/insight/report/sections.h"

namespace qc {
namespace {

struct Section {
  const char *id, *head;
  std::string (*make)(const ReportData&);
};

// In the order of the page.
constexpr Section kSections[] = {
    {"done", "What was done", report::summarySection},
    {"next", "What to do next", report::nextSection},
    {"inputs", "Samples as they were fed", report::inputsSection},
    {"coverage", "What became int8, and why not", report::coverageSection},
    {"noise", "Noise along the depth of the model", report::noiseSection},
    {"layers", "Layers of the two models", report::debugSection},
    {"sensitivity", "Which layers lose the accuracy", report::sensitivitySection},
    {"causes", "Why accuracy was lost, and what helps", report::causesSection},
    {"mixture", "The way to the target", report::mixtureSection},
    {"ledger", "Integers weighed against float", report::ledgerSection},
    {"answers", "The answers of the two models", report::answersSection},
    {"beside", "The time of layers, beside each other", report::besideSection},
    {"time", "Where the time goes", report::timelineSection},
    {"graph", "The graph", report::graphSection},
    {"ranges", "Ranges of values", report::rangesSection},
    {"weights", "Ranges of weights by channel", report::weightsSection},
    {"rules", "The rules that were applied", report::rulesSection},
};

// The page with what stands for @NAME@ in it; what is put in is not looked at again.
std::string filled(std::string_view page, const std::function<std::string_view(std::string_view)>& part) {
  std::string out;
  for (size_t at = 0; at < page.size();) {
    const size_t begin = page.find('@', at), end = begin == page.npos ? page.npos : page.find('@', begin + 1);
    if (end == page.npos) return out += page.substr(at);
    out += page.substr(at, begin - at);
    out += part(page.substr(begin + 1, end - begin - 1));
    at = end + 1;
  }
  return out;
}

}  // namespace

std::string reportPage(const ReportData& data) {
  std::string sections, contents;
  for (const Section& s : kSections) {
    const std::string body = s.make(data);
    if (body.empty()) continue;
    sections += fmt::format("<section id=\"{}\"><h2>{}</h2>\n{}</section>\n", s.id, s.head, body);
    contents += fmt::format("<a href=\"#{}\">{}</a> ", s.id, s.head);
  }
  const std::string title = report::escaped(data.title);
  return filled(report::kPage, [&](std::string_view name) -> std::string_view {
    if (name == "TITLE") return title;
    if (name == "STYLE") return report::kStyle;
    if (name == "SCRIPT") return report::kScript;
    if (name == "CONTENTS") return contents;
    if (name == "SECTIONS") return sections;
    return "Made by qcompile. Bars and boxes say more under the pointer; tables sort by a press on their heads.";
  });
}

}  // namespace qc
