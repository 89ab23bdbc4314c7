#include "ir/settled_sizes.h"

#include <fmt/ranges.h>

#include <set>

namespace qc {

Result<std::map<std::string, std::vector<int64_t>>> settledSizes(std::span<const NamedShape> shapes, std::map<std::string, int64_t> sizes,
                                                                 std::string_view why) {
  std::set<std::string> leading, inner;
  for (const NamedShape& s : shapes)
    for (size_t d = 0; d < s.shape.size(); ++d) (d == 0 ? leading : inner).merge(s.shape[d].expr().symbols());
  for (const std::string& symbol : leading)
    if (!inner.contains(symbol)) sizes.emplace(symbol, 1);
  std::map<std::string, std::vector<int64_t>> settled;
  std::vector<std::string> open;
  std::set<std::string> missing;
  std::string first;
  for (const NamedShape& s : shapes) {
    std::vector<int64_t>& own = settled[s.name];
    for (size_t d = 0; d < s.shape.size(); ++d) {
      const Dim& dim = s.shape[d];
      const std::optional<int64_t> size = dim.isStatic() ? dim.size() : dim.expr().evaluate(sizes);
      own.push_back(size.value_or(-1));
      if (size && *size >= 0) continue;
      if (open.empty()) first = s.name;
      open.push_back(fmt::format("dim {} of '{}' [{}]", d, s.name, toString(s.shape)));
      for (const std::string& symbol : dim.expr().symbols())
        if (!sizes.contains(symbol)) missing.insert(fmt::format("LoadOptions::shapes {}=N", symbol));
    }
  }
  if (open.empty()) return settled;
  return fail(ErrorCode::kInvalidArgument, "{} {} free{}{}", fmt::join(open, ", "), open.size() == 1 ? "is" : "are",
              why.empty() ? "" : ", and ", why)
      .on(first)
      .help(fmt::format("bind {}: {}", missing.size() == 1 ? "it" : "them", fmt::join(missing, " ")));
}

}  // namespace qc
