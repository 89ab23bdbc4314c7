#include "frontend/onnx/slice_bounds.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "frontend/onnx/put_first.h"
#include "ir/dim_expr_terms.h"

namespace qc {
namespace {

constexpr int64_t kFar = INT32_MAX;  // stands for the end, or the beginning, in all exporters
constexpr int64_t kEnd = INT64_MAX, kBeginning = INT64_MIN + 1;

SliceCut knownCut(int64_t dim, int64_t start, int64_t end, int64_t step) {
  step = std::clamp<int64_t>(step, -(int64_t{1} << 40), int64_t{1} << 40);
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
  start = std::clamp<int64_t>(start < 0 ? start + dim : start, step > 0 ? 0 : -1, high);
  end = std::clamp<int64_t>(end < 0 && end > std::numeric_limits<int64_t>::min() / 2 ? end + dim : end, low, high);
  const int64_t size = std::max<int64_t>(step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step, 0);
  return {size ? start : 0, size, size ? std::clamp<int64_t>(step, -dim - 1, dim + 1) : 1};
}

// Of an expression that is one factor and no more.
std::optional<DimFactor> soleFactor(const DimExpr& e) {
  std::vector<DimTerm> terms = dimTerms(e);
  if (terms.size() != 1 || terms[0].coefficient != 1 || terms[0].factors.size() != 1) return std::nullopt;
  return std::move(terms[0].factors[0]);
}

// Constants first: they need no arithmetic in the file.
void sortByEase(std::vector<DimExpr>& list) {
  putFirst(list, [](const DimExpr& x) { return x.constant().has_value(); });
}

// The expression, and what it is the least or largest of: a bound beyond the dim means the end, and one below 0 counts from there.
std::vector<DimExpr> meanings(const DimExpr& e, const DimExpr& dim) {
  std::vector<DimExpr> all;
  if (const auto factor = soleFactor(e); factor && (factor->kind == DimFactor::Kind::min || factor->kind == DimFactor::Kind::max))
    for (const DimExpr& arg : factor->args) all.insert(all.end(), {arg, arg - dim});
  all.insert(all.end(), {e, e - dim});
  sortByEase(all);
  return all;
}

// How far a cut may reach that takes `size` elements: to the last of them, or anywhere before the next.
std::vector<DimExpr> widths(const DimExpr& size, int64_t step) {
  std::vector<DimExpr> all = {size * step};
  const auto factor = soleFactor(size);
  if (!factor || factor->kind != DimFactor::Kind::floorDiv) return all;
  // x // (m * step) elements: ceil(w / step) of them for w = x // m - (step - 1).
  if (const auto divisor = factor->args[1].constant(); divisor && *divisor > 0 && *divisor % step == 0) {
    const int64_t m = *divisor / step;
    all.insert(all.begin(), floorDiv(factor->args[0] - (step - 1) * m, m));
  }
  return all;
}

}  // namespace

Result<SliceCut> sliceCut(const DimExpr& dim, const SliceBounds& bounds) {
  const auto size = dim.constant(), first = bounds.start.constant(), behind = bounds.end.constant();
  if (size && first && behind) return knownCut(*size, *first, *behind, bounds.step);
  const bool isForward = bounds.step > 0;
  if (bounds.step == -1 && first && (*first == -1 || *first >= kFar) && behind && *behind <= -kFar) return SliceCut{dim - 1, dim, -1};
  const DimExpr low = isForward ? 0 : -1, high = isForward ? dim : dim - 1;  // backwards an end lies in front of the first element
  const auto place = [&](const DimExpr& at) -> Result<DimExpr> {
    const auto known = at.constant();
    if (known && *known >= kFar) return high;
    if (known && *known <= -kFar) return low;
    if (at.isNonNegative()) return min(at, high);
    if ((-at - 1).isNonNegative()) return max(dim + at, low);
    const DimExpr counted = at + dim * min(max(-at, 0), 1);  // from the end where it is below 0
    const DimExpr within = min(max(counted, low), high);
    if (!within.isUnknown()) return within;
    return fail(ErrorCode::kUnsupported, "whether {} counts from the end depends on sizes that are free", at.str());
  };
  QC_ASSIGN(const DimExpr from, place(bounds.start));
  QC_ASSIGN(const DimExpr to, place(bounds.end));
  const DimExpr width = isForward ? to - from : from - to;
  const DimExpr taken = ceilDiv(width.isNonNegative() ? width : max(width, 0), std::abs(bounds.step));
  return SliceCut{isForward || from.isNonNegative() ? from : max(from, 0), taken, bounds.step};
}

SliceBounds sliceBounds(const DimExpr& dim, const SliceCut& cut) {
  const DimExpr end = cut.start + cut.size * cut.step;
  const bool isKnown = dim.constant() && cut.start.constant() && cut.size.constant();
  // Before the first element no number lies that would not count from the end.
  if (isKnown) return {cut.start, *end.constant() < 0 ? DimExpr(kBeginning) : end, cut.step};
  std::vector<DimExpr> ends = {cut.step < 0 ? kBeginning : kEnd};
  for (const DimExpr& whole : widths(cut.size, cut.step))
    for (const DimExpr& width : meanings(whole, dim))
      for (const DimExpr& candidate : meanings(cut.start + width, dim)) ends.push_back(candidate);
  sortByEase(ends);
  for (const DimExpr& candidate : ends)
    for (const DimExpr& start : meanings(cut.start, dim))
      if (const auto read = sliceCut(dim, {start, candidate, cut.step}); read && *read == cut) return {start, candidate, cut.step};
  return {cut.start, cut.step < 0 ? end - dim : end, cut.step};
}

}  // namespace qc
