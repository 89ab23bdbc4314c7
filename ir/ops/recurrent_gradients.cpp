// Gradients of lstm, gru and rnn: the layer spelled out step by step, as its formulas say (recurrent.h), and differentiated like any graph.
#include <numeric>

#include "ir/ops/gradients.h"
#include "ir/ops/recurrent.h"

namespace qc {
namespace {

using Ints = std::vector<int64_t>;
using Operand = RecurrentForm::Operand;
using Step = RecurrentStep;

// One direction over the whole sequence.
class Unrolled {
 public:
  Unrolled(GradientContext& c, const RecurrentForm& form, int64_t direction)
      : c_(c),
        form_(form),
        direction_(direction),
        sequence_(c.type(0).shape[form.batchFirst ? 1 : 0].size()),
        batch_(c.type(0).shape[form.batchFirst ? 0 : 1].size()),
        rows_(form.gates * form.hidden),
        lengths_(operand(Operand::lengths)) {}

  // Y [sequence, 1, batch, hidden], and the last states [1, batch, hidden].
  std::vector<Value*> run() {
    readOperands();
    std::vector<Value*> inputs = inputsByStep(), outputs;
    Value *h = initial(Operand::initialH), *cell = initial(Operand::initialC);
    const Step step = Step::of(form_, direction_, peephole_ != nullptr);
    for (int64_t i = 0; i < sequence_; ++i) {
      // Backwards without lengths the last comes first; with lengths every sequence was turned round by itself.
      const int64_t t = turnsRound() && !lengths_ ? sequence_ - 1 - i : i;
      auto [nextH, nextC] = stepOf(step, nth(inputs, t), h, cell);
      Value* y = nextH;
      if (lengths_) {
        Value* runs = c_.reshape(c_.op("less", {stepNumber(i), lengths_}), {Dim(batch_), Dim(1)});
        Value* zeros = c_.filled(0, nextH->type());
        y = c_.op("where", {runs, nextH, zeros});
        nextH = c_.op("where", {runs, nextH, h});
        nextC = c_.op("where", {runs, nextC, cell});
      }
      h = nextH;
      cell = nextC;
      outputs.push_back(c_.reshape(y, {Dim(1), Dim(batch_), Dim(form_.hidden)}));
    }
    if (turnsRound() && !lengths_) std::ranges::reverse(outputs);
    Value* y = c_.op("concat", outputs, {{"axis", int64_t{0}}});
    if (turnsRound() && lengths_) y = turned(y);
    if (lengths_) {  // of no steps the last states are zeros
      Value* any = c_.reshape(c_.op("less", {stepNumber(0), lengths_}), {Dim(batch_), Dim(1)});
      h = c_.op("where", {any, h, c_.filled(0, h->type())});
      cell = c_.op("where", {any, cell, c_.filled(0, cell->type())});
    }
    const Shape state = {Dim(1), Dim(batch_), Dim(form_.hidden)};
    return {c_.reshape(y, {Dim(sequence_), Dim(1), Dim(batch_), Dim(form_.hidden)}), c_.reshape(h, state), c_.reshape(cell, state)};
  }

 private:
  Value* operand(Operand o) const { return form_.place(o) < 0 ? nullptr : c_.operand(form_.place(o)); }
  bool turnsRound() const { return form_.reverse(direction_); }

  // What an operand has for this direction: its first dim, which goes.
  Value* own(Value* x) {
    Shape rest(x->type().shape.begin() + 1, x->type().shape.end());
    return c_.reshape(c_.slice(x, 0, direction_, 1), rest);
  }
  void readOperands() {
    w_ = own(operand(Operand::w));
    r_ = own(operand(Operand::r));
    if (Value* b = operand(Operand::b)) {
      inputBias_ = c_.slice(own(b), 0, 0, rows_);
      stateBias_ = c_.slice(own(b), 0, rows_, rows_);
    }
    if (Value* p = operand(Operand::p)) peephole_ = own(p);
  }
  Value* initial(Operand o) {
    const Shape shape = {Dim(batch_), Dim(form_.hidden)};
    Value* state = operand(o);
    if (!state) return c_.filled(0, {DType::f32, shape});
    return c_.reshape(c_.slice(state, form_.batchFirst ? 1 : 0, direction_, 1), shape);
  }
  Value* stepNumber(int64_t i) {
    Tensor number(DType::s32, {1});
    storeElement(DType::s32, number.mutableData(), 0, static_cast<double>(i));
    return c_.constant(std::move(number));
  }
  Value* turned(Value* x) { return c_.op("reverse_sequence", {x, lengths_}, {{"time_axis", int64_t{0}}, {"batch_axis", int64_t{1}}}); }

  // dot(W, x) + Wb of every step: [batch, rows] each.
  std::vector<Value*> inputsByStep() {
    Value* x = form_.batchFirst ? c_.transpose(c_.operand(0), {1, 0, 2}) : c_.operand(0);
    if (turnsRound() && lengths_) x = turned(x);
    Value* all = c_.op("linear", {x, w_, inputBias_});
    std::vector<Value*> steps;
    for (int64_t t = 0; t < sequence_; ++t) steps.push_back(c_.reshape(c_.slice(all, 0, t, 1), {Dim(batch_), Dim(rows_)}));
    return steps;
  }

  std::pair<Value*, Value*> stepOf(const Step& step, Value* input, Value* h, Value* cell) {
    std::vector<Value*> values(Step::kValues, h);  // by RecurrentStep::Value; those that no formula speaks of are of no account
    values[Step::c] = cell;
    for (int64_t g = 0; g < form_.gates; ++g) nth(values, Step::input + g) = c_.slice(input, 1, g * form_.hidden, form_.hidden);
    for (int64_t g = 0; g < 3 && peephole_; ++g) nth(values, Step::peephole + g) = c_.slice(peephole_, 0, g * form_.hidden, form_.hidden);
    for (const Step::Part& part : step.parts) {
      const int64_t first = part.first * form_.hidden, rows = part.gates * form_.hidden;
      Value* bias = stateBias_ ? c_.slice(stateBias_, 0, first, rows) : nullptr;
      Value* sums = c_.op("linear", {values[part.factor], c_.slice(r_, 0, first, rows), bias});
      for (int64_t g = 0; g < part.gates; ++g)
        nth(values, Step::state + part.first + g) = c_.slice(sums, 1, g * form_.hidden, form_.hidden);
      for (const Step::Assignment& assignment : part.assignments) values[assignment.to] = c_.map(assignment.formula, values);
    }
    return {values[Step::h], values[Step::c]};
  }

  GradientContext& c_;
  const RecurrentForm& form_;
  int64_t direction_, sequence_, batch_, rows_;
  Value* lengths_;
  Value *w_ = nullptr, *r_ = nullptr, *inputBias_ = nullptr, *stateBias_ = nullptr, *peephole_ = nullptr;
};

}  // namespace

Result<Gradients> recurrentGradient(GradientContext& c) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(c.node().op(), c.node().attrs()));
  // Every step becomes nodes of its own.
  constexpr int64_t kMostSteps = 10000;
  if (const int64_t steps = c.type(0).shape[form.batchFirst ? 1 : 0].size(); steps * form.directions > kMostSteps)
    return fail(ErrorCode::kResource, "the gradient of '{}' is built step by step, up to {} of them; here are {} in {} directions",
                c.node().op(), kMostSteps, steps, form.directions)
        .help("train on shorter sequences");
  std::vector<std::vector<Value*>> parts(3);  // of Y, Y_h, Y_c, by direction
  for (int64_t d = 0; d < form.directions; ++d) {
    const std::vector<Value*> own = Unrolled(c, form, d).run();
    for (size_t i = 0; i < own.size(); ++i) parts[i].push_back(own[i]);
  }
  std::vector<Value*> results;
  for (int i = 0; i < c.node().numResults(); ++i) {
    Value* all = c.op("concat", nth(parts, i), {{"axis", int64_t{i == 0}}});
    // [sequence, directions, batch, hidden], [directions, batch, hidden]
    if (form.batchFirst) all = i == 0 ? c.transpose(all, {2, 0, 1, 3}) : c.transpose(all, {1, 0, 2});
    results.push_back(all);
  }
  return c.through(results);
}

}  // namespace qc
