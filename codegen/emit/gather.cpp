// Rows by index: gather, and q.embedding, whose rows are packed integers that become floats.  An index outside of the table is refused,
// and read as 0 so that nothing outside is touched.  Tests: tests/kernels/gather_test.cpp.
#include <algorithm>
#include <functional>

#include "codegen/emit/index.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"

namespace qc {
namespace {

constexpr int64_t kUnitBytes = 4096;  // of the result: enough to pay for a unit's arithmetic

// x seen as [outer][rows][run], of which every index takes one run; result: [outer][indices][run].
struct RowTable {
  Number outer = 1, rows = 0, indices = 0;
  Number runBytes = 0;  // of the result
  int64_t block() const {
    return std::clamp<int64_t>(kUnitBytes / runBytes.value, 1, indices.isFree ? kUnitBytes : indices.value);
  }  // indices of a unit
  int64_t blocks() const { return (indices.value + block() - 1) / block(); }
  int64_t resultBytes() const { return outer.value * indices.value * runBytes.value; }
  void eachNumber(const NumberVisitor& visit) { visit(outer), visit(rows), visit(indices), visit(runBytes); }
  std::string form() const { return "table"; }
  KernelShape shape() const { return {outer.value * blocks(), 0}; }
};

// Calls read(row of x, address of the run in the result) for every index; rows count through all of `outer`.
KernelShape emitTable(KernelEmitter& e, const Node& node, int indexOperand, const RowTable& t,
                      const std::function<void(Reg row, Reg to)>& read) {
  Reg rows = e.number(t.rows), indices = e.number(t.indices), size = e.i64(t.block());
  Reg blocks = t.indices.isFree ? e.b.CreateUDiv(e.b.CreateAdd(indices, e.i64(t.block() - 1)), size) : e.i64(t.blocks());
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg outer = e.b.CreateUDiv(unit, blocks), block = e.b.CreateURem(unit, blocks);
    Reg first = e.b.CreateMul(block, size);
    Reg last = e.minOf(e.b.CreateAdd(first, size), indices);
    Reg firstRow = e.b.CreateMul(outer, rows), firstResult = e.b.CreateMul(outer, indices);
    e.loop(
        first, last, 1,
        [&](Reg i) {
          Reg row = e.b.CreateAdd(firstRow, checkedIndex(e, node, indexOperand, i, rows));
          read(row, e.at(e.result(), e.b.CreateMul(e.b.CreateAdd(firstResult, i), e.number(t.runBytes))));
        },
        true);
  });
  return t.shape();
}

RowTable gatherTable(const Node& node) {
  const Shape& shape = node.operand(0)->type().shape;
  const auto axis = usize(node.integer("axis"));
  return {product(std::span(shape).first(axis)), Number(shape[axis]), product(node.operand(1)->type().shape),
          product(std::span(shape).subspan(axis + 1)) * sizeOf(node.operand(0)->type().dtype)};
}

// Packed rows, as in ir/ops/packed_weights.cpp.
class PackedRow {
 public:
  PackedRow(KernelEmitter& e, const Node& node)
      : e_(e),
        columns_(node.integer("columns")),
        group_(node.integer("group")),
        stride_(node.operand(0)->type().sizes()[1]),
        sets_(node.operand(1)->type().sizes()[1]),
        half_(node.integer("bits") == 4),
        signed_(node.integer("signed") != 0) {
    const bool even = group_ % 2 == 0 || sets_ == 1;  // else groups begin in the middle of bytes
    width_ = half_ && !even ? 1 : laneCount(e, std::min(group_, columns_));
  }

  void read(Reg row, Reg to) {
    weights_ = e_.opaque(e_.at(e_.operand(0), e_.b.CreateMul(row, e_.i64(stride_))));
    to_ = to;
    Reg first = e_.b.CreateMul(row, e_.i64(sets_));
    const int64_t whole = columns_ / group_;
    e_.loop(e_.i64(0), e_.i64(whole), 1, [&](Reg s) { group(e_.b.CreateAdd(first, s), e_.b.CreateMul(s, e_.i64(group_)), group_); }, true);
    if (const int64_t rest = columns_ % group_) group(e_.b.CreateAdd(first, e_.i64(whole)), e_.i64(whole * group_), rest);
  }

 private:
  void group(Reg set, Reg column, int64_t count) {
    Reg place = e_.b.CreateMul(set, e_.i64(4));
    Reg scale = e_.load(e_.b.getFloatTy(), e_.at(e_.operand(1), place));
    Reg zero = e_.operand(2) ? e_.load(e_.b.getInt32Ty(), e_.at(e_.operand(2), place)) : e_.i32c(0);
    vectorLoop(e_, count, width_, [&](Reg i, LaneCount lanes) {
      Reg k = e_.b.CreateAdd(column, i);
      storeUpTo(e_, e_.dequantize(integers(k, lanes.known), signed_, scale, zero), e_.at(to_, e_.b.CreateMul(k, e_.i64(4))), lanes);
    });
  }

  // `lanes` weights from column k on, as bytes.
  Reg integers(Reg k, int lanes) {
    llvm::IRBuilder<>& b = e_.b;
    if (!half_) return loadUpTo(e_, e_.i8(width_), e_.at(weights_, k), lanes);
    Reg from = e_.at(weights_, b.CreateLShr(k, e_.i64(1)));
    Reg nibbles = nullptr;
    if (width_ == 1) {
      Reg shift = b.CreateShl(b.CreateAnd(b.CreateTrunc(k, b.getInt8Ty()), b.getInt8(1)), b.getInt8(2));
      nibbles = e_.splat(b.CreateAnd(b.CreateLShr(e_.load(b.getInt8Ty(), from), shift), b.getInt8(15)), 1);
    } else {
      Reg bytes = loadUpTo(e_, e_.i8(width_ / 2), from, (lanes + 1) / 2);
      Reg low = b.CreateAnd(bytes, e_.ints(15, bytes->getType())), high = b.CreateLShr(bytes, e_.ints(4, bytes->getType()));
      llvm::SmallVector<int> order;
      for (int i = 0; i < width_; ++i) order.push_back(i / 2 + i % 2 * width_ / 2);
      nibbles = b.CreateShuffleVector(low, high, order);
    }
    if (!signed_) return nibbles;
    Reg eight = e_.ints(8, nibbles->getType());  // the sign bit
    return b.CreateSub(b.CreateXor(nibbles, eight), eight);
  }

  KernelEmitter& e_;
  int64_t columns_, group_, stride_, sets_;
  bool half_, signed_;
  int width_;
  Reg weights_ = nullptr, to_ = nullptr;
};

RowTable embeddingTable(const Node& node) {
  return {1, node.operand(0)->type().sizes()[0], product(node.operand(3)->type().shape), 4 * node.integer("columns")};
}

// A run is code of its own.
bool hasOneRun(const RowTable& t, const Node&) { return !t.runBytes.isFree; }

// Nothing to read from or to: the op's evaluation has no loop to be faster than.
std::optional<RowTable> unlessEmpty(const RowTable& t) {
  if (t.resultBytes() == 0 || t.rows.value == 0) return std::nullopt;
  return t;
}

std::optional<RowTable> planGather(const Node& node, const Target&) { return unlessEmpty(gatherTable(node)); }

Work work(const RowTable& t, const Node&, const Target&) {
  return {{"call", 1}, {"index", static_cast<double>(t.outer.value * t.indices.value)}, {"byte", static_cast<double>(t.resultBytes())}};
}

Result<KernelShape> emitGather(KernelEmitter& e, const Node& node, const RowTable& t) {
  return emitTable(e, node, 1, t, [&](Reg row, Reg to) {
    e.copyBytes(to, e.at(e.operand(0), e.b.CreateMul(row, e.i64(t.runBytes.value))), t.runBytes.value);
  });
}

std::optional<RowTable> planEmbedding(const Node& node, const Target&) { return unlessEmpty(embeddingTable(node)); }

Result<KernelShape> emitEmbedding(KernelEmitter& e, const Node& node, const RowTable& t) {
  PackedRow packed(e, node);
  return emitTable(e, node, 3, t, [&](Reg row, Reg to) { packed.read(row, to); });
}

}  // namespace

std::vector<KernelDef> gatherKernels() {
  return kernelsOf(KernelFamily<RowTable>{
      .ops = {"gather"}, .rows = {{"gather"}}, .plan = planGather, .work = work, .onlyNumbers = hasOneRun, .emit = emitGather});
}

std::vector<KernelDef> embeddingKernels() {
  return kernelsOf(KernelFamily<RowTable>{.ops = {"q.embedding"},
                                          .rows = {{"embedding"}},
                                          .plan = planEmbedding,
                                          .work = work,
                                          .onlyNumbers = hasOneRun,
                                          .emit = emitEmbedding});
}

}  // namespace qc
