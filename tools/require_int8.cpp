#include "tools/require_int8.h"

#include <charconv>
#include <map>
#include <optional>
#include <regex>

#include "ir/op_def.h"

namespace qc::tools {
namespace {

// 0 .. 1
std::optional<double> shareOf(std::string_view text) {
  double value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  const std::string_view unit(rest, usize(text.data() + text.size() - rest));
  if (unit == "%") value /= 100;
  return (unit.empty() || unit == "%") && value >= 0 && value <= 1 ? std::optional(value) : std::nullopt;
}

std::string reasonsOf(const std::vector<const CoverageRow*>& kept) {
  std::map<std::string, std::pair<int, std::string>> byReason;  // how many, and the first
  for (const CoverageRow* row : kept) {
    auto& [count, first] = byReason[row->op + ": " + row->reason];
    if (count++ == 0) first = row->node;
  }
  std::string text;
  for (const auto& [reason, nodes] : byReason)
    text += fmt::format("\n  {} '{}'{} ({})", nodes.first, nodes.second, nodes.first > 1 ? ", .." : "", reason);
  return text;
}

}  // namespace

Status requireInt8(const CoverageReport& coverage, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    std::vector<const CoverageRow*> kept;
    int64_t matched = 0;
    const std::optional<double> share = shareOf(text);
    std::optional<std::regex> pattern;
    if (!share) {
      try {
        pattern.emplace(text);
      } catch (const std::regex_error& e) {
        return fail(ErrorCode::kInvalidArgument, "--require-int8 {}: {}", text, e.what())
            .help("give a share such as 0.9 or 90%, or a regular expression on names of nodes");
      }
    }
    std::vector<std::string> names;
    for (const CoverageRow& row : coverage.rows) {
      names.push_back(row.node);
      if (pattern && !std::regex_search(row.node, *pattern)) continue;
      ++matched;
      if (!row.quantized) kept.push_back(&row);
    }
    if (pattern && matched == 0)
      return fail(ErrorCode::kInvalidArgument, "--require-int8 {}: no node has such a name", text)
          .help(names.empty() ? std::string("the model has no op that can be quantized")
                              : fmt::format("the nearest is '{}'", nearestNames(text, names, 1).front()));
    const auto total = static_cast<double>(coverage.rows.size());
    const bool met = share ? static_cast<double>(coverage.quantizedCount()) >= *share * total && (*share == 0 || total > 0) : kept.empty();
    if (met) continue;
    return fail(ErrorCode::kInvalidData, "--require-int8 {}: {} of {} ops {} float:{}", text, kept.size(),
                share ? coverage.rows.size() : matched, kept.size() == 1 ? "stays" : "stay", reasonsOf(kept))
        .help("nothing was written; change the rules, or require less");
  }
  return {};
}

std::string nothingQuantized(const CoverageReport& coverage, const Graph& graph) {
  if (coverage.quantizedCount() > 0) return {};
  bool floats = false;
  for (const Node* n = graph.front(); n && !floats; n = n->next())
    for (int r = 0; r < n->numResults(); ++r) floats = floats || (!n->is("const") && isFloat(n->result(r)->type().dtype));
  if (!floats)
    return "no op of this model computes on floats, so that there is nothing to quantize: the file that is written computes what it did";
  if (coverage.rows.empty()) return "no op of this model can be quantized: the file that is written computes in float";
  return "no op was quantized: the file that is written computes in float; the reasons are in the table 'stayed float'";
}

}  // namespace qc::tools
