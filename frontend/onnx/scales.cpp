#include "frontend/onnx/scales.h"

#include <algorithm>
#include <cmath>

#include "frontend/onnx/tensor.h"

namespace qc {
namespace {

// Scales of the tensor's own rank: one for each block of `block` elements along the axis.  A block of 0: the dims tell.
Status blockParams(OnnxNode& n, const Tensor& scales, int64_t axis, int64_t block, const Shape& shape, QuantParams& q) {
  if (scales.rank() != static_cast<int>(shape.size()))
    return n.error(ErrorCode::kInvalidModel, "scales {} for blocks of [{}]", scales.type().str(), toString(shape));
  if (!isStatic(shape)) return n.error(ErrorCode::kUnsupported, "blocks of [{}], whose dims are free", toString(shape));
  QC_ASSIGN(axis, n.axis(axis, scales.rank()));
  for (size_t d = 0; d < shape.size(); ++d) {
    const int64_t size = shape[d].size(), blocks = scales.sizes()[d];
    const bool blocked = static_cast<int64_t>(d) == axis;
    if (blocked && block == 0 && blocks > 0) block = (size + blocks - 1) / blocks;
    if (blocked && block > size) block = std::max<int64_t>(size, 1);  // one block, and a number that can be added to
    if (blocked ? block < 1 || blocks != (size + block - 1) / block : blocks != size)
      return n.error(ErrorCode::kInvalidModel, "scales {} for blocks of {} along axis {} of [{}]", scales.type().str(), block, axis,
                     toString(shape));
  }
  q.axis = static_cast<int>(axis);
  q.blockSize = block;
  return {};
}

// Which scale an element has.
class ScaleOf {
 public:
  ScaleOf(const QuantParams& q, const std::vector<int64_t>& sizes) : axis_(q.axis), block_(q.blockSize) {
    if (axis_ < 0) return;
    size_ = nth(sizes, axis_);
    for (size_t d = usize(axis_) + 1; d < sizes.size(); ++d) inner_ *= sizes[d];
  }
  int64_t operator()(int64_t element) const {
    if (axis_ < 0) return 0;
    const int64_t along = element / inner_ % size_;
    if (block_ == 0) return along;
    const int64_t outer = element / inner_ / size_, blocks = (size_ + block_ - 1) / block_;
    return (outer * blocks + along / block_) * inner_ + element % inner_;
  }

 private:
  int axis_;
  int64_t block_, size_ = 1, inner_ = 1;
};

}  // namespace

OddScales settleScales(QuantParams& q) {
  OddScales odd;
  for (size_t i = 0; i < q.scales.size(); ++i) {
    float& v = q.scales[i];
    if (!(v <= 0)) continue;
    odd.how.resize(q.scales.size(), OddScales::Kind::none);
    odd.how[i] = v == 0 ? OddScales::Kind::zero : OddScales::Kind::negative;
    if (v < 0) q.zeroPoints[i] = static_cast<int32_t>(q.qmin + q.qmax - q.zeroPoints[i]);
    v = v == 0 ? 1 : -v;
  }
  return odd;
}

Result<QuantPtr> quantParams(OnnxNode& n, int scale, int zeroPoint, DType storage, int64_t axis, const Shape& shape, int64_t block,
                             OddScales* odd) {
  QC_ASSIGN(const Tensor* s, n.constant(scale, "the scale"));
  auto q = std::make_shared<QuantParams>();
  if (!isInteger(storage) || sizeOf(storage) > 4) return n.error(ErrorCode::kUnsupported, "integers of type {}", toString(storage));
  q->storage = storage;
  q->qmin = rangeOf(storage).min;
  q->qmax = rangeOf(storage).max;
  q->scales = s->toFloats();
  q->zeroPoints.assign(q->scales.size(), 0);
  if (n.input(zeroPoint)) {
    QC_ASSIGN(const Tensor* z, n.constant(zeroPoint, "the zero point"));
    if (z->dtype() != storage)
      return n.error(ErrorCode::kInvalidModel, "zero points {} for integers of type {}", z->type().str(), toString(storage));
    if (z->numElements() != s->numElements())
      return n.error(ErrorCode::kInvalidModel, "{} zero points for {} scales", z->numElements(), s->numElements());
    for (size_t i = 0; i < q->zeroPoints.size(); ++i) q->zeroPoints[i] = static_cast<int32_t>(z->at(static_cast<int64_t>(i)));
  }
  if (odd) *odd = settleScales(*q);
  for (const float v : q->scales)
    if (!(v > 0) || !std::isfinite(v)) return n.error(ErrorCode::kInvalidModel, "a scale of {}", v);
  if (block < 0) return n.error(ErrorCode::kInvalidModel, "block_size {}", block);
  if (block > 0 || s->rank() > 1) {
    QC_TRY(blockParams(n, *s, axis, block, shape, *q));
  } else if (q->scales.size() != 1) {  // one scale is the tensor's, whatever its shape and whatever the axis
    if (shape.empty()) return n.error(ErrorCode::kInvalidModel, "{} scales for one number", q->scales.size());
    QC_ASSIGN(int64_t a, n.axis(axis, static_cast<int64_t>(shape.size())));
    // Some quantizers name axis 0 for a bias of shape [1, C]: then the one dim that the scales fit is meant.
    const auto fits = [&](Dim d) { return d.isStatic() && d.size() == static_cast<int64_t>(q->scales.size()); };
    if (nth(shape, a) == Dim(1) && std::count_if(shape.begin(), shape.end(), fits) == 1)
      a = std::find_if(shape.begin(), shape.end(), fits) - shape.begin();
    if (!nth(shape, a).isStatic()) n.assumeSize(nth(shape, a).expr(), static_cast<int64_t>(q->scales.size()));
    if (!fits(nth(shape, a)))
      return n.error(ErrorCode::kInvalidModel, "{} scales along axis {} of [{}]", q->scales.size(), a, toString(shape));
    q->axis = static_cast<int>(a);
  }
  return QuantPtr(std::move(q));
}

Result<Tensor> withoutOddScales(OnnxNode& n, const Value* integers, const QuantParams& q, const OddScales& odd) {
  const Tensor* given = integers->constant();
  if (!given)
    return n.error(ErrorCode::kUnsupported, "some scales are 0 or negative, and the integers are computed")
        .on(integers->name())
        .help("scale integers that are computed by positive numbers, and change signs behind the node");
  Tensor t(given->dtype(), given->sizes());
  const ScaleOf scaleOf(q, given->sizes());
  for (int64_t i = 0; i < t.numElements(); ++i) {
    const int64_t scale = scaleOf(i);
    const OddScales::Kind how = nth(odd.how, scale);
    const double v = given->at(i), other = static_cast<double>(q.qmin + q.qmax) - v;
    storeElement(t.dtype(), t.mutableData(), i,
                 how == OddScales::Kind::none       ? v
                 : how == OddScales::Kind::negative ? other
                                                    : q.zeroPoint(scale));
  }
  return t;
}

}  // namespace qc
