// Tests: tests/unit/recurrent_ops_test.cpp, tests/unit/dynamic_ops_test.cpp.
#include "ir/ops/recurrent_eval.h"

#include <algorithm>
#include <array>

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;
using Step = RecurrentStep;

// ---- types ------------------------------------------------------------------------------------

Status requireAttributes(const InferContext& c) {
  QC_TRY(requireOneOf(c, "direction", {"forward", "reverse", "bidirectional"}));
  const int64_t hidden = c.attrs.integer("hidden_size"), layout = c.attrs.integer("batch_first");
  if (hidden < 1 || hidden > int64_t{1} << 32) return fail(ErrorCode::kInvalidModel, "{}: hidden_size={}", c.op, hidden);
  if (layout != 0 && layout != 1) return fail(ErrorCode::kInvalidModel, "{}: batch_first={} is neither 0 nor 1", c.op, layout);
  if (const double clip = c.attrs.real("clip"); !(clip >= 0)) return fail(ErrorCode::kInvalidModel, "{}: clip={} is negative", c.op, clip);
  return {};
}

Status requirePlain(const InferContext& c, int operand, DType dtype) {
  if (c.type(operand).dtype == dtype && !c.type(operand).isQuantized()) return {};
  return fail(ErrorCode::kInvalidModel, "{}: {} is not of {}", c.op, describe(c, operand), toString(dtype));
}

using Floats = std::vector<float>;

// One direction over all batch entries, step by step.
class Direction {
 public:
  Direction(const EvalContext& c, const RecurrentForm& form, int64_t direction, RecurrentProducts products)
      : c_(c),
        form_(form),
        direction_(direction),
        sequence_(c.in(0).sizes[form.batchFirst ? 1 : 0]),
        batch_(c.in(0).sizes[form.batchFirst ? 0 : 1]),
        rows_(form.gates * form.hidden),
        products_(std::move(products)),
        peepholes_(operand(Operand::p, 3 * form.hidden)),
        recurrentBias_(operand(Operand::b, form.steps ? rows_ : 2 * rows_)),
        step_(RecurrentStep::of(form, direction, peepholes_ != nullptr)) {
    if (!form.steps && recurrentBias_) inputBias_ = std::exchange(recurrentBias_, recurrentBias_ + rows_);
    for (const Step::Part& part : step_.parts)
      for (const Step::Assignment& assignment : part.assignments) programs_.emplace_back(assignment.formula);
  }

  Status run() {
    QC_TRY(readLengths());
    for (int64_t b = 0; b < batch_; ++b) entries_.push_back(initialEntry(b));
    multiplyInputs();
    const float* const* next = inputs_.data();
    for (int64_t step = 0; step < longest_; ++step) {
      std::vector<Entry*> running;
      for (int64_t b = 0; b < batch_; ++b) {
        if (!runs(b, step)) continue;
        running.push_back(&nth(entries_, b));
        running.back()->input = *next++;
      }
      take(running);
      for (int64_t b = 0; b < batch_; ++b)
        if (runs(b, step)) std::ranges::copy(nth(entries_, b).h, c_.out(0).as<float>() + outputOf(b, step));
    }
    for (int64_t b = 0; b < batch_; ++b) {
      setLast(b, nth(entries_, b).h, 1);
      if (c_.outputs.size() > 2) setLast(b, nth(entries_, b).c, 2);
    }
    return {};
  }

 private:
  // The values of one batch entry (RecurrentStep::Value).
  struct Entry {
    Floats h, c, gated, state;
    const float* input = nullptr;
  };

  bool given(Operand o) const { return form_.place(o) >= 0 && c_.has(form_.place(o)); }
  // The part of this direction; null: not given.
  const float* operand(Operand o, int64_t elements) const {
    return given(o) ? c_.in(form_.place(o)).as<float>() + direction_ * elements : nullptr;
  }

  Status readLengths() {
    for (int64_t b = 0; b < batch_; ++b) {
      const int64_t length = given(Operand::lengths) ? c_.in(form_.place(Operand::lengths)).as<int32_t>()[b] : sequence_;
      if (length < 0 || length > sequence_)
        return fail(ErrorCode::kInvalidData, "sequence_lens holds {} for batch {}, the sequence has {} steps", length, b, sequence_);
      lengths_.push_back(length);
      longest_ = std::max(longest_, length);
    }
    return {};
  }
  void setLast(int64_t b, const Floats& state, size_t result) {
    float* to = c_.out(result).as<float>() + stateOf(b);
    if (given(Operand::lengths) && nth(lengths_, b) == 0)
      std::fill(to, to + form_.hidden, 0.0f);
    else
      std::ranges::copy(state, to);
  }
  bool runs(int64_t b, int64_t step) const { return step < nth(lengths_, b); }
  int64_t timeOf(int64_t b, int64_t step) const { return form_.reverse(direction_) ? nth(lengths_, b) - 1 - step : step; }
  int64_t inputOf(int64_t b, int64_t step) const {
    return form_.batchFirst ? b * sequence_ + timeOf(b, step) : timeOf(b, step) * batch_ + b;
  }
  int64_t outputOf(int64_t b, int64_t step) const {
    const int64_t t = timeOf(b, step), directions = form_.directions;
    return (form_.batchFirst ? (b * sequence_ + t) * directions + direction_ : (t * directions + direction_) * batch_ + b) * form_.hidden;
  }
  int64_t stateOf(int64_t b) const {
    return (form_.batchFirst ? b * form_.directions + direction_ : direction_ * batch_ + b) * form_.hidden;
  }

  Entry initialEntry(int64_t b) const {
    const auto initial = [&](Operand o) {
      const float* from = given(o) ? c_.in(form_.place(o)).as<float>() + stateOf(b) : nullptr;
      return from ? Floats(from, from + form_.hidden) : Floats(usize(form_.hidden));
    };
    return {initial(Operand::initialH), initial(Operand::initialC), Floats(usize(form_.hidden)), Floats(usize(rows_))};
  }

  // What x contributes to the gates, for all running entries of all steps in the order of their use.
  void multiplyInputs() {
    const int64_t width = c_.in(0).sizes[2];
    for (int64_t step = 0; step < longest_; ++step)
      for (int64_t b = 0; b < batch_; ++b)
        if (runs(b, step)) inputs_.push_back(c_.in(0).as<float>() + inputOf(b, step) * width);
    if (form_.steps) {  // ready made, each direction's part of a row
      for (const float*& row : inputs_) row += direction_ * rows_;
      return;
    }
    Floats vectors;
    for (const float* x : inputs_) vectors.insert(vectors.end(), x, x + width);
    const auto count = static_cast<int64_t>(inputs_.size());
    fromInputs_.resize(usize(count * rows_));
    products_.w(vectors.data(), count, 0, rows_, fromInputs_.data());
    for (int64_t i = 0; i < count; ++i) {
      float* row = fromInputs_.data() + i * rows_;
      addBias(row, inputBias_, rows_);
      nth(inputs_, i) = row;
    }
  }
  // Nothing to add is +0, which takes the sign of a sum of -0.
  static void addBias(float* sums, const float* bias, int64_t count) {
    for (int64_t i = 0; i < count; ++i) sums[i] += bias ? bias[i] : 0.0f;
  }

  void take(std::span<Entry* const> running) {
    const ExprProgram* program = programs_.data();
    for (const Step::Part& part : step_.parts) {
      multiplyState(part, running);
      for (const Step::Assignment& assignment : part.assignments) {
        for (Entry* entry : running) assign(*program, *entry, assignment.to);
        ++program;
      }
    }
  }
  static Floats& vector(Entry& entry, Step::Value v) { return v == Step::h ? entry.h : v == Step::c ? entry.c : entry.gated; }

  void multiplyState(const Step::Part& part, std::span<Entry* const> running) {
    const int64_t first = part.first * form_.hidden, rows = part.gates * form_.hidden;
    Floats factors, sums(running.size() * usize(rows));
    for (Entry* entry : running) {
      const Floats& factor = vector(*entry, part.factor);
      factors.insert(factors.end(), factor.begin(), factor.end());
    }
    products_.r(factors.data(), static_cast<int64_t>(running.size()), first, rows, sums.data());
    for (size_t i = 0; i < running.size(); ++i) {
      float* state = running[i]->state.data() + first;
      std::copy_n(sums.data() + static_cast<int64_t>(i) * rows, rows, state);
      addBias(state, recurrentBias_ ? recurrentBias_ + first : nullptr, rows);
    }
  }

  void assign(const ExprProgram& program, Entry& entry, Step::Value to) const {
    std::array<const float*, Step::kValues> args{entry.h.data(), entry.c.data(), entry.gated.data()};
    const auto each = [&](Step::Value first, int64_t count, const float* values) {
      for (int64_t i = 0; values && i < count; ++i) nth(args, first + i) = values + i * form_.hidden;
    };
    each(Step::input, form_.gates, entry.input);
    each(Step::state, form_.gates, entry.state.data());
    each(Step::peephole, 3, peepholes_);
    std::array<int, Step::kValues> dense{};
    dense.fill(1);
    program.run<float>(args, dense, vector(entry, to).data(), form_.hidden);
  }

  const EvalContext& c_;
  const RecurrentForm& form_;
  int64_t direction_, sequence_, batch_, rows_, longest_ = 0;
  RecurrentProducts products_;
  const float *peepholes_, *recurrentBias_, *inputBias_ = nullptr;  // null: none
  RecurrentStep step_;
  std::vector<ExprProgram> programs_;  // of all assignments, in order
  std::vector<int64_t> lengths_;
  std::vector<Entry> entries_;
  std::vector<const float*> inputs_;
  Floats fromInputs_;
};

}  // namespace

Status requireFloat32(const InferContext& c, int operand) {
  if (!c.has(operand) || (c.type(operand).dtype == DType::f32 && !c.type(operand).isQuantized())) return {};
  return fail(ErrorCode::kUnsupported, "{} computes in f32, {} is not", c.op, describe(c, operand));
}

Result<Types> inferRecurrent(const InferContext& c, const std::function<Status(int operand)>& requireWeights) {
  QC_TRY(requireAttributes(c));
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.op, c.attrs));
  const auto require = [&](Operand operand, const Shape& shape) -> Status {
    const int i = form.place(operand);
    if (i < 0 || !c.has(i)) return {};
    QC_TRY(requireShape(c, i, shape));
    if (operand == Operand::sums) return requirePlain(c, i, DType::s32);
    return operand == Operand::w || operand == Operand::r ? requireWeights(i) : requireFloat32(c, i);
  };
  QC_TRY(requireFloat32(c, 0));
  QC_TRY(requireRank(c, 0, 3, 3));
  const Shape& x = c.type(0).shape;
  const Dim sequence = x[form.batchFirst ? 1 : 0], batch = x[form.batchFirst ? 0 : 1];
  const int64_t rows = form.gates * form.hidden, directions = form.directions;
  const Shape state = form.batchFirst ? Shape{batch, directions, form.hidden} : Shape{directions, batch, form.hidden};
  if (form.steps) {
    QC_TRY(require(Operand::x, {x[0], x[1], directions * rows}));
    const std::vector<int64_t> panels = form.panelSizes();
    const Shape ofRows = {directions, form.gates, form.panels(), RecurrentForm::kPanel};
    QC_TRY(require(Operand::r, Shape(panels.begin(), panels.end())));
    QC_TRY(require(Operand::scale, ofRows));
    QC_TRY(require(Operand::sums, ofRows));
    QC_TRY(require(Operand::b, {directions, rows}));
  } else {
    QC_TRY(require(Operand::w, {directions, rows, x[2]}));
    QC_TRY(require(Operand::r, {directions, rows, form.hidden}));
    QC_TRY(require(Operand::b, {directions, 2 * rows}));
  }
  QC_TRY(require(Operand::initialH, state));
  QC_TRY(require(Operand::initialC, state));
  QC_TRY(require(Operand::p, {directions, 3 * form.hidden}));
  if (const int i = form.place(Operand::lengths); i >= 0 && c.has(i)) {
    QC_TRY(requireVector(c, i, batch));
    QC_TRY(requirePlain(c, i, DType::s32));
  }
  const Shape all = form.batchFirst ? Shape{batch, sequence, directions, form.hidden} : Shape{sequence, directions, batch, form.hidden};
  Types types = {{DType::f32, all}, {DType::f32, state}};
  if (form.cell == RecurrentForm::Cell::lstm) types.emplace_back(DType::f32, state);
  return checkedResults(std::move(types));
}

// ---- evaluation -------------------------------------------------------------------------------

Status evalRecurrent(const EvalContext& c, const RecurrentForm& form, const std::function<RecurrentProducts(int64_t direction)>& products) {
  float* y = c.out(0).as<float>();
  std::fill(y, y + c.out(0).numElements(), 0.0f);
  for (int64_t d = 0; d < form.directions; ++d) QC_TRY(Direction(c, form, d, products(d)).run());
  return {};
}

}  // namespace qc
