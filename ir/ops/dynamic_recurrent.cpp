// q.dynamic_lstm, q.dynamic_gru and q.dynamic_rnn: lstm, gru and rnn (recurrent.cpp) whose products are exact integer sums.  The weights
// are integers of one scale per row; what they are multiplied with is quantized as it goes (dynamic.h): one set of parameters for the whole
// input sequence of a direction (granularity="token": one per step and batch entry), one for the hidden state of all running batch entries
// at each step.  Then dot(w, v) = float(acc) * f32(s * sw[row]); biases, gates and states are float, in the order of the float ops.
// Tests: tests/unit/dynamic_ops_test.cpp.
#include "ir/op_def.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/gemm.h"
#include "ir/ops/recurrent_eval.h"
#include "ir/ops/widen.h"
#include "ir/qmath.h"

namespace qc {
namespace {

constexpr std::string_view kPrefix = "q.dynamic_";
std::string_view cellOf(std::string_view op) { return op.substr(kPrefix.size()); }

// ---- inference --------------------------------------------------------------------------------

// Integer weights [directions, rows, depth]: the scale depends on direction and row alone.
Status requireRowWeights(const InferContext& c, int operand) {
  const TensorType& w = c.type(operand);
  if (!w.isQuantized() || sizeOf(w.dtype) != 1)
    return fail(ErrorCode::kInvalidModel, "'{}' takes weights quantized to at most 8 bits, got {}", c.op, describe(c, operand));
  if (!w.isStatic()) return fail(ErrorCode::kUnsupported, "'{}' needs weights of known size, got {}", c.op, describe(c, operand));
  QC_TRY(checkQuantParams(*w.quant, w.shape));
  const bool wholeRows = w.quant->blockSize ? w.quant->axis == 2 && w.quant->blockSize >= w.shape[2].size() : w.quant->axis < 2;
  if (!wholeRows) return fail(ErrorCode::kUnsupported, "'{}' takes one scale per row of its weights, got {}", c.op, describe(c, operand));
  return requireDynamicSums(c, c.attrs.dtype("storage"), *w.quant, w.shape[2].size());
}

Result<Types> inferDynamic(const InferContext& c) {
  QC_TRY(requireDynamicRange(c));
  QC_TRY(requireGranularity(c));
  if (sizeOf(c.attrs.dtype("storage")) != 1)
    return fail(ErrorCode::kUnsupported, "'{}' quantizes to 8 bits, not to {}", c.op, toString(c.attrs.dtype("storage")));
  return inferRecurrent(c, cellOf(c.op), [&](int operand) { return requireRowWeights(c, operand); });
}

// ---- evaluation -------------------------------------------------------------------------------

using Floats = std::vector<float>;

// A RecurrentProduct.
class Product {
 public:
  // `direction` of the weights w [directions, rows, depth].
  Product(const TensorRef& w, const QuantParams& q, int64_t direction, const DynamicRange& range, bool perVector)
      : rows_(w.sizes[1]), depth_(w.sizes[2]), range_(range), perVector_(perVector), weights_(static_cast<size_t>(rows_ * depth_)) {
    const Elements<int64_t> values(w);
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t index = q.blockSize ? direction * rows_ + r : q.axis == 1 ? r : q.axis == 0 ? direction : 0;
      scales_.push_back(q.scale(index));
      for (int64_t k = 0; k < depth_; ++k)
        weights_[static_cast<size_t>(k * rows_ + r)] =
            static_cast<uint32_t>(values[(direction * rows_ + r) * depth_ + k] - q.zeroPoint(index));
    }
  }
  void operator()(const float* x, int64_t count, int64_t first, int64_t rows, float* y) {
    const int64_t together = perVector_ ? 1 : count;
    integers_.resize(static_cast<size_t>(together * depth_));
    for (int64_t i = 0; i < count; i += together) {
      const std::span<const float> values(x + i * depth_, integers_.size());
      const DynamicParams p = dynamicParams(values, range_);
      for (size_t k = 0; k < values.size(); ++k)
        integers_[k] = static_cast<uint32_t>(qmath::quantize(values[k], p.scale, p.zeroPoint, range_.qmin, range_.qmax) - p.zeroPoint);
      sums_.assign(static_cast<size_t>(together * rows), 0);
      ref::multiplyAdd(integers_.data(), depth_, weights_.data() + first, rows_, sums_.data(), rows, together, rows, depth_);
      for (int64_t j = 0; j < together * rows; ++j)
        y[i * rows + j] = static_cast<float>(static_cast<int32_t>(sums_[static_cast<size_t>(j)])) *
                          (p.scale * scales_[static_cast<size_t>(first + j % rows)]);
    }
  }

 private:
  int64_t rows_, depth_;
  DynamicRange range_;
  bool perVector_;
  std::vector<uint32_t> weights_, integers_, sums_;
  Floats scales_;
};

Status evalDynamic(const EvalContext& c) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(cellOf(c.node.op()), c.node.attrs()));
  const DynamicRange range = dynamicRangeOf(c.node.attrs());
  const bool perToken = c.node.string("granularity") == "token";
  return evalRecurrent(c, form, [&](int64_t direction) -> RecurrentProducts {
    const auto product = [&](RecurrentForm::Operand operand, bool perVector) {
      const int i = form.place(operand);
      return Product(c.in(i), *c.inType(i).quant, direction, range, perVector);
    };
    return {product(RecurrentForm::Operand::w, perToken), product(RecurrentForm::Operand::r, false)};
  });
}

}  // namespace

// As the float ops are declared, with the attributes of the range.
void registerDynamicRecurrentOps(OpRegistry& registry) {
  for (const char* name : {"lstm", "gru", "rnn"}) {
    OpDef def = registry.at(name);
    def.name = std::string(kPrefix) + name;
    def.summary += ", its products in integers with parameters found as it goes";
    for (AttrSpec& attr : dynamicRangeAttrs()) def.attrs.push_back(std::move(attr));
    def.attrs.push_back(granularityAttr());
    def.infer = inferDynamic;
    def.eval = evalDynamic;
    registry.add(std::move(def));
  }
}

}  // namespace qc
