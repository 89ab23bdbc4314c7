// The steps of lstm, gru and rnn, whose inputs a linear has multiplied by their weights already (ir/ops/recurrent.h).
// One direction of one batch entry is a work unit: its steps depend on one another.  A step multiplies the state by the recurrent
// weights, several panels of rows at a time so that the chains of sums overlap, and then computes its formulas vector by vector; the
// state and the sums stay in scratch.  Order of operations: ir/ops/recurrent.cpp.  Tests: tests/kernels/recurrent_test.cpp.
#include <algorithm>

#include "codegen/families.h"
#include "codegen/vector_loop.h"
#include "ir/ops/recurrent.h"

namespace qc {
namespace {

using Operand = RecurrentForm::Operand;
using Step = RecurrentStep;
constexpr int64_t kPanel = RecurrentForm::kPanel;
constexpr int64_t kFloat = 4;  // bytes

class Recurrence {
 public:
  Recurrence(KernelEmitter& e, const Node& node, const RecurrentForm& form) : e_(e), form_(form) {
    const std::vector<int64_t> x = node.operand(0)->type().sizes();
    sequence_ = x[form.batchFirst ? 1 : 0];
    batch_ = x[form.batchFirst ? 0 : 1];
    rows_ = form.gates * form.hidden;
    padded_ = form.panels() * kPanel;
  }

  KernelShape emit() {
    // Each direction has activations of its own, hence code of its own.
    for (int64_t d = 0; d < form_.directions; ++d)
      e_.loop(e_.maxOf(e_.begin(), e_.i64(d * batch_)), e_.minOf(e_.end(), e_.i64((d + 1) * batch_)), 1,
              [&](Reg unit) { run(d, e_.b.CreateSub(unit, e_.i64(d * batch_))); });
    return {form_.directions * batch_, ((kVectors + form_.gates) * padded_ * kFloat + 63) / 64 * 64};
  }

 private:
  // Scratch: vectors of `padded_` floats, the values of RecurrentStep before `input`, then the sums [gates][padded].
  static constexpr int64_t kVectors = Step::input;
  Reg vector(int64_t which) { return e_.at(e_.scratch(), which * padded_ * kFloat); }
  Reg sums() { return vector(kVectors); }

  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  Reg floatsAt(Reg base, Reg index) { return e_.at(base, mul(index, kFloat)); }
  Reg operand(Operand o) { return form_.place(o) < 0 ? nullptr : e_.operand(form_.place(o)); }
  Reg add(Reg a, Reg c) { return e_.b.CreateFAdd(a, c); }

  void run(int64_t direction, Reg entry) {
    const int64_t d = direction, hidden = form_.hidden, directions = form_.directions;
    Reg state = form_.batchFirst ? mul(e_.b.CreateAdd(mul(entry, directions), e_.i64(d)), hidden)
                                 : mul(e_.b.CreateAdd(entry, e_.i64(d * batch_)), hidden);
    const auto initial = [&](Operand o, Step::Value to) {
      if (Reg given = operand(o))
        e_.copyBytes(vector(to), floatsAt(given, state), hidden * kFloat);
      else
        e_.fillBytes(vector(to), e_.b.getInt8(0), e_.i64(padded_ * kFloat));
    };
    initial(Operand::initialH, Step::h);
    const bool hasMemory = form_.cell == RecurrentForm::Cell::lstm;
    if (hasMemory) initial(Operand::initialC, Step::c);
    weights_ = e_.opaque(e_.at(operand(Operand::r), d * form_.gates * padded_ * hidden * kFloat));
    bias_ = operand(Operand::b) ? e_.at(operand(Operand::b), d * rows_ * kFloat) : nullptr;
    peepholes_ = operand(Operand::p) ? e_.at(operand(Operand::p), d * 3 * hidden * kFloat) : nullptr;
    step_ = Step::of(form_, d, peepholes_ != nullptr);
    // Row of step t: t * stride + first, for inputs in rows of all directions, for outputs in vectors of one.
    const int64_t stride = form_.batchFirst ? 1 : batch_;
    Reg first = form_.batchFirst ? mul(entry, sequence_) : entry;
    e_.loop(e_.i64(0), e_.i64(sequence_), 1, [&](Reg step) {
      Reg t = form_.reverse(d) ? e_.b.CreateSub(e_.i64(sequence_ - 1), step) : step;
      Reg row = e_.b.CreateAdd(mul(t, stride), first);
      input_ = e_.at(e_.operand(0), e_.b.CreateAdd(mul(row, directions * rows_ * kFloat), e_.i64(d * rows_ * kFloat)));
      Reg place = form_.batchFirst ? e_.b.CreateAdd(mul(row, directions), e_.i64(d))
                                   : e_.b.CreateAdd(mul(t, directions * batch_), e_.b.CreateAdd(entry, e_.i64(d * batch_)));
      output_ = e_.at(e_.result(0), mul(place, hidden * kFloat));
      takeStep();
    });
    e_.copyBytes(floatsAt(e_.result(1), state), vector(Step::h), hidden * kFloat);
    if (hasMemory) e_.copyBytes(floatsAt(e_.result(2), state), vector(Step::c), hidden * kFloat);
  }

  // sums[g] = dot(R[g], v) for gates [first, first + count).
  void multiply(Reg v, int64_t first, int64_t count) {
    const int64_t most = std::max<int64_t>(8 * e_.lanes() / kPanel, 1), panels = count * form_.panels();
    const int64_t groups = (panels + most - 1) / most, each = (panels + groups - 1) / groups, from = first * form_.panels();
    e_.loop(e_.i64(0), e_.i64(panels / each), 1, [&](Reg i) { multiplyPanels(v, e_.b.CreateAdd(mul(i, each), e_.i64(from)), each); }, true);
    if (panels % each) multiplyPanels(v, e_.i64(from + panels / each * each), panels % each);
  }
  void multiplyPanels(Reg v, Reg first, int64_t count) {
    const int lanes = std::min<int>(e_.lanes(), kPanel);
    const int64_t perPanel = kPanel / lanes, panelBytes = form_.hidden * kPanel * kFloat;
    Reg base = e_.opaque(e_.at(weights_, mul(first, panelBytes)));
    KernelEmitter::Values acc(static_cast<size_t>(count * perPanel), e_.floats(0, lanes));
    acc = e_.loop(
        e_.i64(0), e_.i64(form_.hidden), 1, acc,
        [&](Reg k, KernelEmitter::Values& values) {
          Reg factor = e_.splat(e_.load(e_.f32(), floatsAt(v, k)), lanes);
          Reg line = e_.at(base, mul(k, kPanel * kFloat));
          for (int64_t i = 0; i < count * perPanel; ++i) {
            Reg w = e_.load(e_.f32(lanes), e_.at(line, i / perPanel * panelBytes + i % perPanel * lanes * kFloat));
            values[static_cast<size_t>(i)] = e_.fma(w, factor, values[static_cast<size_t>(i)]);
          }
        },
        true);
    Reg to = e_.at(sums(), mul(first, kPanel * kFloat));
    for (size_t i = 0; i < acc.size(); ++i) e_.store(acc[i], e_.at(to, static_cast<int64_t>(i) * lanes * kFloat));
  }

  // One vector of the hidden units under computation.
  struct Lane {
    Reg index;
    int count, width;
  };
  void forUnits(const std::function<void(const Lane&)>& body) {
    const int width = std::min<int>(laneCount(e_, form_.hidden), kPanel);
    vectorLoop(e_, form_.hidden, width, [&](Reg i, int count) { body({i, count, width}); });
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

  void takeStep() {
    for (const Step::Part& part : step_.parts) {
      multiply(vector(part.factor), part.first, part.gates);
      forUnits([&](const Lane& l) { assign(part, l); });
    }
  }
  void assign(const Step::Part& part, const Lane& l) {
    KernelEmitter::Values values(Step::kValues);
    for (int v = 0; v < Step::kValues; ++v) values[static_cast<size_t>(v)] = load(v, l);
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
  const RecurrentForm& form_;
  Step step_;
  int64_t sequence_ = 0, batch_ = 0, rows_ = 0, padded_ = 0;
  Reg weights_ = nullptr, bias_ = nullptr, peepholes_ = nullptr, input_ = nullptr, output_ = nullptr;
};

}  // namespace

bool supportsRecurrence(const KernelDef&, const Node& node, const Target&) {
  constexpr int64_t kMostHidden = 1 << 14;  // the state of a unit stays near
  const auto form = RecurrentForm::of(node.op(), node.attrs());
  return form && form->hidden <= kMostHidden && node.result(0)->type().isStatic();
}

double costRecurrence(const KernelDef&, const Node& node, const Target& target) {
  const TensorType& r = node.operand(1)->type();
  const auto steps = static_cast<double>(node.operand(0)->type().numElements()) /
                     static_cast<double>(r.shape[0].size() * r.shape[1].size() * r.shape[3].size());
  return steps * static_cast<double>(r.numElements()) / (target.vectorBytes() / 8.0);
}

Result<KernelShape> emitRecurrence(KernelEmitter& e, const Node& node) {
  QC_ASSIGN(const RecurrentForm form, RecurrentForm::of(node.op(), node.attrs()));
  return Recurrence(e, node, form).emit();
}

}  // namespace qc
