// Ops on the bits of integers, in lanes of their own type.  The meaning is that of ir/ops/bits.cpp.  Tests: tests/kernels/plain_test.cpp.
#include <algorithm>
#include <utility>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/iteration_space.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

struct BitsPlan {
  IterationSpace space;
  void eachNumber(const NumberVisitor& visit) { space.eachNumber(visit); }
  std::string form() const { return space.form(); }
  KernelShape shape() const { return space.shape(); }
};

// By the width of the type and more, nothing is left.
Reg shiftedBits(KernelEmitter& e, const Node& node, Reg x, Reg by) {
  Reg none = llvm::Constant::getNullValue(x->getType());
  Reg isAll = e.b.CreateICmpUGE(by, e.ints(x->getType()->getScalarSizeInBits(), x->getType()));
  by = e.b.CreateSelect(isAll, none, by);
  return e.b.CreateSelect(isAll, none, node.string("direction") == "LEFT" ? e.b.CreateShl(x, by) : e.b.CreateLShr(x, by));
}

struct BitsOp {
  std::string_view op;
  Reg (*code)(KernelEmitter&, const Node&, Reg a, Reg b);  // b: of the second operand, if there is one
};
constexpr BitsOp kBitsOps[] = {
    {"bitwise_and", [](KernelEmitter& e, const Node&, Reg a, Reg b) { return e.b.CreateAnd(a, b); }},
    {"bitwise_or", [](KernelEmitter& e, const Node&, Reg a, Reg b) { return e.b.CreateOr(a, b); }},
    {"bitwise_xor", [](KernelEmitter& e, const Node&, Reg a, Reg b) { return e.b.CreateXor(a, b); }},
    {"bitwise_not", [](KernelEmitter& e, const Node&, Reg a, Reg) { return e.b.CreateNot(a); }},
    {"bit_shift", shiftedBits},
};

int64_t lanesOfBits(const Node& node, int64_t vectorBytes) { return vectorBytes / sizeOf(node.result()->type().dtype); }

std::optional<BitsPlan> planBits(const Node& node, const Target&) {
  const TensorType& y = node.result()->type();
  if (y.numElements() == 0 || y.isQuantized() || y.dtype == DType::s4 || y.dtype == DType::u4) return std::nullopt;
  return BitsPlan{iterationSpace(node, node.numOperands())};
}

Work workOfBits(const BitsPlan&, const Node& node, const Target& target) {
  const double vectors = vectorCount(node.result()->type().numElements(), lanesOfBits(node, target.vectorBytes()));
  return {{"call", 1}, {"vector", vectors}, {"operand", vectors * node.numOperands()}};
}

Result<KernelShape> emitBits(KernelEmitter& e, const Node& node, const BitsPlan& plan) {
  const auto* row = std::find_if(std::begin(kBitsOps), std::end(kBitsOps), [&](const BitsOp& row) { return node.is(row.op); });
  const int64_t bytes = sizeOf(node.result()->type().dtype);
  const int width = static_cast<int>(lanesOfBits(node, e.target().vectorBytes()));
  llvm::Type *element = e.b.getIntNTy(static_cast<unsigned>(8 * bytes)), *vector = KernelEmitter::vectorOf(element, width);
  const auto place = [&](Reg base, Reg elements) { return e.at(base, e.b.CreateMul(elements, e.i64(bytes))); };
  return emitUnits(e, plan.space, [&](const std::vector<Reg>& offsets, Reg count) {
    std::vector<Reg> sources;
    for (int i = 0; i < node.numOperands(); ++i) sources.push_back(place(e.operand(i), nth(offsets, i)));
    Reg to = place(e.result(), offsets.back());
    vectorLoop(e, count, width, [&](Reg index, LaneCount lanes) {
      const auto bits = [&](size_t i) {
        const bool isDense = plan.space.strides[i].back().value != 0;
        return isDense ? loadUpTo(e, vector, place(sources[i], index), lanes) : e.splat(e.load(element, sources[i]), width);
      };
      Reg a = bits(0);
      storeUpTo(e, row->code(e, node, a, sources.size() > 1 ? bits(1) : nullptr), place(to, index), lanes);
    });
  });
}

}  // namespace

std::vector<KernelDef> bitsKernels() {
  std::vector<std::string_view> ops;
  for (const BitsOp& row : kBitsOps) ops.push_back(row.op);
  return kernelsOf(KernelFamily<BitsPlan>{
      .ops = std::move(ops), .rows = {{"bits"}}, .plan = planBits, .work = workOfBits, .onlyNumbers = always<BitsPlan>, .emit = emitBits});
}

}  // namespace qc
