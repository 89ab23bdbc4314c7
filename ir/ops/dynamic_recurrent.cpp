// q.dynamic_lstm, q.dynamic_gru and q.dynamic_rnn: lstm, gru and rnn (recurrent.cpp) whose products are exact integer sums.  The weights
// are integers of one scale per row; what they are multiplied with is quantized as it goes (dynamic.h): one set of parameters for the whole
// input sequence of a direction (granularity="token": one per step and batch entry), one for the hidden state of all running batch entries
// at each step.  Then dot(w, v) = float(acc) * f32(s * sw[row]); biases, gates and states are float, in the order of the float ops.
// Tests: tests/unit/dynamic_ops_test.cpp.
#include <algorithm>
#include <cmath>
#include <memory>

#include "ir/op_def.h"
#include "ir/ops/dynamic.h"
#include "ir/ops/gemm.h"
#include "ir/ops/infer_util.h"
#include "ir/ops/recurrent.h"
#include "ir/ops/widen.h"
#include "ir/qmath.h"

namespace qc {
namespace {

enum Operand { kX, kW, kR, kB, kLengths, kInitialH, kInitialC, kP };
constexpr std::string_view kPrefix = "q.dynamic_";

Result<RecurrentForm> formOf(std::string_view op, const AttrDict& attrs) { return RecurrentForm::of(op.substr(kPrefix.size()), attrs); }

// ---- inference --------------------------------------------------------------------------------

// Integer weights [directions, rows, depth]: the scale depends on direction and row alone.
Status requireRowWeights(const InferContext& c, int operand) {
  const TensorType& w = c.type(operand);
  if (!w.isQuantized() || sizeOf(w.dtype) != 1)
    return fail(ErrorCode::kInvalidModel, "'{}' takes weights quantized to at most 8 bits, got {}", c.op, describe(c, operand));
  QC_TRY(requireRank(c, operand, 3, 3));
  if (!w.isStatic()) return fail(ErrorCode::kUnsupported, "'{}' needs weights of known size, got {}", c.op, describe(c, operand));
  QC_TRY(checkQuantParams(*w.quant, w.shape));
  const bool wholeRows = w.quant->blockSize ? w.quant->axis == 2 && w.quant->blockSize >= w.shape[2].size() : w.quant->axis < 2;
  if (!wholeRows) return fail(ErrorCode::kUnsupported, "'{}' takes one scale per row of its weights, got {}", c.op, describe(c, operand));
  return requireDynamicSums(c, c.attrs.dtype("storage"), *w.quant, w.shape[2].size());
}

Status requireFloats(const InferContext& c, int operand, const Shape& shape) {
  if (!c.has(operand)) return {};
  if (c.type(operand).dtype != DType::f32 || c.type(operand).isQuantized())
    return fail(ErrorCode::kUnsupported, "'{}' takes f32 here, {} is not", c.op, describe(c, operand));
  return requireShape(c, operand, shape);
}

Result<Types> inferDynamic(const InferContext& c) {
  QC_TRY(requireOneOf(c, "direction", {"forward", "reverse", "bidirectional"}));
  const int64_t hidden = c.attrs.integer("hidden_size"), layout = c.attrs.integer("batch_first");
  if (hidden < 1 || hidden > int64_t{1} << 32) return fail(ErrorCode::kInvalidModel, "{}: hidden_size={}", c.op, hidden);
  if (layout != 0 && layout != 1) return fail(ErrorCode::kInvalidModel, "{}: batch_first={} is neither 0 nor 1", c.op, layout);
  if (const double clip = c.attrs.real("clip"); !(clip >= 0)) return fail(ErrorCode::kInvalidModel, "{}: clip={} is negative", c.op, clip);
  QC_ASSIGN(const RecurrentForm form, formOf(c.op, c.attrs));
  QC_TRY(requireDynamicRange(c));
  QC_TRY(requireGranularity(c));
  if (sizeOf(c.attrs.dtype("storage")) != 1)
    return fail(ErrorCode::kUnsupported, "'{}' quantizes to 8 bits, not to {}", c.op, toString(c.attrs.dtype("storage")));
  QC_TRY(requireRank(c, kX, 3, 3));
  const Shape& x = c.type(kX).shape;
  const Dim sequence = x[layout ? 1 : 0], batch = x[layout ? 0 : 1];
  const int64_t rows = form.gates * hidden, directions = form.directions;
  const Shape state = layout ? Shape{batch, directions, hidden} : Shape{directions, batch, hidden};
  QC_TRY(requireFloats(c, kX, x));
  QC_TRY(requireShape(c, kW, {directions, rows, x[2]}));
  QC_TRY(requireShape(c, kR, {directions, rows, hidden}));
  for (const int operand : {kW, kR}) QC_TRY(requireRowWeights(c, operand));
  QC_TRY(requireFloats(c, kB, {directions, 2 * rows}));
  QC_TRY(requireFloats(c, kInitialH, state));
  QC_TRY(requireFloats(c, kInitialC, state));
  QC_TRY(requireFloats(c, kP, {directions, 3 * hidden}));
  if (c.has(kLengths)) {
    QC_TRY(requireVector(c, kLengths, batch));
    if (c.type(kLengths).dtype != DType::s32 || c.type(kLengths).isQuantized())
      return fail(ErrorCode::kInvalidModel, "{}: {} is not of s32", c.op, describe(c, kLengths));
  }
  Types types = {{DType::f32, layout ? Shape{batch, sequence, directions, hidden} : Shape{sequence, directions, batch, hidden}}};
  for (int i = form.cell == RecurrentForm::Cell::lstm ? 3 : 2; i > 1; --i) types.emplace_back(DType::f32, state);
  return checkedResults(std::move(types));
}

// ---- evaluation -------------------------------------------------------------------------------

using Floats = std::vector<float>;

// Products of vectors with the rows of one weight matrix.
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
  // y[i][r] = dot(row first + r, x[i]) for i < count, r < rows; the vectors lie one behind the other.
  void run(const float* x, int64_t count, int64_t first, int64_t rows, float* y) {
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

// One batch entry at one step.
struct Lane {
  const float* fromInput;  // dot(W, x) of every row
  float *h, *c;            // the state, updated in place
  Floats fromState;        // dot(R, h)
};

// The weights of one direction and what one step of it computes.
struct Cell {
  const RecurrentForm& form;
  mutable Product w, r;      // they reuse their scratch memory
  const float *wb, *rb, *p;  // biases and peepholes may be null
  RecurrentActivations activations;

  float fromInput(const Lane& lane, int64_t row) const { return lane.fromInput[row] + (wb ? wb[row] : 0.0f); }
  float fromState(const Lane& lane, int64_t row) const { return lane.fromState[static_cast<size_t>(row)] + (rb ? rb[row] : 0.0f); }

  // A whole gate, `peephole` < 0: none.
  Floats gate(int64_t g, size_t which, const Lane& lane, int peephole = -1, const float* c = nullptr) const {
    Floats v(static_cast<size_t>(form.hidden));
    for (int64_t j = 0; j < form.hidden; ++j) {
      float& value = v[static_cast<size_t>(j)];
      value = fromInput(lane, g * form.hidden + j) + fromState(lane, g * form.hidden + j);
      if (p && peephole >= 0) value += p[peephole * form.hidden + j] * c[j];
    }
    activations.apply(which, v);
    return v;
  }

  void lstm(const Lane& lane) const {
    const Floats i = gate(0, 0, lane, 0, lane.c);
    Floats f = gate(2, 0, lane, 2, lane.c);
    const Floats candidate = gate(3, 1, lane);
    Floats next(i.size());
    for (size_t j = 0; j < next.size(); ++j) {
      if (form.inputForget) f[j] = 1.0f - i[j];
      next[j] = f[j] * lane.c[j] + i[j] * candidate[j];
    }
    const Floats o = gate(1, 0, lane, 1, next.data());
    std::copy(next.begin(), next.end(), lane.c);
    activations.apply(2, next);
    for (size_t j = 0; j < next.size(); ++j) lane.h[j] = o[j] * next[j];
  }

  // Rows of `r` from `first` on times the state vectors of all lanes.
  void multiplyState(std::span<Lane> lanes, const Floats& states, int64_t first, int64_t rows) const {
    Floats y(lanes.size() * static_cast<size_t>(rows));
    r.run(states.data(), static_cast<int64_t>(lanes.size()), first, rows, y.data());
    for (size_t i = 0; i < lanes.size(); ++i)
      std::copy_n(y.data() + static_cast<int64_t>(i) * rows, rows, lanes[i].fromState.begin() + first);
  }

  void gru(std::span<Lane> lanes) const {
    std::vector<Floats> update, reset;
    Floats gated;
    for (const Lane& lane : lanes) {
      update.push_back(gate(0, 0, lane));
      reset.push_back(gate(1, 0, lane));
      for (int64_t j = 0; j < form.hidden; ++j) gated.push_back(reset.back()[static_cast<size_t>(j)] * lane.h[j]);
    }
    if (!form.linearBeforeReset) multiplyState(lanes, gated, 2 * form.hidden, form.hidden);
    for (size_t i = 0; i < lanes.size(); ++i) {
      const Lane& lane = lanes[i];
      Floats candidate(static_cast<size_t>(form.hidden));
      for (size_t j = 0; j < candidate.size(); ++j) {
        const int64_t row = 2 * form.hidden + static_cast<int64_t>(j);
        const float state = fromState(lane, row);
        candidate[j] = fromInput(lane, row) + (form.linearBeforeReset ? reset[i][j] * state : state);
      }
      activations.apply(1, candidate);
      for (size_t j = 0; j < candidate.size(); ++j) lane.h[j] = (1.0f - update[i][j]) * candidate[j] + update[i][j] * lane.h[j];
    }
  }

  void step(std::span<Lane> lanes) const {
    Floats states;
    for (Lane& lane : lanes) {
      states.insert(states.end(), lane.h, lane.h + form.hidden);
      lane.fromState.resize(static_cast<size_t>(form.gates * form.hidden));
    }
    const bool isGru = form.cell == RecurrentForm::Cell::gru;
    multiplyState(lanes, states, 0, (isGru && !form.linearBeforeReset ? form.gates - 1 : form.gates) * form.hidden);
    if (isGru) return gru(lanes);
    for (const Lane& lane : lanes) {
      if (form.cell == RecurrentForm::Cell::lstm) {
        lstm(lane);
      } else {
        const Floats next = gate(0, 0, lane);
        std::copy(next.begin(), next.end(), lane.h);
      }
    }
  }
};

// One direction over all batch entries, step by step.
class Direction {
 public:
  Direction(const RecurrentForm& form, const EvalContext& c, int64_t direction)
      : form_(form),
        c_(c),
        direction_(direction),
        batchFirst_(form.batchFirst),
        hidden_(form.hidden),
        directions_(form.directions),
        sequence_(c.in(kX).sizes[batchFirst_ ? 1 : 0]),
        batch_(c.in(kX).sizes[batchFirst_ ? 0 : 1]),
        reverse_(form.reverse(direction)) {}

  Status run() {
    const Cell cell = makeCell();
    QC_TRY(readLengths());
    // The vectors of all running steps together, in the order in which they are used.
    const int64_t input = c_.in(kX).sizes[2], rows = form_.gates * hidden_;
    Floats vectors;
    int64_t count = 0;
    const int64_t longest = lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
    for (int64_t step = 0; step < longest; ++step)
      for (int64_t b = 0; b < batch_; ++b) {
        if (step >= lengths_[static_cast<size_t>(b)]) continue;
        const float* x = c_.in(kX).as<float>() + place(b, step) * input;
        vectors.insert(vectors.end(), x, x + input);
        ++count;
      }
    Floats products(static_cast<size_t>(count * rows));
    cell.w.run(vectors.data(), count, 0, rows, products.data());
    initialStates();
    const float* next = products.data();
    std::vector<Lane> lanes;
    for (int64_t step = 0; step < longest; ++step) {
      lanes.clear();
      for (int64_t b = 0; b < batch_; ++b) {
        if (step >= lengths_[static_cast<size_t>(b)]) continue;
        lanes.push_back({next, h_.data() + b * hidden_, memory_.data() + b * hidden_, {}});
        next += rows;
      }
      cell.step(lanes);
      writeStep(step);
    }
    finalStates();
    return {};
  }

 private:
  Cell makeCell() const {
    const DynamicRange range = dynamicRangeOf(c_.node.attrs());
    const bool perToken = c_.node.string("granularity") == "token";
    Cell cell{form_,
              Product(c_.in(kW), *c_.inType(kW).quant, direction_, range, perToken),
              Product(c_.in(kR), *c_.inType(kR).quant, direction_, range, false),
              nullptr,
              nullptr,
              nullptr,
              {form_, direction_}};
    const int64_t rows = form_.gates * hidden_;
    if (c_.has(kB)) {
      cell.wb = c_.in(kB).as<float>() + direction_ * 2 * rows;
      cell.rb = cell.wb + rows;
    }
    if (c_.has(kP)) cell.p = c_.in(kP).as<float>() + direction_ * 3 * hidden_;
    return cell;
  }
  Status readLengths() {
    for (int64_t b = 0; b < batch_; ++b) {
      const int64_t length = c_.has(kLengths) ? c_.in(kLengths).as<int32_t>()[b] : sequence_;
      if (length < 0 || length > sequence_)
        return fail(ErrorCode::kInvalidData, "sequence_lens holds {} for batch {}, the sequence has {} steps", length, b, sequence_);
      lengths_.push_back(length);
    }
    return {};
  }
  int64_t timeOf(int64_t b, int64_t step) const { return reverse_ ? lengths_[static_cast<size_t>(b)] - 1 - step : step; }
  int64_t place(int64_t b, int64_t step) const { return batchFirst_ ? b * sequence_ + timeOf(b, step) : timeOf(b, step) * batch_ + b; }
  int64_t stateOf(int64_t b) const { return (batchFirst_ ? b * directions_ + direction_ : direction_ * batch_ + b) * hidden_; }

  void initialStates() {
    const auto fill = [&](int operand, Floats& to) {
      to.assign(static_cast<size_t>(batch_ * hidden_), 0.0f);
      for (int64_t b = 0; b < batch_ && c_.has(operand); ++b)
        std::copy_n(c_.in(operand).as<float>() + stateOf(b), hidden_, to.data() + b * hidden_);
    };
    fill(kInitialH, h_);
    fill(kInitialC, memory_);
  }
  void writeStep(int64_t step) const {
    for (int64_t b = 0; b < batch_; ++b) {
      if (step >= lengths_[static_cast<size_t>(b)]) continue;
      const int64_t t = timeOf(b, step);
      const int64_t at = batchFirst_ ? (b * sequence_ + t) * directions_ + direction_ : (t * directions_ + direction_) * batch_ + b;
      std::copy_n(h_.data() + b * hidden_, hidden_, c_.out(0).as<float>() + at * hidden_);
    }
  }
  void finalStates() const {
    for (int64_t b = 0; b < batch_; ++b) {
      std::copy_n(h_.data() + b * hidden_, hidden_, c_.out(1).as<float>() + stateOf(b));
      if (c_.outputs.size() > 2) std::copy_n(memory_.data() + b * hidden_, hidden_, c_.out(2).as<float>() + stateOf(b));
    }
  }

  const RecurrentForm& form_;
  const EvalContext& c_;
  int64_t direction_;
  bool batchFirst_;
  int64_t hidden_, directions_, sequence_, batch_;
  bool reverse_;
  std::vector<int64_t> lengths_;
  Floats h_, memory_;
};

Status evalDynamic(const EvalContext& c) {
  QC_ASSIGN(const RecurrentForm form, formOf(c.node.op(), c.node.attrs()));
  float* y = c.out(0).as<float>();
  std::fill(y, y + c.out(0).numElements(), 0.0f);
  for (int64_t d = 0; d < form.directions; ++d) QC_TRY(Direction(form, c, d).run());
  return {};
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
