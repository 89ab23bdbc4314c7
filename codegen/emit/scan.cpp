// Ops that read a row in order, element by element: cumsum, topk, and the reductions whose order or elements leave no room for vectors
// of a row: reduce_prod, and all of them on integers and bools.  The meaning is that of ir/ops/reduce.cpp.
// Tests: tests/kernels/scan_test.cpp.
#include <algorithm>
#include <bit>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "codegen/plan/rows.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;

double scanCost(const Node& node, double perElement) {
  return 50 + perElement * static_cast<double>(node.operand(0)->type().numElements());
}

// Integers that 64-bit lanes hold, and bools.
bool isPlainInteger(const TensorType& t) {
  return !t.isQuantized() && (isInteger(t.dtype) || t.dtype == DType::boolean) && t.dtype != DType::u64;
}

bool isReal(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }

// Elements of a tensor as the numbers that compute: f32 and f64 as they are, integers as i64.
class Numbers {
 public:
  Numbers(KernelEmitter& e, DType dtype) : e_(e), dtype_(dtype), bytes_(sizeOf(dtype)) {}

  int64_t bytes() const { return bytes_; }
  llvm::Type* storage() const {
    if (dtype_ == DType::f32) return e_.f32();
    if (dtype_ == DType::f64) return e_.b.getDoubleTy();
    return e_.b.getIntNTy(static_cast<unsigned>(8 * bytes_));
  }
  Reg widened(Reg v) const {
    if (isReal(dtype_)) return v;
    llvm::Type* wide = e_.b.getInt64Ty();
    if (dtype_ == DType::boolean) return e_.b.CreateZExt(e_.b.CreateICmpNE(v, e_.b.getInt8(0)), wide);
    return isSigned(dtype_) ? e_.b.CreateSExt(v, wide) : e_.b.CreateZExt(v, wide);
  }
  Reg narrowed(Reg v) const {
    if (isReal(dtype_)) return v;
    if (dtype_ == DType::boolean) return e_.b.CreateZExt(e_.b.CreateICmpNE(v, e_.i64(0)), storage());
    return e_.b.CreateTrunc(v, storage());
  }
  Reg place(Reg base, Reg index) const { return e_.at(base, e_.b.CreateMul(index, e_.i64(bytes_))); }

 private:
  KernelEmitter& e_;
  DType dtype_;
  int64_t bytes_;
};

RowSpace axisSpace(const Node& node) { return *RowSpace::around(node.operand(0)->type().sizes(), {node.integer("axis")}); }

// Calls body(index of the row's first element, index of the row's result) for every row.
KernelShape emitEachRow(KernelEmitter& e, const RowSpace& space, const std::function<void(Reg first, Reg row)>& body) {
  e.loop(e.begin(), e.end(), 1, [&](Reg row) {
    Reg first = e.b.CreateMul(row, e.i64(space.length));
    if (!space.along()) {
      Reg outer = e.b.CreateUDiv(row, e.i64(space.inner)), column = e.b.CreateURem(row, e.i64(space.inner));
      first = e.b.CreateAdd(e.b.CreateMul(outer, e.i64(space.length * space.inner)), column);
    }
    body(first, row);
  });
  return {space.outer * space.inner, 0};
}

// ---- cumsum -----------------------------------------------------------------------------------

std::optional<RowSpace> planCumsum(const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  const bool whole = isInteger(x.dtype) && x.dtype != DType::s4 && x.dtype != DType::u4;
  if (x.numElements() == 0 || !(isReal(x.dtype) || whole)) return std::nullopt;
  return axisSpace(node);
}

double costCumsum(const RowSpace&, const Node& node, const Target&) { return scanCost(node, 4); }

// Vectors of neighbouring rows; where rows are dense, single elements.
Result<KernelShape> emitCumsum(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const bool exclusive = node.integer("exclusive") != 0, reverse = node.integer("reverse") != 0;
  const Numbers numbers(e, node.operand(0)->type().dtype);
  const int64_t bytes = numbers.bytes();
  int width = space.along()
                  ? 1
                  : static_cast<int>(std::clamp<int64_t>(std::bit_floor(static_cast<uint64_t>(space.inner)), 1, e.lanes() * 4 / bytes));
  // Several vectors at once, where that leaves no rest: rows may lie a page apart, and a step along them is to use what it fetches.
  constexpr int kMostVectors = 8;
  for (int vectors = 1; !space.along() && vectors < kMostVectors && space.inner % (2 * width) == 0; vectors *= 2) width *= 2;
  llvm::Type* vector = KernelEmitter::vectorOf(numbers.storage(), width);
  const int64_t blocks = (space.inner + width - 1) / width;
  const auto scan = [&](Reg start, int lanes) {
    Reg x = e.at(e.operand(0), start), y = e.at(e.result(), start);
    e.loop(
        e.i64(0), e.i64(space.length), 1, {llvm::Constant::getNullValue(vector)},
        [&](Reg i, Values& sum) {
          Reg at = e.b.CreateMul(reverse ? e.b.CreateSub(e.i64(space.length - 1), i) : i, e.i64(space.inner * bytes));
          Reg v = loadUpTo(e, vector, e.at(x, at), lanes);
          if (exclusive) storeUpTo(e, sum[0], e.at(y, at), lanes);
          sum[0] = vector->isFPOrFPVectorTy() ? e.b.CreateFAdd(sum[0], v) : e.b.CreateAdd(sum[0], v);
          if (!exclusive) storeUpTo(e, sum[0], e.at(y, at), lanes);
        },
        true);
  };
  const auto rest = static_cast<int>(space.inner % width);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg outer = e.b.CreateUDiv(unit, e.i64(blocks)), block = e.b.CreateURem(unit, e.i64(blocks));
    Reg start = e.b.CreateAdd(e.b.CreateMul(outer, e.i64(space.length * space.inner)), e.b.CreateMul(block, e.i64(width)));
    start = e.b.CreateMul(start, e.i64(bytes));
    if (!rest) return scan(start, width);
    e.ifThen(e.b.CreateICmpEQ(block, e.i64(blocks - 1)), [&] { scan(start, rest); }, [&] { scan(start, width); });
  });
  return KernelShape{space.outer * blocks, 0};
}

// ---- topk -------------------------------------------------------------------------------------

// The first k of a row in the order of the op, in the results themselves: a heap whose root comes last of those kept, then sorted.
class TopK {
 public:
  TopK(KernelEmitter& e, const Node& node, const RowSpace& space)
      : e_(e), node_(node), dtype_(node.operand(0)->type().dtype), numbers_(e, dtype_), space_(space), k_(node.integer("k")) {}

  KernelShape emit() {
    return emitEachRow(e_, space_, [&](Reg first, Reg row) {
      Reg to = row;  // the row's first result
      if (space_.along())
        to = e_.b.CreateMul(row, e_.i64(k_));
      else
        to = e_.b.CreateAdd(e_.b.CreateMul(e_.b.CreateUDiv(row, e_.i64(space_.inner)), e_.i64(k_ * space_.inner)),
                            e_.b.CreateURem(row, e_.i64(space_.inner)));
      values_ = numbers_.place(e_.result(0), to);
      indices_ = e_.at(e_.result(1), e_.b.CreateShl(to, 3));
      Reg x = numbers_.place(e_.operand(0), first);
      const auto element = [&](Reg i) {
        return Item{e_.load(numbers_.storage(), numbers_.place(x, e_.b.CreateMul(i, e_.i64(space_.inner)))), i};
      };
      e_.loop(e_.i64(0), e_.i64(k_), 1, [&](Reg i) { put(i, element(i)); }, true);
      // From the last parent back to the root.
      e_.loop(e_.i64(0), e_.i64(k_ / 2), 1, [&](Reg i) { sift(e_.b.CreateSub(e_.i64(k_ / 2 - 1), i), e_.i64(k_)); });
      const auto offer = [&](Reg i) {
        const Item next = element(i);
        e_.ifThen(before(next, get(e_.i64(0))), [&] {
          put(e_.i64(0), next);
          sift(e_.i64(0), e_.i64(k_));
        });
      };
      const int64_t width = canSkip() ? e_.lanes() : 1, blocked = k_ + (space_.length - k_) / width * width;
      if (width > 1)
        e_.loop(e_.i64(k_), e_.i64(blocked), width, [&](Reg i) {
          e_.ifThen(anyMayEnter(e_.at(x, e_.b.CreateShl(i, 2))), [&] { e_.loop(i, e_.b.CreateAdd(i, e_.i64(width)), 1, offer); });
        });
      e_.loop(e_.i64(width > 1 ? blocked : k_), e_.i64(space_.length), 1, offer);
      e_.loop(e_.i64(1), e_.i64(k_), 1, [&](Reg i) {
        Reg last = e_.b.CreateSub(e_.i64(k_), i);
        const Item root = get(e_.i64(0)), leaf = get(last);
        put(last, root);
        put(e_.i64(0), leaf);
        sift(e_.i64(0), last);
      });
    });
  }

 private:
  struct Item {
    Reg value, index;
  };

  Reg step(Reg i, int64_t bytes) { return e_.b.CreateMul(i, e_.i64(space_.inner * bytes)); }
  Item get(Reg i) {
    return {e_.load(numbers_.storage(), e_.at(values_, step(i, numbers_.bytes()))),
            e_.load(e_.b.getInt64Ty(), e_.at(indices_, step(i, 8)))};
  }
  void put(Reg i, const Item& item) {
    e_.store(item.value, e_.at(values_, step(i, numbers_.bytes())));
    e_.store(item.index, e_.at(indices_, step(i, 8)));
  }

  // Most elements of a long row come behind those kept, which one comparison of vectors tells of many.
  bool canSkip() const { return space_.along() && dtype_ == DType::f32; }
  Reg anyMayEnter(Reg place) {
    Reg v = e_.load(e_.f32(e_.lanes()), place), root = e_.splat(get(e_.i64(0)).value, e_.lanes());
    // An equal one has the larger index, and comes behind; a NaN is for the scalar way.
    Reg stays = node_.integer("largest") ? e_.b.CreateFCmpOLE(v, root) : e_.b.CreateFCmpOGE(v, root);
    return e_.b.CreateNot(e_.b.CreateAndReduce(stays));
  }

  // Integers in the order of the values: zeros of both signs are one, a NaN is above all.
  Reg key(Reg v) {
    if (dtype_ != DType::f32) return ordered(numbers_.widened(v));
    Reg bits = e_.b.CreateBitCast(e_.b.CreateFAdd(v, llvm::ConstantFP::get(e_.f32(), 0)), e_.b.getInt32Ty());  // -0 + 0 = 0
    Reg flipped = e_.b.CreateXor(bits, e_.b.CreateLShr(e_.b.CreateAShr(bits, 31), 1));
    Reg isNan = e_.b.CreateFCmpUNO(v, v);
    return ordered(e_.b.CreateSExt(e_.b.CreateSelect(isNan, e_.b.getInt32(INT32_MAX), flipped), e_.b.getInt64Ty()));
  }
  Reg ordered(Reg key) { return node_.integer("largest") ? key : e_.b.CreateNot(key); }

  Reg before(const Item& a, const Item& c) {
    Reg ka = key(a.value), kc = key(c.value);
    Reg tie = e_.b.CreateAnd(e_.b.CreateICmpEQ(ka, kc), e_.b.CreateICmpSLT(a.index, c.index));
    return e_.b.CreateOr(e_.b.CreateICmpSGT(ka, kc), tie);
  }

  // The item at `place` goes down until both below come before it: those that come after it move up, one level each.
  void sift(Reg place, Reg count) {
    const auto levels = static_cast<int64_t>(std::bit_width(static_cast<uint64_t>(k_))) - 1;
    const Item item = get(place);
    const Values end = e_.loop(e_.i64(0), e_.i64(levels), 1, {place}, [&](Reg, Values& at) {
      Reg left = e_.b.CreateAdd(e_.b.CreateShl(at[0], 1), e_.i64(1)), right = e_.b.CreateAdd(left, e_.i64(1));
      Reg there = at[0], isInside = e_.b.CreateICmpSLT(left, count);
      Reg l = e_.b.CreateSelect(isInside, left, there);
      Reg r = e_.b.CreateSelect(e_.b.CreateICmpSLT(right, count), right, l);
      const Item itemL = get(l), itemR = get(r);
      Reg worse = before(itemL, itemR);  // the right one comes last
      const Item child{e_.b.CreateSelect(worse, itemR.value, itemL.value), e_.b.CreateSelect(worse, itemR.index, itemL.index)};
      Reg sinks = e_.b.CreateAnd(isInside, before(item, child));
      e_.ifThen(sinks, [&] { put(there, child); });
      at[0] = e_.b.CreateSelect(sinks, e_.b.CreateSelect(worse, r, l), there);
    });
    put(end[0], item);
  }

  KernelEmitter& e_;
  const Node& node_;
  DType dtype_;
  Numbers numbers_;
  RowSpace space_;
  int64_t k_;
  Reg values_ = nullptr, indices_ = nullptr;
};

std::optional<RowSpace> planTopK(const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  const bool whole = isInteger(x.dtype) && x.dtype != DType::u64;
  if (node.result(0)->type().numElements() == 0 || !(x.dtype == DType::f32 || whole)) return std::nullopt;
  return axisSpace(node);
}

double costTopK(const RowSpace&, const Node& node, const Target&) { return scanCost(node, 12); }

Result<KernelShape> emitTopK(KernelEmitter& e, const Node& node, const RowSpace& space) { return TopK(e, node, space).emit(); }

// ---- reductions -------------------------------------------------------------------------------

std::optional<RowSpace> foldSpace(const Node& node) {
  const std::vector<int64_t> sizes = node.operand(0)->type().sizes();
  return node.attrs().find("axis") ? RowSpace::around(sizes, {node.integer("axis")}) : RowSpace::around(sizes, node.integers("axes"));
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
    if (isProduct) return m->getType()->isFloatingPointTy() ? e.b.CreateFMul(m, x) : e.b.CreateMul(m, x);
    return e.b.CreateAdd(m, x);
  }
};

std::optional<RowSpace> planFold(const Node& node, const Target&) {
  const TensorType& x = node.operand(0)->type();
  const Fold fold(node);
  if (x.numElements() == 0 || x.dtype == DType::s4 || x.dtype == DType::u4) return std::nullopt;
  const bool selects = fold.isMin || fold.isMax;
  const bool types = isPlainInteger(x) ? selects || x.dtype != DType::boolean : fold.isProduct && isReal(x.dtype);
  if (!types) return std::nullopt;
  return foldSpace(node);
}

double costFold(const RowSpace&, const Node& node, const Target&) { return scanCost(node, 4); }

Result<KernelShape> emitFold(KernelEmitter& e, const Node& node, const RowSpace& space) {
  const Fold fold(node);
  const TensorType& type = node.operand(0)->type();
  const Numbers numbers(e, type.dtype);
  const bool last = fold.isArg && node.integer("select_last") != 0;
  return emitEachRow(e, space, [&](Reg first, Reg row) {
    Reg x = numbers.place(e.operand(0), first);
    const auto element = [&](Reg i) {
      return numbers.widened(e.load(numbers.storage(), numbers.place(x, e.b.CreateMul(i, e.i64(space.inner)))));
    };
    const Values folded = e.loop(
        e.i64(0), e.i64(space.length), 1, {fold.start(e, type), e.i64(0)},
        [&](Reg i, Values& m) {
          Reg v = element(i);
          if (fold.isArg) {
            Reg isBetter = fold.better(e, v, m[0]);
            if (last) isBetter = e.b.CreateOr(isBetter, e.b.CreateICmpEQ(v, m[0]));
            m[1] = e.b.CreateSelect(isBetter, i, m[1]);
          }
          m[0] = fold.step(e, m[0], v);
        },
        true);
    if (fold.isArg) return e.store(folded[1], e.at(e.result(), e.b.CreateShl(row, 3)));
    Reg y = folded[0];
    if (fold.isMean) y = e.b.CreateSDiv(y, e.i64(space.length));
    e.store(numbers.narrowed(y), numbers.place(e.result(), row));
  });
}

}  // namespace

std::vector<KernelDef> cumsumKernels() {
  return kernelsOf(
      KernelFamily<RowSpace>{.ops = {"cumsum"}, .rows = {{"cumsum"}}, .plan = planCumsum, .cost = costCumsum, .emit = emitCumsum});
}

std::vector<KernelDef> topkKernels() {
  return kernelsOf(KernelFamily<RowSpace>{.ops = {"topk"}, .rows = {{"topk"}}, .plan = planTopK, .cost = costTopK, .emit = emitTopK});
}

std::vector<KernelDef> foldKernels() {
  return kernelsOf(
      KernelFamily<RowSpace>{.ops = {"reduce_prod", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "argmax", "argmin"},
                             .rows = {{"fold"}},
                             .plan = planFold,
                             .cost = costFold,
                             .emit = emitFold});
}

}  // namespace qc
