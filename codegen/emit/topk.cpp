// topk: the first k of every row in the order of the op, in one of three ways, each a row of the table.
//   heap   for few of many: a heap in the results themselves whose root comes last of those kept, then sorted
//   ranks  for short rows: an element's place is how many come before it, counted by vectors of keys
//   radix  for many of long rows: all indices sorted by their 32-bit keys, a byte of those at a time
// The meaning is that of ir/ops/reduce.cpp.  Tests: tests/kernels/scan_test.cpp.
#include <algorithm>
#include <bit>
#include <cmath>

#include "codegen/emit/numbers.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "codegen/plan/rows.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;

enum class Way : uint8_t { heap, ranks, radix };

// Whether keys of the type fill 32 bits at most, as signed numbers.
bool hasShortKeys(DType t) { return t == DType::f32 || (sizeOf(t) <= 4 && t != DType::u32); }

int keyBytesOf(DType t) { return hasShortKeys(t) ? 4 : 8; }

constexpr int64_t kDigits = 4, kBuckets = 256;  // of the radix

struct TopKPlan {
  Way way;
  RowSpace space;
  int64_t k;
  // Of ranks: keys, and vectors of them.
  int keyBytes = 4, keyLanes = 1;
  Number keyBlocks = 1;

  void eachNumber(const NumberVisitor& visit) { space.eachNumber(visit), visit(keyBlocks); }
  std::string form() const { return fmt::format("the first {}", k); }
  KernelShape shape() const {
    const int64_t keys = keyBlocks.value * keyLanes * keyBytes, items = 2 * space.length.value * 8 + kDigits * kBuckets * 8;
    return {space.outer.value * space.inner.value, way == Way::ranks ? keys : way == Way::radix ? items : 0};
  }
};

class TopK {
 public:
  TopK(KernelEmitter& e, const Node& node, const TopKPlan& plan)
      : e_(e),
        dtype_(node.operand(0)->type().dtype),
        largest_(node.integer("largest") != 0),
        numbers_(e, dtype_),
        space_(plan.space),
        k_(plan.k),
        plan_(plan) {}

  KernelShape emit() {
    const Way way = plan_.way;
    if (way == Way::ranks) padKeys();
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg row) {
      Reg first = e_.b.CreateMul(row, length()), to = e_.b.CreateMul(row, e_.i64(k_));  // elements of x and of the results
      if (!space_.along()) {
        Reg outer = e_.b.CreateUDiv(row, inner()), column = e_.b.CreateURem(row, inner());
        first = e_.b.CreateAdd(e_.b.CreateMul(outer, e_.b.CreateMul(length(), inner())), column);
        to = e_.b.CreateAdd(e_.b.CreateMul(outer, e_.b.CreateMul(inner(), e_.i64(k_))), column);
      }
      values_ = numbers_.place(e_.result(0), to);
      indices_ = e_.at(e_.result(1), e_.b.CreateShl(to, 3));
      x_ = numbers_.place(e_.operand(0), first);
      way == Way::heap ? heap() : way == Way::ranks ? ranks() : radix();
    });
    return plan_.shape();
  }

 private:
  struct Item {
    Reg value, index;
  };

  Reg length() { return e_.number(space_.length); }
  Reg inner() { return e_.number(space_.inner); }

  // --- the heap ---

  void heap() {
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
    const int64_t width = canSkip() ? e_.lanes() : 1;
    Reg blocks = e_.b.CreateUDiv(e_.b.CreateSub(length(), e_.i64(k_)), e_.i64(width));
    Reg blocked = e_.b.CreateAdd(e_.b.CreateMul(blocks, e_.i64(width)), e_.i64(k_));
    if (width > 1)
      e_.loop(e_.i64(k_), blocked, width, [&](Reg i) {
        e_.ifThen(anyMayEnter(e_.at(x_, e_.b.CreateShl(i, 2))), [&] { e_.loop(i, e_.b.CreateAdd(i, e_.i64(width)), 1, offer); });
      });
    e_.loop(width > 1 ? blocked : e_.i64(k_), length(), 1, offer);
    e_.loop(e_.i64(1), e_.i64(k_), 1, [&](Reg i) {
      Reg last = e_.b.CreateSub(e_.i64(k_), i);
      const Item root = get(e_.i64(0)), leaf = get(last);
      put(last, root);
      put(e_.i64(0), leaf);
      sift(e_.i64(0), last);
    });
  }

  Reg step(Reg i, int64_t bytes) { return e_.b.CreateMul(i, e_.b.CreateMul(inner(), e_.i64(bytes))); }
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
    Reg stays = largest_ ? e_.b.CreateFCmpOLE(v, root) : e_.b.CreateFCmpOGE(v, root);
    return e_.b.CreateNot(e_.b.CreateAndReduce(stays));
  }

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

  // --- ranks ---

  int keyLanes() const { return plan_.keyLanes; }
  int keyBytes() const { return plan_.keyBytes; }
  llvm::Type* keyType() const { return e_.b.getIntNTy(static_cast<unsigned>(8 * keyBytes())); }
  Reg keyBlocks() { return e_.number(plan_.keyBlocks); }
  Reg keyAt(Reg i) { return e_.at(e_.scratch(), e_.b.CreateMul(i, e_.i64(keyBytes()))); }

  // Behind the row: keys that come before none.
  void padKeys() {
    Reg lowest = llvm::ConstantInt::getSigned(keyType(), keyBytes() == 4 ? INT32_MIN : INT64_MIN);
    e_.loop(length(), e_.b.CreateMul(keyBlocks(), e_.i64(keyLanes())), 1, [&](Reg i) { e_.store(lowest, keyAt(i)); });
  }

  void ranks() {
    const auto each = [&](const std::function<void(Reg)>& body) { e_.loop(e_.i64(0), length(), 1, body, true); };
    each([&](Reg i) { e_.store(key(element(i).value), keyAt(i)); });
    const int lanes = keyLanes();
    llvm::Type* keys = KernelEmitter::vectorOf(keyType(), lanes);
    llvm::SmallVector<llvm::Constant*> lane;
    for (int l = 0; l < lanes; ++l) lane.push_back(llvm::ConstantInt::get(keyType(), static_cast<uint64_t>(l)));
    Reg lanesFrom = llvm::ConstantVector::get(lane);
    const auto splat = [&](Reg index) { return e_.splat(e_.b.CreateTrunc(index, keyType()), lanes); };
    each([&](Reg i) {
      Reg own = e_.splat(e_.load(keyType(), keyAt(i)), lanes), place = e_.b.CreateSub(splat(i), lanesFrom);
      const Values count = e_.loop(
          e_.i64(0), keyBlocks(), 1, {llvm::Constant::getNullValue(keys)},
          [&](Reg block, Values& sum) {
            Reg first = e_.b.CreateMul(block, e_.i64(lanes)), other = e_.load(keys, keyAt(first));
            Reg isEarlier = e_.b.CreateICmpSLT(splat(first), place);
            Reg comesBefore = e_.b.CreateOr(e_.b.CreateICmpSGT(other, own), e_.b.CreateAnd(e_.b.CreateICmpEQ(other, own), isEarlier));
            sum[0] = e_.b.CreateSub(sum[0], e_.b.CreateSExt(comesBefore, keys));
          },
          true);
      Reg rank = e_.b.CreateZExt(e_.b.CreateAddReduce(count[0]), e_.b.getInt64Ty());
      e_.ifThen(e_.b.CreateICmpSLT(rank, e_.i64(k_)), [&] { put(rank, element(i)); });
    });
  }

  // --- radix ---

  // An item is the key in its lower half, unsigned and ascending in the order of the op, and the index above.  A pass keeps the order of
  // what has equal digits, so equal keys stay in the order of their indices.
  void radix() {
    llvm::IRBuilder<>& b = e_.b;
    Reg bytes = b.CreateShl(length(), 3);
    Reg items = e_.scratch(), others = e_.at(items, bytes), counts = e_.at(others, bytes);
    const auto digitOf = [&](Reg item, int64_t digit) { return b.CreateAnd(b.CreateLShr(item, e_.i64(8 * digit)), e_.i64(kBuckets - 1)); };
    const auto countAt = [&](Reg bucket, int64_t digit) {
      return e_.at(counts, b.CreateShl(b.CreateAdd(bucket, e_.i64(digit * kBuckets)), 3));
    };
    const auto itemAt = [&](Reg base, Reg i) { return e_.at(base, b.CreateShl(i, 3)); };
    const auto counted = [&](Reg place) {  // the count as it was, one more from now on
      Reg count = e_.load(b.getInt64Ty(), place);
      e_.store(b.CreateAdd(count, e_.i64(1)), place);
      return count;
    };
    const auto each = [&](const std::function<void(Reg)>& body) { e_.loop(e_.i64(0), length(), 1, body, true); };
    e_.fillBytes(counts, b.getInt8(0), e_.i64(kDigits * kBuckets * 8));
    each([&](Reg i) {
      Reg descending = b.CreateXor(key(element(i).value), e_.i32c(INT32_MAX));
      Reg item = b.CreateOr(b.CreateZExt(descending, b.getInt64Ty()), b.CreateShl(i, 32));
      e_.store(item, itemAt(items, i));
      for (int64_t d = 0; d < kDigits; ++d) counted(countAt(digitOf(item, d), d));
    });
    for (int64_t d = 0; d < kDigits; ++d) {
      e_.loop(
          e_.i64(0), e_.i64(kBuckets), 1, {e_.i64(0)},
          [&](Reg bucket, Values& before) {
            Reg place = countAt(bucket, d), count = e_.load(b.getInt64Ty(), place);
            e_.store(before[0], place);
            before[0] = b.CreateAdd(before[0], count);
          },
          true);
      each([&](Reg i) {
        Reg item = e_.load(b.getInt64Ty(), itemAt(items, i));
        e_.store(item, itemAt(others, counted(countAt(digitOf(item, d), d))));
      });
      std::swap(items, others);
    }
    e_.loop(e_.i64(0), e_.i64(k_), 1, [&](Reg i) { put(i, element(b.CreateLShr(e_.load(b.getInt64Ty(), itemAt(items, i)), 32))); }, true);
  }

  // --- elements ---

  Item element(Reg i) { return {e_.load(numbers_.storage(), numbers_.place(x_, e_.b.CreateMul(i, inner()))), i}; }

  // Integers, larger ones first: zeros of both signs are one, a NaN is above all.  32 bits where they suffice.
  Reg key(Reg v) {
    Reg key = nullptr;
    if (dtype_ == DType::f32) {
      Reg bits = e_.b.CreateBitCast(e_.b.CreateFAdd(v, llvm::ConstantFP::get(e_.f32(), 0)), e_.b.getInt32Ty());  // -0 + 0 = 0
      Reg flipped = e_.b.CreateXor(bits, e_.b.CreateLShr(e_.b.CreateAShr(bits, 31), 1));
      key = e_.b.CreateSelect(e_.b.CreateFCmpUNO(v, v), e_.b.getInt32(INT32_MAX), flipped);
    } else {
      key = e_.b.CreateTrunc(numbers_.widened(v), keyType());
    }
    return largest_ ? key : e_.b.CreateNot(key);
  }

  KernelEmitter& e_;
  DType dtype_;
  bool largest_;
  Numbers numbers_;
  RowSpace space_;
  int64_t k_;
  const TopKPlan& plan_;
  Reg x_ = nullptr, values_ = nullptr, indices_ = nullptr;  // of the row
};

std::optional<TopKPlan> plan(const KernelRow<Way>& row, const Node& node, const Target& target) {
  constexpr int64_t kMaxRanked = 512, kMaxSorted = 1 << 17;  // keys in the first cache; scratch of a thread: 2 MB
  const TensorType& x = node.operand(0)->type();
  const bool whole = isInteger(x.dtype) && x.dtype != DType::u64;
  if (node.result(0)->type().numElements() == 0 || !(x.dtype == DType::f32 || whole)) return std::nullopt;
  const RowSpace space = *RowSpace::around(x.shape, {node.integer("axis")}, target);
  const int64_t length = space.length.value;
  if (row.traits == Way::ranks && length > kMaxRanked) return std::nullopt;
  if (row.traits == Way::radix && (length > kMaxSorted || !hasShortKeys(x.dtype))) return std::nullopt;
  TopKPlan plan{row.traits, space, node.integers("k").front(), keyBytesOf(x.dtype)};
  plan.keyLanes = target.vectorBytes() / plan.keyBytes;
  plan.keyBlocks = Number((length + plan.keyLanes - 1) / plan.keyLanes);
  plan.keyBlocks.isFree = space.length.isFree;
  return plan;
}

Work work(const TopKPlan& plan, const Node& node, const Target& target) {
  const auto n = static_cast<double>(plan.space.length.value), elements = static_cast<double>(node.operand(0)->type().numElements()),
             kept = static_cast<double>(plan.k), rows = elements / n;
  Work work = {{"call", 1}, {"row", rows}, {"element", elements}};
  if (plan.way == Way::ranks)
    work.push_back(
        {"comparison", elements * vectorCount(plan.space.length.value, target.vectorBytes() / keyBytesOf(node.operand(0)->type().dtype))});
  // An element that enters, of a row in random order, and one that is sorted in the end go down all levels, one after the other.
  if (plan.way == Way::heap) work.push_back({"level", rows * (kept * (1 + std::log(n / kept)) + kept) * (std::log2(kept) + 1)});
  return work;
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const TopKPlan& plan) { return TopK(e, node, plan).emit(); }

}  // namespace

std::vector<KernelDef> topkKernels() {
  return kernelsOf(
      KernelFamily<TopKPlan, Way>{.ops = {"topk"},
                                  .rows = {{"topk_heap", 0, Way::heap}, {"topk_ranks", 0, Way::ranks}, {"topk_radix", 0, Way::radix}},
                                  .plan = plan,
                                  .work = work,
                                  .onlyNumbers = always,
                                  .emit = emit});
}

}  // namespace qc
