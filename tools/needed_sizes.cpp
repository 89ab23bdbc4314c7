#include "tools/needed_sizes.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "ir/dim_expr_terms.h"

namespace qc {

std::map<std::string, int64_t> neededSizes(const std::string& path, const LoadOptions& loading, const Graph& inputs, const Shapes& sample) {
  constexpr size_t kMost = 6;  // a model is read once for each
  std::vector<std::tuple<size_t, std::string, int64_t>> sizes;
  for (const Value* v : inputs.inputs()) {
    const auto given = sample.find(v->name());
    for (size_t d = 0; given != sample.end() && d < std::min(v->type().shape.size(), given->second.size()); ++d)
      if (const auto symbol = symbolName(v->type().shape[d].expr())) sizes.emplace_back(d, *symbol, given->second[d]);
  }
  std::sort(sizes.begin(), sizes.end());
  std::map<std::string, int64_t> needed;
  for (const auto& [axis, symbol, size] : sizes) needed.emplace(symbol, size);
  const size_t all = needed.size();
  for (const auto& [axis, symbol, size] : sizes) {
    auto fewer = needed;
    if (all > kMost || !fewer.erase(symbol) || fewer.empty()) continue;
    LoadOptions trial = loading;
    trial.freeDims = true;
    for (const auto& [name, known] : fewer) trial.shapes.emplace(name, std::vector{known});
    if (qc::load(path, trial)) needed = std::move(fewer);
  }
  return needed.size() < all ? needed : std::map<std::string, int64_t>();
}

}  // namespace qc
