// q.dynamic_lstm, q.dynamic_gru and q.dynamic_rnn: lstm, gru and rnn (recurrent.cpp) whose products are exact integer sums.  The weights
// are integers of one scale per row; what they are multiplied with is quantized as it goes (dynamic.h): one set of parameters for the whole
// input sequence of a direction (granularity="token": one per step and batch entry), one for the hidden state of all running batch entries
// at each step.  Then dot(w, v) = float(acc) * f32(s * sw[row]); biases, gates and states are float, in the order of the float ops.
// Of the split form (recurrent.h), whose weights stand in panels: acc = dot(R, q - low) - (z - low) * R_sums with low = the least of the
// storage type, which is the same integer.
// Tests: tests/unit/dynamic_ops_test.cpp.
#include "ir/op_def.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/gemm.h"
#include "ir/ops/recurrent_eval.h"
#include "ir/ops/widen.h"
#include "ir/qmath.h"

namespace qc {
namespace {

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

// Those of the split form.
Status requirePanels(const InferContext& c, int operand) {
  const TensorType& r = c.type(operand);
  if (!r.isQuantized() && (r.dtype == DType::s8 || r.dtype == DType::s16)) return {};
  return fail(ErrorCode::kInvalidModel, "'{}' takes weights of s8 or s16, got {}", c.op, describe(c, operand));
}

Status requireBytes(const InferContext& c) {
  QC_TRY(requireDynamicRange(c));
  if (sizeOf(c.attrs.dtype("storage")) == 1) return {};
  return fail(ErrorCode::kUnsupported, "'{}' quantizes to 8 bits, not to {}", c.op, toString(c.attrs.dtype("storage")));
}

Result<Types> inferWhole(const InferContext& c) {
  QC_TRY(requireBytes(c));
  QC_TRY(requireGranularity(c));
  return inferRecurrent(c, [&](int operand) { return requireRowWeights(c, operand); });
}

Result<Types> inferSteps(const InferContext& c) {
  QC_TRY(requireBytes(c));
  return inferRecurrent(c, [&](int operand) { return requirePanels(c, operand); });
}

// ---- evaluation -------------------------------------------------------------------------------

// The integer weights of one direction.
struct Weights {
  int64_t rows = 0, depth = 0;
  std::vector<uint32_t> values;  // [depth, rows], modulo 2^32
  std::vector<uint32_t> sums;    // of the rows
  std::vector<float> scales;
};

// From w [directions, rows, depth].
Weights weightsOf(const TensorRef& w, const QuantParams& q, int64_t direction) {
  Weights to{w.sizes[1], w.sizes[2], std::vector<uint32_t>(usize(w.sizes[1] * w.sizes[2])), {}, {}};
  const Elements<int64_t> values(w);
  for (int64_t r = 0; r < to.rows; ++r) {
    const int64_t index = rowParameter(q, direction, r, to.rows);
    to.scales.push_back(q.scale(index));
    to.sums.push_back(0);
    for (int64_t k = 0; k < to.depth; ++k) {
      const auto value = static_cast<uint32_t>(values[(direction * to.rows + r) * to.depth + k] - q.zeroPoint(index));
      nth(to.values, k * to.rows + r) = value;
      to.sums.back() += value;
    }
  }
  return to;
}

// From the panels of the split form.
Weights weightsOf(const EvalContext& c, const RecurrentForm& form, int64_t direction) {
  const auto operand = [&](RecurrentForm::Operand o) -> const TensorRef& { return c.in(form.place(o)); };
  const int64_t padded = form.panels() * RecurrentForm::kPanel;
  const Elements<int64_t> panels(operand(RecurrentForm::Operand::r));
  const auto* scales = operand(RecurrentForm::Operand::scale).as<float>() + direction * form.gates * padded;
  const auto* sums = operand(RecurrentForm::Operand::sums).as<int32_t>() + direction * form.gates * padded;
  Weights to{form.gates * form.hidden, form.hidden, {}, {}, {}};
  for (int64_t k = 0; k < form.hidden; ++k)
    for (int64_t r = 0; r < to.rows; ++r)
      to.values.push_back(static_cast<uint32_t>(
          panels[direction * form.gates * form.panels() * form.panelSize() + form.panelIndex(r / form.hidden, r % form.hidden, k)]));
  for (int64_t r = 0; r < to.rows; ++r) {
    const int64_t index = r / form.hidden * padded + r % form.hidden;
    to.scales.push_back(scales[index]);
    to.sums.push_back(static_cast<uint32_t>(sums[index]));
  }
  return to;
}

// A RecurrentProduct.
class StepProduct {
 public:
  StepProduct(Weights weights, const DynamicRange& range, bool perVector)
      : weights_(std::move(weights)), range_(range), perVector_(perVector) {}

  void operator()(const float* x, int64_t count, int64_t first, int64_t rows, float* y) {
    const int64_t together = perVector_ ? 1 : count, depth = weights_.depth;
    const auto low = static_cast<int32_t>(rangeOf(range_.storage).min);
    integers_.resize(usize(together * depth));
    for (int64_t i = 0; i < count; i += together) {
      const std::span<const float> values(x + i * depth, integers_.size());
      const DynamicParams p = dynamicParams(values, range_);
      for (size_t k = 0; k < values.size(); ++k)
        integers_[k] = static_cast<uint32_t>(qmath::quantize(values[k], p.scale, p.zeroPoint, range_.qmin, range_.qmax) - low);
      sums_.assign(usize(together * rows), 0);
      ref::multiplyAdd<uint32_t>({integers_.data(), depth}, {weights_.values.data() + first, weights_.rows}, {sums_.data(), rows},
                                 {together, rows, depth});
      for (int64_t j = 0; j < together * rows; ++j) {
        const auto row = usize(first + j % rows);
        const uint32_t acc = nth(sums_, j) - static_cast<uint32_t>(p.zeroPoint - low) * weights_.sums[row];
        y[i * rows + j] = static_cast<float>(static_cast<int32_t>(acc)) * (p.scale * weights_.scales[row]);
      }
    }
  }

 private:
  Weights weights_;
  DynamicRange range_;
  bool perVector_;
  std::vector<uint32_t> integers_, sums_;
};

Status evalWhole(const EvalContext& c) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.node.op(), c.node.attrs()));
  const DynamicRange range = dynamicRangeOf(c.node.attrs());
  const bool perToken = c.node.string("granularity") == "token";
  return evalRecurrent(c, form, [&](int64_t direction) -> RecurrentProducts {
    const auto product = [&](RecurrentForm::Operand operand, bool perVector) {
      const int i = form.place(operand);
      return StepProduct(weightsOf(c.in(i), *c.inType(i).quant, direction), range, perVector);
    };
    return {product(RecurrentForm::Operand::w, perToken), product(RecurrentForm::Operand::r, false)};
  });
}

Status evalSteps(const EvalContext& c) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.node.op(), c.node.attrs()));
  const DynamicRange range = dynamicRangeOf(c.node.attrs());
  return evalRecurrent(
      c, form, [&](int64_t direction) -> RecurrentProducts { return {nullptr, StepProduct(weightsOf(c, form, direction), range, false)}; });
}

// As a float op is declared, with the attributes of the range.
OpDef dynamicOf(OpDef def) {
  def.name = "q.dynamic_" + def.name;
  def.summary += ", its products in integers with parameters found as it goes";
  for (AttrSpec& attr : dynamicRangeAttrs()) def.attrs.push_back(std::move(attr));
  def.gradient = {};
  def.batch = {};  // a range may be that of all samples
  return def;
}

}  // namespace

int64_t rowParameter(const QuantParams& q, int64_t direction, int64_t row, int64_t rows) {
  return q.blockSize ? direction * rows + row : q.axis == 1 ? row : q.axis == 0 ? direction : 0;
}

// DynamicQuantizeLSTM has no batch-first form; the functions of gru and rnn (frontend/onnx/recurrent_function.h) are given an initial
// state, of sizes that are known.  A smallest scale up to 2^-23 moves what is below it alone: the functions bring it along, ONNX Runtime
// goes without.
bool isPortableRecurrence(const Node& node) {
  constexpr double kLargestEps = 1.0 / (1 << 23);
  const auto bytes = [&](int i) { return node.operand(i)->type().dtype == DType::s8 || node.operand(i)->type().dtype == DType::u8; };
  if (!isStandardRange(node.attrs()) || node.real("eps") > kLargestEps || !bytes(1) || !bytes(2)) return false;
  return !node.is("q.dynamic_lstm") || !node.integer("batch_first");
}

void registerDynamicRecurrentOps(OpRegistry& registry) {
  for (const std::string name : {"lstm", "gru", "rnn"}) {
    OpDef whole = dynamicOf(registry.at(name)), steps = dynamicOf(registry.at(name + "_steps"));
    whole.attrs.push_back(granularityAttr());
    whole.infer = inferWhole;
    whole.eval = evalWhole;
    registry.add(std::move(whole));
    steps.operands.insert(steps.operands.begin() + 2,
                          {{.name = "R_scale", .role = OperandRole::parameter}, {.name = "R_sums", .role = OperandRole::parameter}});
    steps.infer = inferSteps;
    steps.eval = evalSteps;
    registry.add(std::move(steps));
  }
}

}  // namespace qc
