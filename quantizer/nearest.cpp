#include "quantizer/nearest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>

namespace qc {
namespace {

size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = std::tolower(static_cast<unsigned char>(a[i - 1])) == std::tolower(static_cast<unsigned char>(b[j - 1]));
      const size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + !same});
      diagonal = std::exchange(row[j], next);
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> nearestNames(std::string_view wanted, const std::vector<std::string>& names, size_t count) {
  constexpr size_t kLongest = 200;  // a name beyond that is no typing mistake
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& name : names) {
    if (wanted.size() > kLongest || name.size() > kLongest) continue;
    // A part of the right name is as close as a typing mistake.
    const bool part = !wanted.empty() && name.find(wanted) != std::string::npos;
    const size_t distance = part ? 1 : editDistance(wanted, name);
    if (distance <= std::max<size_t>(2, std::max(wanted.size(), name.size()) / 2)) ranked.emplace_back(distance, name);
  }
  std::sort(ranked.begin(), ranked.end());
  ranked.erase(std::unique(ranked.begin(), ranked.end()), ranked.end());
  std::vector<std::string> result;
  for (const auto& [distance, name] : ranked) {
    if (result.size() == count) break;
    result.push_back(name);
  }
  return result;
}

std::string didYouMean(const std::vector<std::string>& names) {
  if (names.empty()) return {};
  std::string text = "did you mean ";
  for (size_t i = 0; i < names.size(); ++i) text += fmt::format("{}'{}'", i == 0 ? "" : i + 1 == names.size() ? " or " : ", ", names[i]);
  return text + "?";
}

}  // namespace qc
