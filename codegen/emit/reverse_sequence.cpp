// reverse_sequence.  The meaning is that of ir/ops/index.cpp; a length outside is refused.
// Tests: tests/kernels/index_test.cpp.
#include "codegen/emit/index.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

struct SequencePlan {
  bool batchFirst;
  int64_t batches, steps, run;  // run: bytes of one step of one batch entry
};

std::optional<SequencePlan> planReverseSequence(const Node& node, const Target&) {
  if (node.result()->type().numElements() == 0) return std::nullopt;
  const Sizes sizes = sizesOf(node, 0);
  const bool batchFirst = node.integer("batch_axis") == 0;
  const int64_t run = product(std::span(sizes).subspan(2)) * bytesOf(node, 0);
  return SequencePlan{batchFirst, sizes[batchFirst ? 0 : 1], sizes[batchFirst ? 1 : 0], run};
}

Work workOfReverseSequence(const SequencePlan& plan, const Node& node, const Target&) {
  return {{"call", 1},
          {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 0))},
          {"step", static_cast<double>(plan.batches * plan.steps)}};
}

Result<KernelShape> emitReverseSequence(KernelEmitter& e, const Node& node, const SequencePlan& plan) {
  const int64_t batches = plan.batches, steps = plan.steps, run = plan.run;
  const bool batchFirst = plan.batchFirst;
  e.loop(e.begin(), e.end(), 1, [&](Reg batch) {
    Reg length = loadInteger(e, node, 1, batch);
    Reg isBad = e.b.CreateICmpUGT(length, e.i64(steps));
    e.refuse(isBad, fmt::format("a sequence length is outside of 0 to {} steps", steps));
    length = e.b.CreateSelect(isBad, e.i64(0), length);
    const auto place = [&](Reg t) {
      return scaled(e, batchFirst ? e.b.CreateAdd(scaled(e, batch, steps), t) : e.b.CreateAdd(scaled(e, t, batches), batch), run);
    };
    e.loop(
        e.i64(0), e.i64(steps), 1,
        [&](Reg t) {
          Reg back = e.b.CreateSub(e.b.CreateSub(length, e.i64(1)), t);
          Reg from = e.b.CreateSelect(e.b.CreateICmpSLT(t, length), back, t);
          e.copyBytes(e.at(e.result(), place(t)), e.at(e.operand(0), place(from)), run);
        },
        true);
  });
  return KernelShape{batches, 0};
}

}  // namespace

std::vector<KernelDef> reverseSequenceKernels() {
  return kernelsOf(KernelFamily<SequencePlan>{.ops = {"reverse_sequence"},
                                              .rows = {{"reverse_sequence"}},
                                              .plan = planReverseSequence,
                                              .work = workOfReverseSequence,
                                              .emit = emitReverseSequence});
}

}  // namespace qc
