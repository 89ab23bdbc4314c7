#include "runtime/insight/answers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

namespace qc {

bool hasNaN(const Tensor& scores) {
  for (int64_t i = 0; i < scores.numElements(); ++i)
    if (std::isnan(scores.at(i))) return true;
  return false;
}

void GivenAnswers::add(int64_t answer, std::optional<int64_t> label, bool right) {
  answers_.push_back(answer);
  if (!label) return;
  labels_.push_back(*label);
  right_.push_back(right ? 1 : 0);
}

std::vector<Confusion> GivenAnswers::confusions() const {
  std::map<std::pair<int64_t, int64_t>, int64_t> counts;
  for (size_t i = 0; i < labels_.size(); ++i)
    if (labels_[i] != answers_[i]) ++counts[{labels_[i], answers_[i]}];
  std::vector<Confusion> list;
  for (const auto& [pair, count] : counts) list.push_back({pair.first, pair.second, count});
  std::stable_sort(list.begin(), list.end(), [](const Confusion& a, const Confusion& b) { return a.count > b.count; });
  return list;
}

double mcNemar(int64_t onlyA, int64_t onlyB) {
  const int64_t n = onlyA + onlyB, fewer = std::min(onlyA, onlyB);
  if (n == 0) return 1;
  if (n > kExactUpTo) {
    const double d = std::max(0.0, std::fabs(static_cast<double>(onlyA) - static_cast<double>(onlyB)) - 1);
    return std::erfc(std::sqrt(d * d / static_cast<double>(n) / 2));
  }
  double tail = 0;  // P(at most `fewer` of n), every way as likely
  for (int64_t k = 0; k <= fewer; ++k)
    tail += std::exp(std::lgamma(static_cast<double>(n + 1)) - std::lgamma(static_cast<double>(k + 1)) -
                     std::lgamma(static_cast<double>(n - k + 1)) - static_cast<double>(n) * std::log(2.0));
  return std::min(1.0, 2 * tail);
}

double falseDiscoveryBound(std::vector<double> probabilities, double rate) {
  std::sort(probabilities.begin(), probabilities.end());
  const auto count = static_cast<double>(probabilities.size());
  for (size_t i = probabilities.size(); i > 0; --i)
    if (probabilities[i - 1] <= rate * static_cast<double>(i) / count) return probabilities[i - 1];
  return -1;
}

Result<PairedAnswers> PairedAnswers::of(const GivenAnswers& a, const GivenAnswers& b) {
  if (a.size() != b.size() || a.labelled() != b.labelled())
    return fail(ErrorCode::kInvalidArgument, "answers to {} samples cannot be compared with answers to {}", a.size(), b.size());
  PairedAnswers found;
  found.samples = static_cast<int64_t>(a.size());
  found.labelled = a.labelled();
  std::map<int64_t, PairedCounts> classes;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = a.answer(i) == b.answer(i);
    found.agreed += same;
    if (!same) found.differences.push_back({i, a.answer(i), b.answer(i)});
    if (!found.labelled) continue;
    if (a.label(i) != b.label(i))
      return fail(ErrorCode::kInvalidArgument, "sample {} has label {} in one, {} in the other", i, a.label(i), b.label(i));
    found.flips += !same && !a.right(i) && !b.right(i);
    PairedCounts& own = classes[a.label(i)];
    own.label = a.label(i);
    for (PairedCounts* counts : {&own, &found.all})
      ++(a.right(i) ? (b.right(i) ? counts->both : counts->onlyA) : (b.right(i) ? counts->onlyB : counts->neither));
  }
  for (const auto& [label, counts] : classes) found.classes.push_back(counts);
  std::stable_sort(found.classes.begin(), found.classes.end(), [](const PairedCounts& x, const PairedCounts& y) {
    return std::tuple(x.drop(), x.onlyA) > std::tuple(y.drop(), y.onlyA);
  });
  return found;
}

}  // namespace qc
