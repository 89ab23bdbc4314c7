// reverse_sequence.  The meaning is that of ir/ops/index.cpp; a length outside is refused.
// Tests: tests/kernels/index_test.cpp.
#include "codegen/emit/index.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

struct SequencePlan {
  bool batchFirst;
  Number batches, steps, run;  // run: bytes of one step of one batch entry

  void eachNumber(const NumberVisitor& visit) { visit(batches), visit(steps), visit(run); }
  std::string form() const { return batchFirst ? "batches of steps" : "steps of batches"; }
  KernelShape shape() const { return {batches.value, 0}; }
};

std::optional<SequencePlan> planReverseSequence(const Node& node, const Target&) {
  if (node.result()->type().numElements() == 0) return std::nullopt;
  const Shape& shape = node.operand(0)->type().shape;
  const bool batchFirst = node.integer("batch_axis") == 0;
  const Number run = product(std::span(shape).subspan(2)) * bytesOf(node, 0);
  return SequencePlan{batchFirst, Number(shape[batchFirst ? 0 : 1]), Number(shape[batchFirst ? 1 : 0]), run};
}

Work workOfReverseSequence(const SequencePlan& plan, const Node& node, const Target&) {
  return {{"call", 1},
          {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 0))},
          {"step", static_cast<double>(plan.batches.value * plan.steps.value)}};
}

Result<KernelShape> emitReverseSequence(KernelEmitter& e, const Node& node, const SequencePlan& plan) {
  const bool batchFirst = plan.batchFirst;
  Reg steps = e.number(plan.steps);
  e.loop(e.begin(), e.end(), 1, [&](Reg batch) {
    Reg length = loadInteger(e, node, 1, batch);
    Reg isBad = e.b.CreateICmpUGT(length, steps);
    const auto known = e.known(steps);
    e.refuse(isBad,
             known ? fmt::format("a sequence length is outside of 0 to {} steps", *known) : "a sequence length is outside its steps");
    length = e.b.CreateSelect(isBad, e.i64(0), length);
    const auto place = [&](Reg t) {
      Reg row = batchFirst ? e.b.CreateAdd(e.b.CreateMul(batch, steps), t) : e.b.CreateAdd(scaled(e, t, plan.batches), batch);
      return scaled(e, row, plan.run);
    };
    e.loop(
        e.i64(0), steps, 1,
        [&](Reg t) {
          Reg back = e.b.CreateSub(e.b.CreateSub(length, e.i64(1)), t);
          Reg from = e.b.CreateSelect(e.b.CreateICmpSLT(t, length), back, t);
          e.copyBytes(e.at(e.result(), place(t)), e.at(e.operand(0), place(from)), e.number(plan.run));
        },
        true);
  });
  return plan.shape();
}

}  // namespace

std::vector<KernelDef> reverseSequenceKernels() {
  return kernelsOf(KernelFamily<SequencePlan>{.ops = {"reverse_sequence"},
                                              .rows = {{"reverse_sequence"}},
                                              .plan = planReverseSequence,
                                              .work = workOfReverseSequence,
                                              .onlyNumbers = always,
                                              .emit = emitReverseSequence});
}

}  // namespace qc
