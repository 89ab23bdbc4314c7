#include "runtime/insight/signed_rank.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "ir/signed_index.h"

namespace qc {

double signedRank(std::span<const double> gains) {
  std::vector<double> some;
  for (const double g : gains)
    if (g != 0 && !std::isnan(g)) some.push_back(g);
  std::sort(some.begin(), some.end(), [](double a, double b) { return std::fabs(a) < std::fabs(b); });
  // Twice the ranks: those of equal size are means of two neighbours' at worst.
  std::vector<int64_t> twice(some.size());
  double tied = 0;
  for (size_t from = 0, to = 0; from < some.size(); from = to) {
    while (to < some.size() && std::fabs(some[to]) == std::fabs(some[from])) ++to;
    for (size_t i = from; i < to; ++i) twice[i] = static_cast<int64_t>(from + 1 + to);
    const auto t = static_cast<double>(to - from);
    tied += t * t * t - t;
  }
  int64_t won = 0;
  for (size_t i = 0; i < some.size(); ++i)
    if (some[i] > 0) won += twice[i];
  const auto n = static_cast<double>(some.size());
  if (some.empty()) return 1;
  if (some.size() > static_cast<size_t>(kExactRanks)) {
    const double mean = n * (n + 1) / 4, deviation = std::sqrt(n * (n + 1) * (2 * n + 1) / 24 - tied / 48);
    return std::erfc((static_cast<double>(won) / 2 - mean - 0.5) / deviation / std::sqrt(2.0)) / 2;
  }
  // Share of the ways to give signs that come to each sum.
  std::vector<double> share(usize(std::accumulate(twice.begin(), twice.end(), int64_t{0}) + 1));
  share[0] = 1;
  int64_t reached = 0;
  for (const int64_t rank : twice) {
    reached += rank;
    for (int64_t sum = reached; sum >= 0; --sum) nth(share, sum) = (nth(share, sum) + (sum >= rank ? nth(share, sum - rank) : 0)) / 2;
  }
  return std::min(1.0, std::accumulate(share.begin() + won, share.end(), 0.0));
}

}  // namespace qc
