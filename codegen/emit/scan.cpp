// Running sums and products, and the reductions that rows.cpp leaves: reduce_prod, and all of them on integers and bools.  The meaning is
// that of ir/ops/reduce.cpp. Tests: tests/kernels/scan_test.cpp.
#include <algorithm>
#include <bit>

#include "codegen/emit/numbers.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "codegen/plan/rows.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;

Work workOfFold(const RowSpace& space, const Node& node, const Target&) {
  return {{"call", 1},
          {"row", static_cast<double>(space.outer.value * space.inner.value)},
          {"element", static_cast<double>(node.operand(0)->type().numElements())}};
}

// Integers that 64-bit lanes hold, and bools.
bool isPlainInteger(const TensorType& t) {
  return !t.isQuantized() && (isInteger(t.dtype) || t.dtype == DType::boolean) && t.dtype != DType::u64;
}

RowSpace axisSpace(const Node& node, const Target& target) {
  return *RowSpace::around(node.operand(0)->type().shape, {node.integer("axis")}, target);
}

// ---- cumsum, cumprod --------------------------------------------------------------------------

struct RunningPlan {
  RowSpace space;
  int width = 1;  // elements of a vector: of neighbouring rows; where rows are dense, single ones

  int64_t blocks() const { return (space.inner.value + width - 1) / width; }
  void eachNumber(const NumberVisitor& visit) { space.eachNumber(visit); }
  std::string form() const { return "running"; }
  KernelShape shape() const { return {space.outer.value * blocks(), 0}; }
};

std::optional<RunningPlan> planRunning(const Node& node, const Target& target) {
  const TensorType& x = node.operand(0)->type();
  const bool whole = isInteger(x.dtype) && x.dtype != DType::s4 && x.dtype != DType::u4;
  if (x.numElements() == 0 || !(isReal(x.dtype) || whole)) return std::nullopt;
  RunningPlan plan{axisSpace(node, target)};
  const int64_t inner = plan.space.inner.value, most = target.vectorBytes() / sizeOf(x.dtype);
  if (plan.space.along()) return plan;
  plan.width = static_cast<int>(std::clamp<int64_t>(static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(inner))), 1, most));
  // Several vectors at once, where that leaves no rest: rows may lie a page apart, and a step along them is to use what it fetches.
  constexpr int kMostVectors = 8;
  for (int vectors = 1; inner % (2 * plan.width) == 0 && vectors < kMostVectors; vectors *= 2) plan.width *= 2;
  return plan;
}

// Rows lie dense, or side by side, where several are in a vector.
Work workOfRunning(const RunningPlan& plan, const Node& node, const Target&) {
  const RowSpace& space = plan.space;
  const auto rows = static_cast<double>(space.outer.value * space.inner.value),
             elements = static_cast<double>(node.operand(0)->type().numElements());
  return {{"call", 1}, {"row", rows}, {"dense_element", space.along() ? elements : 0}, {"element", space.along() ? 0 : elements}};
}

// Rows side by side are part of the code.
bool hasOneInner(const RunningPlan& plan, const Node&) { return !plan.space.inner.isFree; }

Result<KernelShape> emitRunning(KernelEmitter& e, const Node& node, const RunningPlan& plan) {
  const RowSpace& space = plan.space;
  const bool exclusive = node.integer("exclusive") != 0, reverse = node.integer("reverse") != 0;
  const Numbers numbers(e, node.operand(0)->type().dtype);
  const int64_t bytes = numbers.bytes(), inner = space.inner.value, blocks = plan.blocks();
  const int width = plan.width;
  llvm::Type* vector = KernelEmitter::vectorOf(numbers.storage(), width);
  const bool real = vector->isFPOrFPVectorTy(), isProduct = node.is("cumprod");
  llvm::Constant* one = real ? llvm::ConstantFP::get(vector, 1) : llvm::ConstantInt::get(vector, 1);
  Reg length = e.number(space.length);
  const auto step = [&](Reg before, Reg x) {
    if (isProduct) return real ? e.b.CreateFMul(before, x) : e.b.CreateMul(before, x);
    return real ? e.b.CreateFAdd(before, x) : e.b.CreateAdd(before, x);
  };
  const auto scan = [&](Reg start, int lanes) {
    Reg x = e.at(e.operand(0), start), y = e.at(e.result(), start);
    e.loop(
        e.i64(0), length, 1, {isProduct ? one : llvm::Constant::getNullValue(vector)},
        [&](Reg i, Values& total) {
          Reg place = reverse ? e.b.CreateSub(e.b.CreateSub(length, e.i64(1)), i) : i;
          Reg at = e.b.CreateMul(place, e.i64(inner * bytes));
          Reg v = loadUpTo(e, vector, e.at(x, at), lanes);
          if (exclusive) storeUpTo(e, total[0], e.at(y, at), lanes);
          total[0] = step(total[0], v);
          if (!exclusive) storeUpTo(e, total[0], e.at(y, at), lanes);
        },
        true);
  };
  const auto rest = static_cast<int>(inner % width);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg outer = e.b.CreateUDiv(unit, e.i64(blocks)), block = e.b.CreateURem(unit, e.i64(blocks));
    Reg start = e.b.CreateMul(outer, e.b.CreateMul(length, e.i64(inner)));
    start = e.b.CreateMul(e.b.CreateAdd(start, e.b.CreateMul(block, e.i64(width))), e.i64(bytes));
    if (!rest) return scan(start, width);
    e.ifThen(e.b.CreateICmpEQ(block, e.i64(blocks - 1)), [&] { scan(start, rest); }, [&] { scan(start, width); });
  });
  return plan.shape();
}

// ---- reductions -------------------------------------------------------------------------------

std::optional<RowSpace> foldSpace(const Node& node, const Target& target) {
  const bool one = node.attrs().find("axis");
  return RowSpace::around(node.operand(0)->type().shape, one ? std::vector{node.integer("axis")} : node.integers("axes"), target);
}

// What an empty reduction gives, and each step.
struct Fold {
  bool isMin = false, isMax = false, isProduct = false, isMean = false, isArg = false;
  explicit Fold(const Node& node)
      : isMin(node.is("reduce_min") || node.is("argmin")),
        isMax(node.is("reduce_max") || node.is("argmax")),
        isProduct(node.is("reduce_prod")),
        isMean(node.is("reduce_mean")),
        isArg(node.is("argmin") || node.is("argmax")) {}

  Reg start(KernelEmitter& e, const TensorType& type) const {
    if (type.dtype == DType::f32) return llvm::ConstantFP::get(e.f32(), 1);
    if (type.dtype == DType::f64) return llvm::ConstantFP::get(e.b.getDoubleTy(), 1);
    if (isProduct) return e.i64(1);
    return e.i64(isMin ? INT64_MAX : isMax ? INT64_MIN : 0);
  }
  Reg better(KernelEmitter& e, Reg x, Reg m) const { return isMin ? e.b.CreateICmpSLT(x, m) : e.b.CreateICmpSGT(x, m); }
  Reg step(KernelEmitter& e, Reg m, Reg x) const {
    if (isMin || isMax) return e.b.CreateSelect(better(e, x, m), x, m);
    if (isProduct) return m->getType()->isFPOrFPVectorTy() ? e.b.CreateFMul(m, x) : e.b.CreateMul(m, x);
    return e.b.CreateAdd(m, x);
  }
};

std::optional<RowSpace> planFold(const Node& node, const Target& target) {
  const TensorType& x = node.operand(0)->type();
  const Fold fold(node);
  if (x.numElements() == 0 || x.dtype == DType::s4 || x.dtype == DType::u4) return std::nullopt;
  const bool selects = fold.isMin || fold.isMax;
  const bool types = isPlainInteger(x) ? selects || x.dtype != DType::boolean : fold.isProduct && isReal(x.dtype);
  if (!types) return std::nullopt;
  return foldSpace(node, target);
}

// A product of reals along a row has one order, and no room for vectors.
KernelShape emitRealProduct(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const Fold fold(node);
  const TensorType& type = node.operand(0)->type();
  const Numbers numbers(e, type.dtype);
  e.loop(e.begin(), e.end(), 1, [&](Reg row) {
    Reg length = e.number(space.length), x = numbers.place(e.operand(0), e.b.CreateMul(row, length));
    const Values product = e.loop(
        e.i64(0), length, 1, {fold.start(e, type)},
        [&](Reg i, Values& m) { m[0] = fold.step(e, m[0], e.load(numbers.storage(), numbers.place(x, i))); }, true);
    e.store(product[0], numbers.place(e.result(), row));
  });
  return space.shape();
}

// Every lane keeps the extreme of what it saw and where; then the first of those places, or the last, that holds the row's.
Reg foundPlace(const Rows& rows, const Fold& fold, bool last, Reg start, const std::function<Reg(Reg, LaneCount)>& element) {
  KernelEmitter& e = rows.emitter();
  const int width = rows.width();
  llvm::SmallVector<llvm::Constant*> lane;
  for (int l = 0; l < width; ++l) lane.push_back(e.b.getInt64(static_cast<uint64_t>(rows.space().along() ? l : 0)));
  Reg lanesFrom = llvm::ConstantVector::get(lane), never = llvm::Constant::getNullValue(e.vectorOf(e.b.getInt1Ty(), width));
  const Values best = rows.fold({start, e.ints(0, e.i64s(width))}, [&](Reg i, LaneCount lanes, Values& m) {
    Reg v = element(i, lanes), isBetter = fold.better(e, v, m[0]);
    if (last) isBetter = e.b.CreateOr(isBetter, e.b.CreateICmpEQ(v, m[0]));
    isBetter = rows.masked(isBetter, lanes, never);
    m[0] = e.b.CreateSelect(isBetter, v, m[0]);
    m[1] = e.b.CreateSelect(isBetter, e.b.CreateAdd(e.splat(i, width), lanesFrom), m[1]);
  });
  Reg extreme = rows.combined(best[0], [&](Reg a, Reg b) { return fold.step(e, a, b); });
  Reg place = e.b.CreateSelect(e.b.CreateICmpEQ(best[0], extreme), best[1], e.ints(last ? 0 : INT64_MAX, e.i64s(width)));
  return rows.combined(place,
                       [&](Reg a, Reg b) { return e.b.CreateBinaryIntrinsic(last ? llvm::Intrinsic::smax : llvm::Intrinsic::smin, a, b); });
}

Result<KernelShape> emitFold(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const Fold fold(node);
  const TensorType& type = node.operand(0)->type();
  if (space.along() && isReal(type.dtype)) return emitRealProduct(e, node, space);
  const Numbers numbers(e, type.dtype);
  const bool last = fold.isArg && node.integer("select_last") != 0;
  return emitRows(e, space, [&](Rows& rows) {
    Reg x = rows.at(e.operand(0), numbers.bytes()), start = e.splat(fold.start(e, type), rows.width());
    const auto element = [&](Reg i, LaneCount lanes) {
      Reg from = e.at(x, e.b.CreateMul(i, e.b.CreateMul(rows.inner(), e.i64(numbers.bytes()))));
      return numbers.widened(loadUpTo(e, KernelEmitter::vectorOf(numbers.storage(), rows.width()), from, lanes));
    };
    if (fold.isArg) return storeReduced(rows, foundPlace(rows, fold, last, start, element));
    const auto step = [&](Reg a, Reg b) { return fold.step(e, a, b); };
    const Values folded =
        rows.fold({start}, [&](Reg i, LaneCount lanes, Values& m) { m[0] = step(m[0], rows.masked(element(i, lanes), lanes, start)); });
    Reg y = rows.combined(folded[0], step);
    if (fold.isMean) y = e.b.CreateSDiv(y, e.splat(rows.length(), rows.width()));
    storeReduced(rows, numbers.narrowed(y));
  });
}

}  // namespace

std::vector<KernelDef> cumsumKernels() {
  return kernelsOf(KernelFamily<RunningPlan>{.ops = {"cumsum", "cumprod"},
                                             .rows = {{"cumsum"}},
                                             .plan = planRunning,
                                             .work = workOfRunning,
                                             .onlyNumbers = hasOneInner,
                                             .emit = emitRunning});
}

std::vector<KernelDef> foldKernels() {
  return kernelsOf(
      KernelFamily<RowSpace>{.ops = {"reduce_prod", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "argmax", "argmin"},
                             .rows = {{"fold"}},
                             .plan = planFold,
                             .work = workOfFold,
                             .onlyNumbers = always,
                             .emit = emitFold});
}

}  // namespace qc
