// dynamic_qparams: scale and zero point for a tensor or for each of its rows.  The operations and their order are those of dynamicParams
// (ir/ops/dynamic.h).  Tests: tests/kernels/dynamic_test.cpp.
#include "codegen/emit/dynamic.h"

#include <limits>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
KernelEmitter::Values noExtremes(const Rows& rows) {
  Reg zero = rows.emitter().floats(0, rows.width());
  return {zero, zero};
}

// Zeros keep the sign of the one they start from: a value replaces another only where it is smaller, or larger.
KernelEmitter::Values takeExtremes(const Rows& rows, Reg x, KernelEmitter::Values extremes) {
  KernelEmitter& e = rows.emitter();
  Reg zero = e.floats(0, rows.width()), infinity = e.floats(std::numeric_limits<float>::infinity(), rows.width());
  return rows.fold(std::move(extremes), [&](Reg i, LaneCount lanes, KernelEmitter::Values& carried) {
    Reg v = rows.load(x, i, lanes);  // lanes not in use are zero
    Reg finite = e.b.CreateFCmpOLT(e.b.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, v), infinity);
    v = e.b.CreateSelect(finite, v, zero);
    carried[0] = e.min(v, carried[0]);
    carried[1] = e.max(v, carried[1]);
  });
}

DynamicParamRegs paramsFromExtremes(const Rows& rows, const KernelEmitter::Values& extremes, const DynamicRange& range) {
  KernelEmitter& e = rows.emitter();
  const int width = rows.width();
  const auto steps = static_cast<float>(range.qmax - range.qmin);
  Reg low = rows.combined(extremes[0], [&](Reg a, Reg b) { return e.min(a, b); });
  Reg high = rows.combined(extremes[1], [&](Reg a, Reg b) { return e.max(a, b); });
  const auto larger = [&](Reg a, float b) { return e.b.CreateSelect(e.b.CreateFCmpOLT(a, e.floats(b, width)), e.floats(b, width), a); };
  Reg reach = nullptr;
  if (range.symmetric) {
    Reg below = e.b.CreateFNeg(low);
    reach = e.b.CreateFDiv(e.b.CreateSelect(e.b.CreateFCmpOLT(below, high), high, below), e.floats(steps / 2, width));
  } else {
    reach = e.b.CreateFDiv(e.b.CreateFSub(high, low), e.floats(steps, width));
  }
  Reg scale = larger(reach, range.eps);
  Reg largest = e.floats(std::numeric_limits<float>::max(), width), zero = e.floats(0, width);
  scale = e.b.CreateSelect(e.b.CreateFCmpOGT(scale, largest), largest, scale);
  scale = e.b.CreateSelect(e.b.CreateFCmpOEQ(scale, zero), e.floats(1, width), scale);
  Reg zeroPoint = e.ints(range.qmin < 0 ? 0 : (range.qmin + range.qmax + 1) / 2, e.i32(width));
  if (!range.symmetric) {
    Reg qmin = e.i32c(range.qmin);
    const auto bounds = e.bounds(qmin, qmin, e.i32c(range.qmax));
    zeroPoint = e.roundClamp(e.b.CreateFNeg(e.roundEven(e.b.CreateFDiv(low, scale))), bounds);
  }
  return {scale, zeroPoint};
}

namespace {

// Rows that have parameters of their own.
std::optional<RowSpace> plan(const Node& node, const Target& target) {
  const TensorType &x = node.operand(0)->type(), &y = node.result(0)->type();
  if (!isPlainFloat(x) || !x.isStatic() || x.numElements() == 0) return std::nullopt;
  const auto lengthOf = [](const std::vector<int64_t>& all, const std::vector<int64_t>& sets) {
    return numElements(all) / numElements(sets);
  };
  const Number sets(numElements(y.sizes()), numElements(sizesElsewhere(y.shape)));
  const Number length(lengthOf(x.sizes(), y.sizes()), lengthOf(sizesElsewhere(x.shape), sizesElsewhere(y.shape)));
  return RowSpace{sets, length, 1, target.vectorBytes() / 4};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const RowSpace& sets) {
  const DynamicRange range = dynamicRangeOf(node.attrs());
  return emitRows(e, sets, [&](Rows& rows) {
    const auto extremes = takeExtremes(rows, rows.at(e.operand(0), 4), noExtremes(rows));
    const auto [scale, zeroPoint] = paramsFromExtremes(rows, extremes, range);
    e.store(e.b.CreateExtractElement(scale, uint64_t{0}), rows.reducedAt(e.result(0), 4));
    e.store(e.b.CreateExtractElement(zeroPoint, uint64_t{0}), rows.reducedAt(e.result(1), 4));
  });
}

}  // namespace

std::vector<KernelDef> dynamicParamsKernels() {
  return kernelsOf(KernelFamily<RowSpace>{
      .ops = {"dynamic_qparams"}, .rows = {{"dynamic_qparams"}}, .plan = plan, .work = workOnRows, .onlyNumbers = always, .emit = emit});
}

}  // namespace qc
