// Numpy broadcasting, once for all ops: the shape of the result, and how each operand is read for it.
//
//   BroadcastView view(outSizes, inSizes);
//   view.offset(i)                                              // operand element that result element i reads
//   view.forRuns(begin, count, [&](int64_t offset, int64_t stride, int64_t n) { ... });   // the same in long runs
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "ir/status.h"
#include "ir/type.h"

namespace qc {

// Dims are aligned at the end; equal dims stay, 1 gives way.  A symbol gives way to a static size above 1 and stays against 1
// or itself; of two free dims the result is the larger one, which is right for equal sizes and for 1.
Result<Shape> broadcastShapes(const Shape& a, const Shape& b);

// An operand of sizes `in`, broadcastable to `out`, both dense row-major.
class BroadcastView {
 public:
  BroadcastView(std::span<const int64_t> out, std::span<const int64_t> in);

  bool isDense() const { return dims_.empty() || (dims_.size() == 1 && dims_[0].stride == 1); }   // element i reads element i
  bool isSingle() const { return dims_.empty() || (dims_.size() == 1 && dims_[0].stride == 0); }  // all read element 0
  int64_t offset(int64_t i) const;

  // Covers result elements [begin, begin + count) with visit(operand offset, stride 0 or 1, number of elements).
  template <class Visit>
  void forRuns(int64_t begin, int64_t count, Visit&& visit) const {
    if (dims_.empty()) {
      if (count > 0) visit(int64_t{0}, int64_t{0}, count);
      return;
    }
    const auto [length, stride] = dims_.back();
    while (count > 0) {
      const int64_t n = std::min(count, length - begin % length);
      visit(offset(begin), stride, n);
      begin += n;
      count -= n;
    }
  }

 private:
  struct Dim {
    int64_t size, stride;
  };
  std::vector<Dim> dims_;  // outermost first, merged as far as the strides allow; the last stride is 0 or 1
};

}  // namespace qc
