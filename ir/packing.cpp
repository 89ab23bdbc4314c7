#include "ir/packing.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

namespace qc {
namespace {

constexpr std::string_view kColumnNames[] = {"natural", "pair", "quad"};

std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> result;
  for (size_t i = 0; i < text.size();) {
    const size_t end = std::min(text.find(' ', i), text.size());
    if (end > i) result.push_back(text.substr(i, end - i));
    i = end + 1;
  }
  return result;
}

bool parseField(std::string_view word, std::string_view name, int& value) {
  if (!word.starts_with(name)) return false;
  word.remove_prefix(name.size());
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  return error == std::errc{} && end == word.data() + word.size();
}

}  // namespace

std::string Packing::str() const {
  std::string text =
      fmt::format("{} panel={} lanes={} group={} pad={} {} {}", toString(element), panel, lanes, group, runPad, nth(kColumnNames, columns),
                  taps      ? "taps"
                  : rowRuns ? "rows"
                            : "points");
  if (offset) text += fmt::format(" offset={}", offset);
  if (copies != 1) text += fmt::format(" copies={}", copies);
  if (halves != 1) text += fmt::format(" halves={}", halves);
  return sums ? text + " sums" : text;
}

Status Packing::check() const {
  constexpr int kLimit = 1 << 16;
  const int vectors = columns == Columns::quad ? 4 : columns == Columns::pair ? 2 : 1;
  const bool known = element == DType::s8 || element == DType::s16 || element == DType::f32 || element == DType::f16;
  const bool sizes = lanes > 0 && panel > 0 && group > 0 && runPad > 0 && panel <= kLimit && runPad <= kLimit &&
                     panel % (lanes * vectors) == 0 && runPad % group == 0 && (vectors == 1 || lanes % 4 == 0);
  const bool extras = offset >= 0 && offset <= 128 && copies >= 1 && copies <= 64 && (halves == 1 || halves == 2);
  const bool together = (!taps || rowRuns) && (copies == 1 || taps) && (halves == 1 || element == DType::s8) &&
                        !(sums && (rowRuns || halves > 1 || isFloat(element)));
  if (known && sizes && extras && together) return {};
  return fail(ErrorCode::kInvalidArgument, "'{}' is not a packing", str()).help("like \"s8 panel=64 lanes=16 group=4 pad=4 quad rows\"");
}

Result<Packing> Packing::parse(std::string_view text) {
  const auto malformed = [&] {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a packing", text).help("like \"s8 panel=64 lanes=16 group=4 pad=4 quad rows\"");
  };
  const std::vector<std::string_view> w = words(text);
  Packing p;
  size_t known = 7;
  const auto extra = [&](std::string_view name, int& value) {
    if (w.size() <= known || !parseField(w[known], name, value)) return;
    ++known;
  };
  extra("offset=", p.offset);
  extra("copies=", p.copies);
  extra("halves=", p.halves);
  if (w.size() > known && w[known] == "sums") {
    p.sums = true;
    ++known;
  }
  if (w.size() != known) return malformed();
  const std::optional<DType> element = parseDType(w[0]);
  if (!element || !parseField(w[1], "panel=", p.panel) || !parseField(w[2], "lanes=", p.lanes) || !parseField(w[3], "group=", p.group) ||
      !parseField(w[4], "pad=", p.runPad))
    return malformed();
  const auto column = std::find(std::begin(kColumnNames), std::end(kColumnNames), w[5]);
  if (column == std::end(kColumnNames) || (w[6] != "rows" && w[6] != "points" && w[6] != "taps")) return malformed();
  p.element = *element;
  p.columns = static_cast<Columns>(column - std::begin(kColumnNames));
  p.rowRuns = w[6] != "points";
  p.taps = w[6] == "taps";
  // What does not print as it was written, such as copies=1, is malformed as well.
  if (!p.check() || p.str() != fmt::format("{}", fmt::join(w, " "))) return malformed();
  return p;
}

}  // namespace qc
