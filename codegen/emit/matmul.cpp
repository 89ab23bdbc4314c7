// Products of two activations: matmul (f32) and q.matmul.  No operand is known beforehand, so nothing is packed at compile time.
//
//   unit   one matrix of the batch x a block of rows (f32) or of column panels (integers)
//   tile   `rows` rows x one panel of `vectors` vectors of columns, accumulated in registers; the last tile of a block overlaps
//          the one before
// f32 reads b in place; the sums run over k in order, one fused multiply-add each.  Integers are centred (q - zero point, which fits
// 16 bits) on the way: the b of a unit into panels of pairs of k, each row tile of a as it comes.  Sums of products of pairs are exact.
// Tests: tests/kernels/matmul_test.cpp.
#include <algorithm>

#include "codegen/emit/products.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/matmul.h"

namespace qc {
namespace {

struct MatmulPlan {
  MatmulGeometry g;
  int lanes = 4, vectors = 1;
  int64_t rows = 1;            // of a tile
  int64_t panels = 1;          // whole ones and a part
  int64_t blocks = 1;          // of one matrix: units = matrices * blocks
  int64_t panelsPerBlock = 1;  // integers
  int64_t panelWidth() const { return int64_t{vectors} * lanes; }
  int64_t pairs() const { return (g.k + 1) / 2; }
};

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

MatmulPlan planMatmul(const Node& node, const Target& target) {
  constexpr int64_t kEnoughUnits = 8;  // for a few threads to share
  MatmulPlan p;
  p.g = MatmulGeometry::of(node.operand(0)->type().sizes(), node.operand(1)->type().sizes());
  p.lanes = target.vectorBytes() / 4;
  const int accumulators = p.lanes == 16 ? 24 : 12, most = p.lanes == 16 ? 4 : 2;
  p.rows = std::clamp<int64_t>(p.g.m, 1, 6);
  // Few rows leave registers for more columns, which keep the adders busy.
  p.vectors = std::clamp(accumulators / static_cast<int>(p.rows), most, 8);
  while (p.vectors > 1 && p.g.n <= (p.vectors - 1) * p.lanes) --p.vectors;
  p.panels = ceilDiv(p.g.n, p.panelWidth());
  const int64_t wanted = std::max<int64_t>(kEnoughUnits / std::max<int64_t>(p.g.matrices(), 1), 1);
  if (node.operand(0)->type().isQuantized()) {
    constexpr int64_t kStagedBytes = 256 * 1024;  // of b: stays in the second cache
    const int64_t fits = std::max<int64_t>(kStagedBytes / std::max<int64_t>(p.pairs() * p.panelWidth() * 4, 1), 1);
    p.panelsPerBlock = std::clamp<int64_t>(ceilDiv(p.panels, wanted), 1, fits);
    p.blocks = ceilDiv(p.panels, p.panelsPerBlock);
  } else {
    p.blocks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(p.g.m / p.rows, 1));
  }
  return p;
}

class Matmul {
 public:
  Matmul(KernelEmitter& e, const Node& node, const MatmulPlan& plan) : e_(e), p_(plan), g_(plan.g) {
    const TensorType& a = node.operand(0)->type();
    integer_ = a.isQuantized();
    if (!integer_) return;
    signedA_ = isSigned(a.dtype);
    signedB_ = isSigned(node.operand(1)->type().dtype);
    quantizes_ = node.result()->type().isQuantized();
  }

  KernelShape emit() {
    if (integer_) prepareIntegers();
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg matrix = e_.b.CreateUDiv(unit, e_.i64(p_.blocks)), block = e_.b.CreateURem(unit, e_.i64(p_.blocks));
      Reg offsetA = e_.i64(0), offsetB = e_.i64(0), rest = matrix;
      for (size_t d = g_.batch.size(); d-- > 0;) {
        Reg index = d ? e_.b.CreateURem(rest, e_.i64(g_.batch[d])) : rest;
        if (d) rest = e_.b.CreateUDiv(rest, e_.i64(g_.batch[d]));
        offsetA = e_.b.CreateAdd(offsetA, mul(index, g_.strideA[d]));
        offsetB = e_.b.CreateAdd(offsetB, mul(index, g_.strideB[d]));
      }
      a_ = e_.at(e_.operand(0), mul(offsetA, elementBytes()));
      b_ = e_.at(e_.operand(1), mul(offsetB, elementBytes()));
      y_ = e_.at(e_.result(), mul(matrix, g_.m * g_.n * resultBytes()));
      integer_ ? integerUnit(block) : floatUnit(block);
    });
    return {g_.matrices() * p_.blocks, integer_ ? stagedA() + p_.panelsPerBlock * stagedPanel() : 0};
  }

 private:
  using Regs = std::vector<Reg>;
  // One panel: its first column, and how many columns its last vector has.
  struct Panel {
    Reg index;  // of the matrix
    int vectors, lastCount;
  };

  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  int64_t elementBytes() const { return integer_ ? 1 : 4; }
  int64_t resultBytes() const { return quantizes_ ? 1 : 4; }
  int64_t stagedA() const { return (p_.rows * p_.pairs() * 4 + 63) / 64 * 64; }
  int64_t stagedPanel() const { return p_.pairs() * p_.panelWidth() * 4; }

  // Panels [first, last): a loop over the whole ones, and the part behind them.
  void forPanels(Reg first, Reg last, const std::function<void(const Panel&)>& body) {
    const int64_t whole = g_.n / p_.panelWidth(), rest = g_.n % p_.panelWidth();
    if (whole) e_.loop(first, e_.minOf(last, e_.i64(whole)), 1, [&](Reg i) { body({i, p_.vectors, p_.lanes}); });
    if (rest)
      e_.ifThen(e_.b.CreateICmpSGT(last, e_.i64(whole)),
                [&] { body({e_.i64(whole), static_cast<int>(ceilDiv(rest, p_.lanes)), static_cast<int>((rest - 1) % p_.lanes + 1)}); });
  }
  int countOf(const Panel& panel, int v) const { return v + 1 == panel.vectors ? panel.lastCount : p_.lanes; }

  // Row tiles of rows [first, last), which are at least one tile.
  void forRows(Reg first, Reg last, const std::function<void(Reg)>& body) {
    e_.loop(first, last, p_.rows, [&](Reg i) { body(e_.minOf(i, e_.b.CreateSub(last, e_.i64(p_.rows)))); }, true);
  }

  void store(const Regs& acc, Reg row, const Panel& panel, const std::function<Reg(Reg)>& finish) {
    Reg base = e_.at(y_, mul(e_.b.CreateAdd(mul(row, g_.n), mul(panel.index, p_.panelWidth())), resultBytes()));
    for (int64_t r = 0; r < p_.rows; ++r)
      for (int v = 0; v < panel.vectors; ++v)
        storeUpTo(e_, finish(nth(acc, r * panel.vectors + v)), e_.at(base, (r * g_.n + int64_t{v} * p_.lanes) * resultBytes()),
                  countOf(panel, v));
  }

  // ---- f32 ------------------------------------------------------------------------------------

  void floatUnit(Reg block) {
    const auto border = [&](Reg i) { return e_.b.CreateUDiv(mul(i, g_.m), e_.i64(p_.blocks)); };
    Reg first = border(block), last = border(e_.b.CreateAdd(block, e_.i64(1)));
    forPanels(e_.i64(0), e_.i64(p_.panels), [&](const Panel& panel) {
      Reg columns = e_.opaque(e_.at(b_, mul(panel.index, p_.panelWidth() * 4)));
      forRows(first, last, [&](Reg row) {
        Reg line = e_.opaque(e_.at(a_, mul(row, g_.k * 4)));
        Regs acc(usize(p_.rows * panel.vectors), e_.floats(0, p_.lanes));
        acc = e_.loop(
            e_.i64(0), e_.i64(g_.k), 1, acc,
            [&](Reg k, Regs& sums) {
              Reg from = e_.at(columns, mul(k, g_.n * 4));
              Regs b;
              for (int v = 0; v < panel.vectors; ++v)
                b.push_back(loadUpTo(e_, e_.f32(p_.lanes), e_.at(from, int64_t{v} * p_.lanes * 4), countOf(panel, v)));
              for (int64_t r = 0; r < p_.rows; ++r) {
                Reg a = e_.splat(e_.load(e_.f32(), e_.at(e_.at(line, mul(k, 4)), r * g_.k * 4)), p_.lanes);
                for (size_t v = 0; v < b.size(); ++v) {
                  Reg& sum = sums[usize(r) * b.size() + v];
                  sum = e_.fma(a, b[v], sum);
                }
              }
            },
            g_.k > 0);
        store(acc, row, panel, [](Reg v) { return v; });
      });
    });
  }

  // ---- integers -------------------------------------------------------------------------------

  void prepareIntegers() {
    zeroA_ = e_.operandParam(0, ParamField::zeroPoint);
    zeroB_ = e_.operandParam(1, ParamField::zeroPoint);
    multiplier_ = e_.b.CreateFMul(e_.operandParam(0, ParamField::scale), e_.operandParam(1, ParamField::scale));
    if (!quantizes_) return;
    multiplier_ = e_.b.CreateFDiv(multiplier_, e_.resultParam(0, ParamField::scale));
    bounds_ = e_.resultBounds();
  }

  Reg panelAt(Reg indexInBlock) { return e_.at(e_.at(e_.scratch(), stagedA()), mul(indexInBlock, stagedPanel())); }

  void integerUnit(Reg block) {
    Reg first = mul(block, p_.panelsPerBlock), last = e_.minOf(e_.b.CreateAdd(first, e_.i64(p_.panelsPerBlock)), e_.i64(p_.panels));
    forPanels(first, last, [&](const Panel& panel) { stageB(panel, panelAt(e_.b.CreateSub(panel.index, first))); });
    forRows(e_.i64(0), e_.i64(g_.m), [&](Reg row) {
      stageA(row);
      forPanels(first, last, [&](const Panel& panel) {
        Reg columns = e_.opaque(panelAt(e_.b.CreateSub(panel.index, first)));
        Regs acc(usize(p_.rows * panel.vectors), e_.ints(0, e_.i32(p_.lanes)));
        acc = e_.loop(
            e_.i64(0), e_.i64(p_.pairs()), 1, acc,
            [&](Reg pair, Regs& sums) {
              Reg from = e_.at(columns, mul(pair, p_.panelWidth() * 4));
              Regs b;
              for (int v = 0; v < panel.vectors; ++v) b.push_back(e_.load(e_.i32(p_.lanes), e_.at(from, int64_t{v} * p_.lanes * 4)));
              for (int64_t r = 0; r < p_.rows; ++r) {
                Reg a = e_.splat(e_.load(e_.b.getInt32Ty(), e_.at(e_.at(e_.scratch(), mul(pair, 4)), r * p_.pairs() * 4)), p_.lanes);
                for (size_t v = 0; v < b.size(); ++v) {
                  Reg& sum = sums[usize(r) * b.size() + v];
                  sum = Products::addPairs(e_, sum, a, b[v]);
                }
              }
            },
            g_.k > 0);
        store(acc, row, panel, [&](Reg sum) { return finished(sum); });
      });
    });
  }

  Reg finished(Reg sum) {
    Reg real = e_.b.CreateFMul(e_.toFloat(sum), e_.splat(multiplier_, p_.lanes));
    return quantizes_ ? e_.b.CreateTrunc(e_.roundClamp(real, bounds_), e_.i8(p_.lanes)) : real;
  }

  // Rows 2 pair and 2 pair + 1 of b, centred, as the halves of 32-bit lanes; a row that does not exist is zero.
  void stageB(const Panel& panel, Reg to) {
    Reg from = e_.at(b_, mul(panel.index, p_.panelWidth())), zero = e_.splat(zeroB_, p_.lanes);
    const auto stagePair = [&](Reg pair, bool both) {
      for (int v = 0; v < panel.vectors; ++v) {
        const auto centred = [&](int64_t half) {
          Reg row = e_.b.CreateAdd(mul(pair, 2), e_.i64(half));
          Reg bytes = loadUpTo(e_, e_.i8(p_.lanes), e_.at(e_.at(from, mul(row, g_.n)), int64_t{v} * p_.lanes), countOf(panel, v));
          return e_.b.CreateSub(widened(e_, bytes, signedB_), zero);
        };
        Reg value = e_.b.CreateAnd(centred(0), e_.ints(0xffff, e_.i32(p_.lanes)));
        if (both) value = e_.b.CreateOr(value, e_.b.CreateShl(centred(1), e_.ints(16, e_.i32(p_.lanes))));
        e_.store(value, e_.at(e_.at(to, mul(pair, p_.panelWidth() * 4)), int64_t{v} * p_.lanes * 4));
      }
    };
    e_.loop(e_.i64(0), e_.i64(g_.k / 2), 1, [&](Reg pair) { stagePair(pair, true); });
    if (g_.k % 2) stagePair(e_.i64(g_.k / 2), false);
  }

  // The rows of a tile, centred, as 16-bit integers.  Behind an odd row stands anything: it meets the zero row of b.
  void stageA(Reg row) {
    const int width = laneCount(e_, g_.k);
    Reg zero = e_.splat(zeroA_, width);
    for (int64_t r = 0; r < p_.rows; ++r) {
      Reg from = e_.at(a_, mul(e_.b.CreateAdd(row, e_.i64(r)), g_.k)), to = e_.at(e_.scratch(), r * p_.pairs() * 4);
      vectorLoop(e_, g_.k, width, [&](Reg i, int count) {
        Reg centred = e_.b.CreateSub(widened(e_, loadUpTo(e_, e_.i8(width), e_.at(from, i), count), signedA_), zero);
        storeUpTo(e_, e_.b.CreateTrunc(centred, e_.i16(width)), e_.at(to, mul(i, 2)), count);
      });
    }
  }

  KernelEmitter& e_;
  const MatmulPlan& p_;
  const MatmulGeometry& g_;
  bool integer_ = false, signedA_ = false, signedB_ = false, quantizes_ = false;
  Reg a_ = nullptr, b_ = nullptr, y_ = nullptr;
  Reg zeroA_ = nullptr, zeroB_ = nullptr, multiplier_ = nullptr;
  KernelEmitter::Bounds bounds_{};
};

std::optional<MatmulPlan> plan(const Node& node, const Target& target) {
  const TensorType &a = node.operand(0)->type(), &b = node.operand(1)->type(), &y = node.result()->type();
  if (!a.isStatic() || !b.isStatic() || y.numElements() == 0) return std::nullopt;
  const bool types = node.is("matmul") ? isPlainFloat(a) && isPlainFloat(b)
                                       : isPerTensorByte(a) && isPerTensorByte(b) && (isPlainFloat(y) || isPerTensorByte(y));
  if (!types) return std::nullopt;
  return planMatmul(node, target);
}

Work work(const MatmulPlan& p, const Node& node, const Target&) {
  const bool integers = node.is("q.matmul");
  const double matrices = static_cast<double>(p.g.matrices()), tiles = matrices * static_cast<double>(p.panels * ceilDiv(p.g.m, p.rows));
  const double outputs = static_cast<double>(p.rows * p.vectors), steps = static_cast<double>(integers ? p.pairs() : p.g.k);
  const double floats = integers ? 0 : 1, ints = integers ? 1 : 0;
  return {{"call", 1},
          {"product", floats * tiles * steps * outputs},
          {"load", floats * tiles * steps * static_cast<double>(p.rows + p.vectors)},
          {"tile", floats * tiles},
          {"store", floats * tiles * outputs},
          {"pair_product", ints * tiles * steps * outputs},
          {"pair_load", ints * tiles * steps * static_cast<double>(p.rows + p.vectors)},
          {"pair_tile", ints * tiles},
          {"pair_store", ints * tiles * outputs},
          {"staged_vector", ints * matrices * steps * static_cast<double>(p.panels * p.vectors)}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const MatmulPlan& plan) { return Matmul(e, node, plan).emit(); }

}  // namespace

std::vector<KernelDef> matmulKernels() {
  return kernelsOf(KernelFamily<MatmulPlan>{.ops = {"matmul", "q.matmul"}, .rows = {{"matmul"}}, .plan = plan, .work = work, .emit = emit});
}

}  // namespace qc
