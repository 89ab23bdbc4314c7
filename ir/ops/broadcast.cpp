#include "ir/ops/broadcast.h"

namespace qc {
namespace {

Result<Dim> broadcastDims(Dim a, Dim b) {
  if (a == b) return a;
  if (a == Dim(1)) return b;
  if (b == Dim(1)) return a;
  if (a.isStatic() && b.isStatic()) return fail(ErrorCode::kInvalidModel, "dims {} and {} do not broadcast", a.str(), b.str());
  if (a.isStatic()) return a;
  return b.isStatic() ? b : Dim(max(a.expr(), b.expr()));
}

}  // namespace

Result<Shape> broadcastShapes(const Shape& a, const Shape& b) {
  const size_t rank = std::max(a.size(), b.size());
  Shape shape(rank);
  for (size_t i = 0; i < rank; ++i) {
    const Dim left = i < a.size() ? a[a.size() - 1 - i] : Dim(1), right = i < b.size() ? b[b.size() - 1 - i] : Dim(1);
    auto dim = broadcastDims(left, right);
    if (!dim)
      return fail(ErrorCode::kInvalidModel, "shapes [{}] and [{}] do not broadcast: {} against {}", toString(a), toString(b), left.str(),
                  right.str());
    shape[rank - 1 - i] = *dim;
  }
  return shape;
}

BroadcastView::BroadcastView(std::span<const int64_t> out, std::span<const int64_t> in) {
  QC_CHECK(in.size() <= out.size());
  int64_t stride = 1;
  std::vector<Dim> innermostFirst;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t size = out[out.size() - 1 - i];
    const int64_t own = i < in.size() ? in[in.size() - 1 - i] : 1;
    QC_CHECK(own == size || own == 1);
    if (size == 1) continue;
    const Dim dim{size, own == 1 ? 0 : stride};
    stride *= own;
    // Merged with the next inner dim if stepping over all of that is one step of this; also true where both stand still.
    if (!innermostFirst.empty() && dim.stride == innermostFirst.back().stride * innermostFirst.back().size)
      innermostFirst.back().size *= size;
    else
      innermostFirst.push_back(dim);
  }
  dims_.assign(innermostFirst.rbegin(), innermostFirst.rend());
}

int64_t BroadcastView::offset(int64_t i) const {
  int64_t offset = 0;
  for (auto dim = dims_.rbegin(); dim != dims_.rend() && i > 0; ++dim) {
    offset += i % dim->size * dim->stride;
    i /= dim->size;
  }
  return offset;
}

}  // namespace qc
