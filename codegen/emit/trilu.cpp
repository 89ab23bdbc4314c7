// trilu.  The meaning is that of ir/ops/index.cpp.  Tests: tests/kernels/index_test.cpp.
#include <algorithm>

#include "codegen/emit/index.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

struct TriluPlan {
  int64_t lines, rows, columns, k;  // lines: rows of all matrices
};

std::optional<TriluPlan> planTrilu(const Node& node, const Target&) {
  const Sizes sizes = sizesOf(node, 0);
  if (node.result()->type().numElements() == 0 || sizes.back() >= INT32_MAX / 2) return std::nullopt;
  const int64_t rows = sizes[sizes.size() - 2], columns = sizes.back();
  return TriluPlan{product(sizes) / columns, rows, columns, std::clamp(node.integer("k"), -rows, columns)};
}

Work workOfTrilu(const TriluPlan& plan, const Node& node, const Target&) {
  return {
      {"call", 1}, {"byte", elementsOf(node.result()) * static_cast<double>(bytesOf(node, 0))}, {"row", static_cast<double>(plan.lines)}};
}

Result<KernelShape> emitTrilu(KernelEmitter& e, const Node& node, const TriluPlan& plan) {
  const int64_t rows = plan.rows, columns = plan.columns, bytes = bytesOf(node, 0), k = plan.k;
  const bool upper = node.integer("upper") != 0;
  const auto width = static_cast<int>(e.target().vectorBytes() / std::max<int64_t>(bytes, 4));
  llvm::Type* vector = KernelEmitter::vectorOf(e.b.getIntNTy(static_cast<unsigned>(8 * bytes)), width);
  Reg nothing = llvm::Constant::getNullValue(vector);
  llvm::SmallVector<llvm::Constant*> lane;
  for (int l = 0; l < width; ++l) lane.push_back(e.b.getInt32(static_cast<uint32_t>(l)));
  Reg places = llvm::ConstantVector::get(lane);
  return emitBlocks(e, plan.lines, columns * bytes, [&](Reg row) {
    // Row + k is the first column above, and the last below.
    Reg diagonal = e.b.CreateAdd(e.b.CreateURem(row, e.i64(rows)), e.i64(k));
    diagonal = e.splat(e.b.CreateTrunc(e.maxOf(e.minOf(diagonal, e.i64(columns)), e.i64(-1)), e.b.getInt32Ty()), width);
    Reg start = scaled(e, row, columns * bytes), from = e.at(e.operand(0), start), to = e.at(e.result(), start);
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
  return kernelsOf(
      KernelFamily<TriluPlan>{.ops = {"trilu"}, .rows = {{"trilu"}}, .plan = planTrilu, .work = workOfTrilu, .emit = emitTrilu});
}

}  // namespace qc
