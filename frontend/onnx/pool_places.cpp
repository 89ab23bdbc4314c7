// The second output of MaxPool, which no op has here: where in x the largest of each window stands.  The window's elements become a dim of
// their own, of which argmax finds the first of the largest; what that place is in x is looked up, and counted from where the window
// begins.
#include <fmt/ranges.h>

#include <limits>

#include "frontend/onnx/dim_values.h"
#include "frontend/onnx/window.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Dims = std::vector<DimExpr>;

// Numbers along one dim, the same along the others.
Result<Value*> countedAlong(OnnxNode& n, size_t dim, size_t rank, const DimExpr& count, const DimExpr& step) {
  Dims along(rank, 1);
  along[dim] = count;
  QC_ASSIGN(Value * numbers, countedUp(n, 0, count, step));
  return n.reshapeToDims(numbers, along);
}

}  // namespace

Result<Value*> placesOfLargest(OnnxNode& n, const OnnxWindow& w, const Value* pooled) {
  constexpr int64_t kMostPlaces = 1024;
  QC_ASSIGN(const int64_t columnsFirst, n.integer("storage_order", 0));
  const Dims dims = n.dims(0), outs = OnnxNode::dims(pooled);
  const size_t rank = dims.size(), spatial = rank - 2;
  int64_t places = 1;
  for (const int64_t k : w.kernel) {
    if (k > kMostPlaces / places || n.type(0).dtype != DType::f32)
      return n.error(ErrorCode::kUnsupported, "indices of the largest in windows of [{}] of {}", fmt::join(w.kernel, ","), n.type(0).str());
    places *= k;
  }
  Dims strides(spatial, 1);  // elements of x between neighbours
  DimExpr plane = 1;
  for (size_t i = 0; i < spatial; ++i) {
    const size_t d = columnsFirst ? i : spatial - 1 - i;
    strides[d] = plane;
    plane = plane * dims[d + 2];
  }
  // Around x nothing is the largest.
  Dims pads(2 * rank, 0);
  DimExpr origin = 0;  // where the first window begins, in elements of x
  for (size_t d = 0; d < spatial; ++d) {
    const DimExpr begin = w.freePads.empty() ? w.pads[d] : w.freePads[d] + w.pads[d];
    const DimExpr reached = (outs[d + 2] - 1) * w.strides[d] + (w.kernel[d] - 1) * w.dilations[d] + 1;
    pads[d + 2] = begin;
    pads[rank + d + 2] = max(reached - dims[d + 2] - begin, 0);
    origin = origin - begin * strides[d];
  }
  QC_ASSIGN(Value * x,
            n.create("pad", {n.input(0)}, {{"pads", pads}, {"value", static_cast<double>(std::numeric_limits<float>::lowest())}}));
  std::vector<Value*> elements;
  Dims offsets, single = outs;
  single.emplace_back(1);
  for (int64_t place = 0; place < places; ++place) {
    Ints starts(rank, 0), steps(rank, 1);
    DimExpr offset = origin;
    int64_t rest = place;
    for (size_t d = spatial; d-- > 0; rest /= w.kernel[d]) {
      starts[d + 2] = rest % w.kernel[d] * w.dilations[d];
      steps[d + 2] = w.strides[d];
      offset = offset + strides[d] * starts[d + 2];
    }
    QC_ASSIGN(Value * element, n.create("slice", {x}, {{"starts", starts}, {"sizes", outs}, {"steps", steps}}));
    QC_ASSIGN(elements.emplace_back(), n.reshapeToDims(element, single));
    offsets.push_back(offset);
  }
  const auto last = static_cast<int64_t>(rank);
  QC_ASSIGN(Value * all, n.create("concat", std::move(elements), {{"axis", last}}));
  QC_ASSIGN(Value * largest, n.create("argmax", {all}, {{"axis", last}, {"keepdims", int64_t{0}}}));
  QC_ASSIGN(Value * found, n.create("gather", {n.dimValues({places}, offsets), largest}, {{"axis", int64_t{0}}}));
  Dims steps{dims[1] * plane, plane};
  for (size_t d = 0; d < spatial; ++d) steps.push_back(strides[d] * w.strides[d]);
  for (size_t d = 0; d < rank; ++d) {
    QC_ASSIGN(Value * begins, countedAlong(n, d, rank, outs[d], steps[d]));
    QC_ASSIGN(found, n.create("add", {found, begins}));
  }
  return found;
}

}  // namespace qc
