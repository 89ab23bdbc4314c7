// trilu.  The meaning is that of ir/ops/index.cpp.  Tests: tests/kernels/index_test.cpp.
#include <algorithm>

#include "codegen/emit/index.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

struct TriluPlan {
  Number lines, rows, columns;  // lines: rows of all matrices
  int64_t k, bytes;             // bytes: of an element

  // Of any number of columns a unit is some lines all the same.
  int64_t lineBytes() const { return (columns.isFree ? 256 : columns.value) * bytes; }
  void eachNumber(const NumberVisitor& visit) { visit(lines), visit(rows), visit(columns); }
  std::string form() const { return fmt::format("diagonal {}", k); }
  KernelShape shape() const { return shapeOfBlocks(lines, lineBytes()); }
};

std::optional<TriluPlan> planTrilu(const Node& node, const Target&) {
  constexpr int64_t kMost = INT32_MAX / 2;  // of columns, which are counted in 32 bits
  const Shape& shape = node.operand(0)->type().shape;
  if (node.result()->type().numElements() == 0 || shape.back().size() >= kMost) return std::nullopt;
  const Number lines = product(std::span(shape).first(shape.size() - 1));
  return TriluPlan{lines, Number(shape[shape.size() - 2]), Number(shape.back()), std::clamp(node.integer("k"), -kMost, kMost),
                   bytesOf(node, 0)};
}

Work workOfTrilu(const TriluPlan& plan, const Node& node, const Target&) {
  return {{"call", 1},
          {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 0))},
          {"row", static_cast<double>(plan.lines.value)}};
}

Result<KernelShape> emitTrilu(KernelEmitter& e, const Node& node, const TriluPlan& plan) {
  const int64_t bytes = plan.bytes;
  Reg columns = e.number(plan.columns);
  const bool upper = node.integer("upper") != 0;
  const auto width = static_cast<int>(e.target().vectorBytes() / std::max<int64_t>(bytes, 4));
  llvm::Type* vector = KernelEmitter::vectorOf(e.b.getIntNTy(static_cast<unsigned>(8 * bytes)), width);
  Reg nothing = llvm::Constant::getNullValue(vector);
  llvm::SmallVector<llvm::Constant*> lane;
  for (int l = 0; l < width; ++l) lane.push_back(e.b.getInt32(static_cast<uint32_t>(l)));
  Reg places = llvm::ConstantVector::get(lane);
  return emitBlocks(e, plan.lines, plan.lineBytes(), [&](Reg row) {
    // Row + k is the first column above, and the last below.
    Reg diagonal = e.b.CreateAdd(e.b.CreateURem(row, e.number(plan.rows)), e.i64(plan.k));
    diagonal = e.splat(e.b.CreateTrunc(e.maxOf(e.minOf(diagonal, columns), e.i64(-1)), e.b.getInt32Ty()), width);
    Reg start = scaled(e, e.b.CreateMul(row, columns), bytes), from = e.at(e.operand(0), start), to = e.at(e.result(), start);
    vectorLoop(e, columns, width, [&](Reg i, LaneCount lanes) {
      Reg column = e.b.CreateAdd(e.splat(e.b.CreateTrunc(i, e.b.getInt32Ty()), width), places);
      Reg isKept = upper ? e.b.CreateICmpSGE(column, diagonal) : e.b.CreateICmpSLE(column, diagonal);
      Reg x = loadUpTo(e, vector, e.at(from, scaled(e, i, bytes)), lanes);
      storeUpTo(e, e.b.CreateSelect(isKept, x, nothing), e.at(to, scaled(e, i, bytes)), lanes);
    });
  });
}

}  // namespace

std::vector<KernelDef> triluKernels() {
  return kernelsOf(KernelFamily<TriluPlan>{
      .ops = {"trilu"}, .rows = {{"trilu"}}, .plan = planTrilu, .work = workOfTrilu, .onlyNumbers = always, .emit = emitTrilu});
}

}  // namespace qc
