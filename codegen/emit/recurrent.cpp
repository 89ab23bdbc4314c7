// The steps of lstm, gru and rnn, whose inputs a linear has multiplied by their weights already (ir/ops/recurrent.h).
// One direction of one batch entry is a work unit, since its steps depend on one another; of all batch entries, where they share what
// their states are quantized with.  Neighbouring units take their steps together, so that weights are loaded once for several.  A step
// multiplies the state by the recurrent weights (recurrent_product.h) and then computes its formulas vector by vector; the state and the
// sums stay in scratch.  Order of operations: ir/ops/recurrent.cpp, ir/ops/dynamic_recurrent.cpp.  Batch entries with lengths of their own
// take no part in steps behind their last.  Tests: tests/kernels/recurrent_test.cpp.
#include <algorithm>

#include "codegen/emit/recurrent_product.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;
using Step = RecurrentStep;
constexpr int64_t kPanel = RecurrentForm::kPanel;
constexpr int64_t kFloat = 4;  // bytes

struct RecurrencePlan {
  RecurrentForm layer;
  Number sequence, batch;

  void eachNumber(const NumberVisitor& visit) { visit(sequence), visit(batch); }
  std::string form() const { return "steps"; }  // attributes say the rest
  KernelShape shape() const { return {layer.directions * batch.value, -1}; }
};

class Recurrence {
 public:
  Recurrence(KernelEmitter& e, const Node& node, const RecurrencePlan& plan)
      : e_(e), plan_(plan), form_(plan.layer), product_(RecurrentProductEmitter::of(e, node, form_)) {
    const RecurrentForm& form = form_;
    rows_ = form.gates * form.hidden;
    padded_ = form.panels() * kPanel;
  }

  KernelShape emit() {
    // Each direction has activations of its own, hence code of its own.
    const bool whole = product_->takesWholeBatch();
    const int64_t batch = plan_.batch.value, atOnce = product_->mostAtOnce();
    const int64_t most = std::max<int64_t>(whole ? batch : plan_.batch.isFree ? atOnce : std::min(batch, atOnce), 1);
    Reg units = whole ? e_.i64(std::min<int64_t>(batch, 1)) : entries();
    for (int64_t d = 0; d < form_.directions; ++d) {
      Reg before = mul(units, d), behind = mul(units, d + 1);
      Reg begin = e_.maxOf(e_.begin(), before), end = e_.maxOf(e_.minOf(e_.end(), behind), begin);
      const int64_t each = whole ? 1 : most;  // units at once
      Reg rest = e_.b.CreateSub(end, e_.b.CreateURem(e_.b.CreateSub(end, begin), e_.i64(each)));
      const auto runAll = [&](int64_t together, Reg from, Reg to, int64_t step) {
        together_ = together;
        e_.loop(from, to, step, [&](Reg unit) { run(d, e_.b.CreateSub(unit, before)); });
      };
      runAll(most, begin, rest, each);
      if (each > 1) runAll(1, rest, end, 1);
    }
    return {form_.directions * (whole ? std::min<int64_t>(batch, 1) : batch),
            (most * entryBytes() + product_->scratchBytes(most) + 63) / 64 * 64};
  }

 private:
  // Scratch: for each batch entry of the unit vectors of `padded_` floats, the values of RecurrentStep before `input`, then the sums
  // [gates][padded]; behind all entries what the product needs.
  static constexpr int64_t kVectors = Step::input;
  int64_t entryBytes() const { return (kVectors + form_.gates) * padded_ * kFloat; }
  Reg homeOf(Reg entry) { return together_ == 1 ? e_.scratch() : e_.at(e_.scratch(), mul(entry, entryBytes())); }
  Reg vector(int64_t which) { return e_.at(home_, which * padded_ * kFloat); }

  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  Reg mul(Reg a, Reg c) { return e_.b.CreateMul(a, c); }
  Reg steps() { return e_.number(plan_.sequence); }
  Reg entries() { return e_.number(plan_.batch); }
  Reg floatsAt(Reg base, Reg index) { return e_.at(base, mul(index, kFloat)); }
  Reg operand(Operand o) { return form_.place(o) < 0 ? nullptr : e_.operand(form_.place(o)); }
  Reg add(Reg a, Reg c) { return e_.b.CreateFAdd(a, c); }

  // The batch entries of the unit, one after another: `index` within the unit, `entry` within the batch.
  void forEntries(Reg first, const std::function<void(Reg index, Reg entry)>& body) {
    const auto visit = [&](Reg index) {
      home_ = homeOf(index);
      body(index, e_.b.CreateAdd(first, index));
    };
    if (together_ == 1)
      visit(e_.i64(0));
    else
      e_.loop(e_.i64(0), e_.i64(together_), 1, visit, true);
  }

  // Of the batch entries [first, first + together_).
  void run(int64_t direction, Reg first) {
    const int64_t d = direction, hidden = form_.hidden, directions = form_.directions;
    const auto state = [&](Reg entry) {
      return form_.batchFirst ? mul(e_.b.CreateAdd(mul(entry, directions), e_.i64(d)), hidden)
                              : mul(e_.b.CreateAdd(entry, mul(entries(), d)), hidden);
    };
    const auto initial = [&](Operand o, Step::Value to, Reg entry) {
      if (Reg given = operand(o))
        e_.copyBytes(vector(to), floatsAt(given, state(entry)), hidden * kFloat);
      else
        e_.fillBytes(vector(to), e_.b.getInt8(0), e_.i64(padded_ * kFloat));
    };
    const bool hasMemory = form_.cell == RecurrentForm::Cell::lstm;
    forEntries(first, [&](Reg, Reg entry) {
      initial(Operand::initialH, Step::h, entry);
      if (hasMemory) initial(Operand::initialC, Step::c, entry);
    });
    product_->begin(d, e_.at(e_.scratch(), together_ * entryBytes()));
    bias_ = operand(Operand::b) ? e_.at(operand(Operand::b), d * rows_ * kFloat) : nullptr;
    peepholes_ = operand(Operand::p) ? e_.at(operand(Operand::p), d * 3 * hidden * kFloat) : nullptr;
    step_ = Step::of(form_, d, peepholes_ != nullptr);
    e_.loop(e_.i64(0), longest(first), 1, [&](Reg step) { takeStep(d, first, step); });
    forEntries(first, [&](Reg, Reg entry) {
      if (hasLengths()) clearBehind(d, entry);
      const auto finish = [&](int result, Step::Value from) {
        Reg to = floatsAt(e_.result(result), state(entry));
        const auto copy = [&] { e_.copyBytes(to, vector(from), hidden * kFloat); };
        if (!hasLengths()) return copy();
        e_.ifThen(e_.b.CreateICmpSGT(lengthOf(entry), e_.i64(0)), copy,
                  [&] { e_.fillBytes(to, e_.b.getInt8(0), e_.i64(hidden * kFloat)); });
      };
      finish(1, Step::h);
      if (hasMemory) finish(2, Step::c);
    });
  }

  bool hasLengths() { return operand(Operand::lengths) != nullptr; }
  Reg givenLength(Reg entry) {
    Reg given = e_.load(e_.b.getInt32Ty(), e_.at(operand(Operand::lengths), mul(entry, sizeOf(DType::s32))));
    return e_.b.CreateSExt(given, e_.b.getInt64Ty());
  }
  Reg isBad(Reg length) { return e_.b.CreateICmpUGT(length, steps()); }
  // Of the batch entry's sequence: 0 where what is given is refused.
  Reg lengthOf(Reg entry) {
    if (!hasLengths()) return steps();
    Reg given = givenLength(entry);
    return e_.b.CreateSelect(isBad(given), e_.i64(0), given);
  }

  Reg longest(Reg first) {
    if (!hasLengths()) return steps();
    return e_.loop(
        e_.i64(0), e_.i64(together_), 1, {e_.i64(0)},
        [&](Reg index, KernelEmitter::Values& found) {
          Reg entry = e_.b.CreateAdd(first, index);
          e_.refuse(isBad(givenLength(entry)), plan_.sequence.isFree
                                                   ? std::string("a sequence length is negative or beyond the steps")
                                                   : fmt::format("a sequence length is outside of 0 to {} steps", plan_.sequence.value));
          found[0] = e_.maxOf(found[0], lengthOf(entry));
        },
        true)[0];
  }
  // Zeros where the sequence has ended.
  void clearBehind(int64_t d, Reg entry) {
    e_.loop(lengthOf(entry), steps(), 1, [&](Reg t) {
      place(d, entry, t);
      e_.fillBytes(output_, e_.b.getInt8(0), e_.i64(form_.hidden * kFloat));
    });
  }

  void takeStep(int64_t d, Reg first, Reg step) {
    const auto runs = [&](Reg index) { return e_.b.CreateICmpSLT(step, lengthOf(e_.b.CreateAdd(first, index))); };
    for (const Step::Part& part : step_.parts) {
      const auto factorOf = [&](Reg index) { return e_.at(homeOf(index), part.factor * padded_ * kFloat); };
      product_->prepare(together_, factorOf, hasLengths() ? runs : RecurrentProductEmitter::VectorOf());
      // All at once, those that have ended too; or each by itself.
      std::vector<RecurrentProductEmitter::Entry> together;
      const auto vectorsOf = [&](Reg index) -> RecurrentProductEmitter::Entry {
        return {index, factorOf(index), e_.at(homeOf(index), kVectors * padded_ * kFloat)};
      };
      if (!product_->takesWholeBatch() && together_ > 1) {
        for (int64_t i = 0; i < together_; ++i) together.push_back(vectorsOf(e_.i64(i)));
        product_->multiply(together, part.first, part.gates);
      }
      forEntries(first, [&](Reg index, Reg entry) {
        const auto take = [&] {
          place(d, entry, form_.reverse(d) ? e_.b.CreateSub(e_.b.CreateSub(lengthOf(entry), e_.i64(1)), step) : step);
          if (together.empty()) product_->multiply({{vectorsOf(index)}}, part.first, part.gates);
          forUnits([&](const Lane& l) { assign(part, l); });
        };
        if (hasLengths())
          e_.ifThen(runs(index), take);
        else
          take();
      });
    }
  }
  // Inputs are rows of all directions, outputs vectors of one.
  void place(int64_t d, Reg entry, Reg t) {
    Reg row = form_.batchFirst ? e_.b.CreateAdd(mul(entry, steps()), t) : e_.b.CreateAdd(mul(t, entries()), entry);
    input_ = e_.at(e_.operand(0), e_.b.CreateAdd(mul(row, form_.directions * rows_ * kFloat), e_.i64(d * rows_ * kFloat)));
    Reg output = form_.batchFirst ? e_.b.CreateAdd(mul(row, form_.directions), e_.i64(d))
                                  : e_.b.CreateAdd(mul(t, mul(entries(), form_.directions)), e_.b.CreateAdd(entry, mul(entries(), d)));
    output_ = e_.at(e_.result(0), mul(output, form_.hidden * kFloat));
  }

  // One vector of the hidden units under computation.
  struct Lane {
    Reg index;
    int count, width;
  };
  void forUnits(const std::function<void(const Lane&)>& body) {
    const int width = std::min<int>(laneCount(e_, form_.hidden), kPanel);
    vectorLoop(e_, form_.hidden, width, [&](Reg i, LaneCount count) { body({i, count.known, width}); });
  }
  Reg own(int64_t which, const Lane& l) { return e_.load(e_.f32(l.width), floatsAt(vector(which), l.index)); }
  void setOwn(int64_t which, const Lane& l, Reg value) { e_.store(value, floatsAt(vector(which), l.index)); }
  Reg given(Reg base, int64_t row, const Lane& l) {
    return loadUpTo(e_, e_.f32(l.width), floatsAt(e_.at(base, row * form_.hidden * kFloat), l.index), l.count);
  }
  Reg fromState(int64_t gate, const Lane& l) {
    Reg dot = own(kVectors + gate, l);
    return add(dot, bias_ ? given(bias_, gate, l) : e_.floats(0, l.width));
  }
  Reg fromInput(int64_t gate, const Lane& l) { return given(input_, gate, l); }

  void assign(const Step::Part& part, const Lane& l) {
    KernelEmitter::Values values(Step::kValues);
    for (int v = 0; v < Step::kValues; ++v) nth(values, v) = load(v, l);
    for (const auto& [to, formula] : part.assignments) {
      values[to] = e_.expression(formula, values);
      setOwn(to, l, values[to]);
      if (to == Step::h) storeUpTo(e_, values[to], floatsAt(output_, l.index), l.count);
    }
  }
  // A value of RecurrentStep; null where the cell has none such.  What no formula reads is not loaded in the end.
  Reg load(int v, const Lane& l) {
    if (v >= Step::peephole) return peepholes_ ? given(peepholes_, v - Step::peephole, l) : nullptr;
    if (v < Step::input) return own(v, l);
    const int gate = v - (v < Step::state ? Step::input : Step::state);
    if (gate >= form_.gates) return nullptr;
    return v < Step::state ? fromInput(gate, l) : fromState(gate, l);
  }

  KernelEmitter& e_;
  const RecurrencePlan& plan_;
  const RecurrentForm& form_;
  std::unique_ptr<RecurrentProductEmitter> product_;
  Step step_;
  int64_t together_ = 1, rows_ = 0, padded_ = 0;
  Reg bias_ = nullptr, peepholes_ = nullptr;                 // of the direction
  Reg home_ = nullptr, input_ = nullptr, output_ = nullptr;  // of the batch entry
};

std::optional<RecurrencePlan> plan(const Node& node, const Target&) {
  constexpr int64_t kMaxHidden = 1 << 14;  // the state of a unit stays near
  auto form = RecurrentForm::of(node.op(), node.attrs());
  if (!form || form->hidden > kMaxHidden || !node.result(0)->type().isStatic()) return std::nullopt;
  const Shape& x = node.operand(0)->type().shape;
  const int64_t batch = form->batchFirst ? 0 : 1;
  return RecurrencePlan{*std::move(form), Number(nth(x, 1 - batch)), Number(nth(x, batch))};
}

// Of products whose parameters are found for the whole batch the batch is part of the code.
bool onlyNumbers(const RecurrencePlan& plan, const Node&) { return !plan.layer.dynamic; }

Work work(const RecurrencePlan& plan, const Node& node, const Target& target) {
  const RecurrentForm& form = plan.layer;
  const TensorType &x = node.operand(0)->type(), &r = node.operand(1)->type();
  const double steps = static_cast<double>(x.shape[0].size() * x.shape[1].size());
  const double products = steps * vectorCount(r.numElements() * sizeOf(r.dtype), target.vectorBytes());
  const bool integers = r.dtype != DType::f32;
  const double formulas = steps * static_cast<double>(form.directions * form.gates) * vectorCount(form.hidden, target.vectorBytes() / 4);
  return {{"call", 1},
          {"step", integers ? 0 : steps},
          {"integer_step", integers ? steps : 0},
          {"product", integers ? 0 : products},
          {"integer_product", integers ? products : 0},
          {"formula", formulas}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const RecurrencePlan& plan) { return Recurrence(e, node, plan).emit(); }

}  // namespace

std::vector<KernelDef> recurrenceKernels() {
  return kernelsOf(KernelFamily<RecurrencePlan>{
      .ops = {"lstm_steps", "gru_steps", "rnn_steps", "q.dynamic_lstm_steps", "q.dynamic_gru_steps", "q.dynamic_rnn_steps"},
      .rows = {{"recurrence"}},
      .plan = plan,
      .work = work,
      .onlyNumbers = onlyNumbers,
      .emit = emit});
}

}  // namespace qc
