#include "runtime/insight/ways.h"

#include <algorithm>
#include <map>

#include "frontend/data/sample_error.h"
#include "ir/branches.h"
#include "ir/decided_sizes.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/taps.h"

namespace qc {
namespace {

// Conditions, and what data decides the sizes of.
std::vector<std::string> decidingIn(const Graph& graph, size_t& conditions) {
  std::vector<std::string> names, sizes;
  for (const Node* n = graph.front(); n; n = n->next()) {
    if (const Value* condition = conditionOf(*n); condition && std::ranges::find(names, condition->name()) == names.end())
      names.push_back(condition->name());
    if (!decidedSymbols(*n).empty()) sizes.push_back(n->result()->name());
  }
  conditions = names.size();
  names.insert(names.end(), sizes.begin(), sizes.end());
  return names;
}

struct Seen {
  int64_t sample, elements;
};

int64_t medianOf(const std::vector<Seen>& seen) {
  std::vector<int64_t> elements;
  for (const Seen& s : seen) elements.push_back(s.elements);
  std::ranges::sort(elements);
  return std::ranges::find(seen, elements[(elements.size() - 1) / 2], &Seen::elements)->sample;
}

}  // namespace

Result<std::vector<Way>> waysOf(const Graph& graph, const Dataset& samples, int64_t most, int threads) {
  const std::vector<int64_t> indices = spreadSamples(samples.size(), most);
  if (indices.empty()) return fail(ErrorCode::kInvalidData, "there are no samples to measure on");
  size_t conditions = 0;
  const std::vector<std::string> names = decidingIn(graph, conditions);
  if (names.empty()) return std::vector{Way{.sample = indices[0]}};
  QC_ASSIGN(Taps taps, Taps::open(graph, names, {.threads = threads}));
  std::map<std::vector<int>, size_t> known;  // by what each condition is, where it is asked for
  std::vector<std::vector<Seen>> found;
  for (const int64_t i : indices) {
    QC_ASSIGN(const TensorMap sample, samples.sample(i));
    if (Status run = taps.run(sample); !run) return inSample(samples, i, run.error());
    std::vector<int> way;
    Seen seen{i, 0};
    for (size_t k = 0; k < taps.size(); ++k) {
      const Tensor& t = taps.value(k);
      if (k < conditions)
        way.push_back(t.numElements() == 1 ? static_cast<int>(t.at(0) != 0) : -1);
      else
        seen.elements += t.numElements();
    }
    const auto [it, isNew] = known.emplace(std::move(way), found.size());
    if (isNew) found.emplace_back();
    found[it->second].push_back(seen);
  }
  std::ranges::stable_sort(found, std::greater(), [](const auto& way) { return way.size(); });
  if (found.size() > kMostWays) found.resize(kMostWays);
  size_t all = 0;
  for (const auto& way : found) all += way.size();
  std::vector<Way> ways;
  for (const auto& way : found) ways.push_back({medianOf(way), static_cast<double>(way.size()) / static_cast<double>(all)});
  return ways;
}

}  // namespace qc
