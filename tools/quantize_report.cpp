#include "tools/quantize_report.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "tools/common.h"

namespace qc::tools {
namespace {

// How the quantized ones are, where that is not the static default: "weights s8 per channel, input u8 at run time per tensor".
void printHow(const CoverageReport& coverage) {
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const CoverageRow& row : coverage.rows)
    if (row.quantized && (row.reason.starts_with("weights ") || row.reason.starts_with("rows "))) ++counts[{row.op, row.reason}];
  if (counts.empty()) return;
  fmt::print("\n");
  Table table({"op", "count", "how"});
  for (const auto& [key, count] : counts) table.add({key.first, std::to_string(count), key.second});
  fmt::print("{}", table.str());
}

// What makes integers of it all the same, as --config takes it.
nlohmann::json ruleJson(const CoverageRow& row) {
  if (!row.remedy) return nullptr;
  nlohmann::json rule = {{"name", row.remedy->name}, {"qconfig", row.remedy->qconfig}};
  if (row.remedy->force) rule["force"] = true;
  return rule;
}

}  // namespace

void printCoverage(const CoverageReport& coverage, bool all) {
  struct Count {
    int int8 = 0, kept = 0;
  };
  std::map<std::string, Count> byOp;
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> reasons;
  int int8 = 0;
  for (const CoverageRow& row : coverage.rows) {
    ++(row.quantized ? byOp[row.op].int8 : byOp[row.op].kept);
    int8 += row.quantized;
    if (!row.quantized) reasons[{row.op, row.reason}].push_back(row.node);
  }
  Table table({"op", "quantized", "float"});
  for (const auto& [op, count] : byOp) table.add({op, std::to_string(count.int8), std::to_string(count.kept)});
  fmt::print("{}{} of {} ops quantized\n", table.str(), int8, coverage.rows.size());
  printHow(coverage);
  if (reasons.empty()) return;
  fmt::print("\nstayed float:\n");
  Table why({"op", "count", "why", "nodes"});
  for (const auto& [key, nodes] : reasons) {
    std::string names;
    const size_t shown = all ? nodes.size() : std::min<size_t>(nodes.size(), 2);
    for (size_t i = 0; i < shown; ++i) names += (i ? ", " : "") + nodes[i];
    if (shown < nodes.size()) names += ", ...";
    why.add({key.first, std::to_string(nodes.size()), key.second, names});
  }
  fmt::print("{}", why.str());
}

std::vector<std::string> remedyRules(const CoverageReport& coverage, bool all) {
  constexpr size_t kShown = 3;
  std::set<std::tuple<std::string, std::string, bool>> known;
  std::vector<std::string> rules;
  for (const CoverageRow& row : coverage.rows)
    if (row.remedy && (all || known.emplace(row.op, row.remedy->qconfig, row.quantized).second))
      rules.push_back(ruleJson(row).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  if (!all && rules.size() > kShown) rules.resize(kShown);
  return rules;
}

void printRemedies(const CoverageReport& coverage, bool all) {
  const std::vector<std::string> rules = remedyRules(coverage, all);
  if (rules.empty()) return;
  fmt::print("\na rule makes them integers all the same, in {{\"rules\": [..]}} of --config:\n");
  for (const std::string& rule : rules) fmt::print("  {}\n", rule);
}

void printNoise(const std::vector<LayerNoise>& layers, const std::string& on, bool all) {
  constexpr size_t kShown = 5;
  if (layers.empty()) return;
  std::vector<LayerNoise> worst;
  for (const LayerNoise& layer : layers)
    if (layer.op != "output") worst.push_back(layer);
  if (!all)
    std::sort(worst.begin(), worst.end(),
              [](const LayerNoise& a, const LayerNoise& b) { return std::tie(a.total, a.node) < std::tie(b.total, b.node); });
  const size_t shown = all ? worst.size() : std::min(kShown, worst.size());
  Table table({"op", "SQNR dB", "own rounding", "layer"});
  for (size_t i = 0; i < shown; ++i)
    table.add({worst[i].op, fmt::format("{:.1f}", worst[i].total), fmt::format("{:.1f}", worst[i].own), worst[i].node});
  for (const LayerNoise& layer : layers)
    if (layer.op == "output") table.add({layer.op, fmt::format("{:.1f}", layer.total), "", layer.node});
  fmt::print("\nfloat against int8, on {}{}:\n{}", on, all ? "" : "; the noisiest layers", table.str());
}

nlohmann::json reportJson(const QuantizedModel& quantized, const QConfigMapping& rules) {
  nlohmann::json rows = nlohmann::json::array();
  for (const CoverageRow& row : quantized.coverage.rows)
    rows.push_back({{"node", row.node}, {"op", row.op}, {"int8", row.quantized}, {"reason", row.reason}, {"rule", ruleJson(row)}});
  nlohmann::json noise = nlohmann::json::array();
  for (const LayerNoise& l : quantized.layers)
    noise.push_back({{"node", l.node}, {"op", l.op}, {"sqnr_db", l.total}, {"own_sqnr_db", l.own}});
  return {{"coverage", rows}, {"layers", noise}, {"rules", nlohmann::json::parse(rules.toJson())}};
}

nlohmann::json remarksJson(const std::vector<Remark>& remarks) {
  nlohmann::json list = nlohmann::json::array();
  for (const Remark& r : remarks) list.push_back(r.message);
  return list;
}

}  // namespace qc::tools
