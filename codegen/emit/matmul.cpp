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
  Number m, n, k, matrices;
  std::vector<Number> batch, strideA, strideB;  // as in MatmulGeometry
  bool integers = false;
  int lanes = 4, vectors = 1;
  int64_t rows = 1;           // of a tile
  Number panels = 1;          // whole ones and a part
  Number blocks = 1;          // of one matrix: units = matrices * blocks
  Number panelsPerBlock = 1;  // integers
  int64_t panelWidth() const { return int64_t{vectors} * lanes; }
  int64_t pairs() const { return (k.value + 1) / 2; }

  int64_t stagedA() const { return (rows * pairs() * 4 + 63) / 64 * 64; }
  int64_t stagedPanel() const { return pairs() * panelWidth() * 4; }

  void eachNumber(const NumberVisitor& visit) {
    for (Number* number : {&m, &n, &k, &matrices, &panels, &blocks, &panelsPerBlock}) visit(*number);
    for (auto* list : {&batch, &strideA, &strideB})
      for (Number& number : *list) visit(number);
  }
  std::string form() const { return fmt::format("{} batch dims, tiles of {} x {}", batch.size(), rows, vectors); }
  KernelShape shape() const { return {matrices.value * blocks.value, integers ? stagedA() + panelsPerBlock.value * stagedPanel() : 0}; }
};

int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::vector<Number> numbers(const std::vector<int64_t>& here, const std::vector<int64_t>& elsewhere) {
  std::vector<Number> all;
  for (size_t i = 0; i < here.size(); ++i) all.emplace_back(here[i], elsewhere[i]);
  return all;
}

MatmulPlan planMatmul(const Node& node, const Target& target) {
  constexpr int64_t kEnoughUnits = 8;  // for a few threads to share
  MatmulPlan p;
  const Shape &a = node.operand(0)->type().shape, &b = node.operand(1)->type().shape;
  const MatmulGeometry g = MatmulGeometry::of(qc::sizesOf(a), qc::sizesOf(b));
  const MatmulGeometry other = MatmulGeometry::of(sizesElsewhere(a), sizesElsewhere(b));
  p.m = Number(g.m, other.m), p.n = Number(g.n, other.n), p.k = Number(g.k, other.k);
  p.matrices = Number(g.matrices(), other.matrices());
  p.batch = numbers(g.batch, other.batch), p.strideA = numbers(g.strideA, other.strideA), p.strideB = numbers(g.strideB, other.strideB);
  p.integers = node.operand(0)->type().isQuantized();
  p.lanes = target.vectorBytes() / 4;
  const int accumulators = p.lanes == 16 ? 24 : 12, most = p.lanes == 16 ? 4 : 2;
  p.rows = std::clamp<int64_t>(g.m, 1, 6);
  // Few rows leave registers for more columns, which keep the adders busy.
  p.vectors = std::clamp(accumulators / static_cast<int>(p.rows), most, 8);
  while (p.vectors > 1 && g.n <= (p.vectors - 1) * p.lanes) --p.vectors;
  p.panels = ceilDiv(g.n, p.panelWidth());
  const int64_t wanted = std::max<int64_t>(kEnoughUnits / std::max<int64_t>(g.matrices(), 1), 1);
  if (p.integers) {
    constexpr int64_t kStagedBytes = 256 * 1024;  // of b: stays in the second cache
    const int64_t fits = std::max<int64_t>(kStagedBytes / std::max<int64_t>(p.stagedPanel(), 1), 1);
    p.panelsPerBlock = std::clamp<int64_t>(ceilDiv(p.panels.value, wanted), 1, fits);
    p.blocks = ceilDiv(p.panels.value, p.panelsPerBlock.value);
  } else {
    p.blocks = std::clamp<int64_t>(wanted, 1, std::max<int64_t>(g.m / p.rows, 1));
  }
  const bool varies = p.m.isFree || p.n.isFree || p.k.isFree || p.matrices.isFree;
  p.panels.isFree = p.n.isFree;
  p.blocks.isFree = p.panelsPerBlock.isFree = varies;
  return p;
}

class Matmul {
 public:
  Matmul(KernelEmitter& e, const Node& node, const MatmulPlan& plan)
      : e_(e), p_(plan), integer_(plan.integers), m_(e.number(plan.m)), n_(e.number(plan.n)), k_(e.number(plan.k)) {
    const TensorType& a = node.operand(0)->type();
    if (!integer_) return;
    pairs_ = plan.k.isFree ? e_.b.CreateLShr(e_.b.CreateAdd(k_, e_.i64(1)), e_.i64(1)) : e_.i64(plan.pairs());
    stagedA_ = plan.k.isFree ? e_.b.CreateAnd(e_.b.CreateAdd(mul(pairs_, plan.rows * 4), e_.i64(63)), e_.i64(-64)) : e_.i64(plan.stagedA());
    signedA_ = isSigned(a.dtype);
    signedB_ = isSigned(node.operand(1)->type().dtype);
    quantizes_ = node.result()->type().isQuantized();
  }

  KernelShape emit() {
    if (integer_) prepareIntegers();
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg blocks = e_.number(p_.blocks);
      Reg matrix = e_.b.CreateUDiv(unit, blocks), block = e_.b.CreateURem(unit, blocks);
      Reg offsetA = e_.i64(0), offsetB = e_.i64(0), rest = matrix;
      for (size_t d = p_.batch.size(); d-- > 0;) {
        Reg size = e_.number(p_.batch[d]);
        Reg index = d ? e_.b.CreateURem(rest, size) : rest;
        if (d) rest = e_.b.CreateUDiv(rest, size);
        offsetA = e_.b.CreateAdd(offsetA, e_.b.CreateMul(index, e_.number(p_.strideA[d])));
        offsetB = e_.b.CreateAdd(offsetB, e_.b.CreateMul(index, e_.number(p_.strideB[d])));
      }
      a_ = e_.at(e_.operand(0), mul(offsetA, elementBytes()));
      b_ = e_.at(e_.operand(1), mul(offsetB, elementBytes()));
      y_ = e_.at(e_.result(), e_.b.CreateMul(matrix, mul(e_.b.CreateMul(m_, n_), resultBytes())));
      integer_ ? integerUnit(block) : floatUnit(block);
    });
    return p_.shape();
  }

 private:
  using Regs = std::vector<Reg>;
  // One panel: its first column, and how many columns its last vector has.
  struct Panel {
    Reg index;  // of the matrix
    int vectors, lastCount;
    Reg columns = nullptr;  // how many, in all its vectors, where that is not known
  };

  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  // n * factor + rest bytes behind a pointer.
  Reg after(Reg pointer, const Number& n, int64_t factor, int64_t rest = 0) {
    if (!n.isFree) return e_.at(pointer, n.value * factor + rest);
    return e_.at(factor ? e_.at(pointer, mul(e_.number(n), factor)) : pointer, rest);
  }
  int64_t elementBytes() const { return integer_ ? 1 : 4; }
  int64_t resultBytes() const { return quantizes_ ? 1 : 4; }

  // Panels [first, last): a loop over the whole ones, and the part behind them.
  void forPanels(Reg first, Reg last, const std::function<void(const Panel&)>& body) {
    const auto wholeOnes = [&](Reg whole) { e_.loop(first, e_.minOf(last, whole), 1, [&](Reg i) { body({i, p_.vectors, p_.lanes}); }); };
    if (p_.n.isFree) {
      Reg whole = e_.b.CreateUDiv(n_, e_.i64(p_.panelWidth())), rest = e_.b.CreateURem(n_, e_.i64(p_.panelWidth()));
      wholeOnes(whole);
      Reg isPart = e_.b.CreateAnd(e_.b.CreateICmpSGT(last, whole), e_.b.CreateICmpNE(rest, e_.i64(0)));
      return e_.ifThen(isPart, [&] { body({whole, p_.vectors, p_.lanes, rest}); });
    }
    const int64_t whole = p_.n.value / p_.panelWidth(), rest = p_.n.value % p_.panelWidth();
    if (whole) wholeOnes(e_.i64(whole));
    if (rest)
      e_.ifThen(e_.b.CreateICmpSGT(last, e_.i64(whole)),
                [&] { body({e_.i64(whole), static_cast<int>(ceilDiv(rest, p_.lanes)), static_cast<int>((rest - 1) % p_.lanes + 1)}); });
  }
  LaneCount countOf(const Panel& panel, int v) {
    if (panel.columns) return e_.maxOf(e_.minOf(e_.b.CreateSub(panel.columns, e_.i64(int64_t{v} * p_.lanes)), e_.i64(p_.lanes)), e_.i64(0));
    return v + 1 == panel.vectors ? panel.lastCount : p_.lanes;
  }
  std::vector<LaneCount> countsOf(const Panel& panel) {
    std::vector<LaneCount> counts;
    for (int v = 0; v < panel.vectors; ++v) counts.push_back(countOf(panel, v));
    return counts;
  }

  // Row tiles of rows [first, last), which are at least one tile.
  void forRows(Reg first, Reg last, const std::function<void(Reg)>& body) {
    e_.loop(first, last, p_.rows, [&](Reg i) { body(e_.minOf(i, e_.b.CreateSub(last, e_.i64(p_.rows)))); }, true);
  }

  void store(const Regs& acc, Reg row, const Panel& panel, const std::function<Reg(Reg)>& finish) {
    Reg base = e_.at(y_, mul(e_.b.CreateAdd(e_.b.CreateMul(row, n_), mul(panel.index, p_.panelWidth())), resultBytes()));
    const std::vector<LaneCount> counts = countsOf(panel);
    for (int64_t r = 0; r < p_.rows; ++r)
      for (int v = 0; v < panel.vectors; ++v)
        storeUpTo(e_, finish(nth(acc, r * panel.vectors + v)), after(base, p_.n, r * resultBytes(), int64_t{v} * p_.lanes * resultBytes()),
                  nth(counts, v));
  }

  // Rows of a tile, where their distance is not known: else it is part of each address.
  Regs linesFrom(Reg line, int64_t bytes) {
    Regs lines;
    for (int64_t r = 0; p_.k.isFree && r < p_.rows; ++r)
      lines.push_back(e_.opaque(r ? e_.at(line, mul(integer_ ? pairs_ : k_, r * bytes)) : line));
    return lines;
  }
  Reg stepped(Reg line, const Regs& lines, Reg k, int64_t rowBytes, int64_t r) {
    return lines.empty() ? e_.at(e_.at(line, mul(k, 4)), r * rowBytes) : e_.at(nth(lines, r), mul(k, 4));
  }

  // ---- f32 ------------------------------------------------------------------------------------

  void floatUnit(Reg block) {
    const auto border = [&](Reg i) { return e_.b.CreateUDiv(e_.b.CreateMul(i, m_), e_.number(p_.blocks)); };
    Reg first = border(block), last = border(e_.b.CreateAdd(block, e_.i64(1)));
    forPanels(e_.i64(0), e_.number(p_.panels), [&](const Panel& panel) {
      Reg columns = e_.opaque(e_.at(b_, mul(panel.index, p_.panelWidth() * 4)));
      const std::vector<LaneCount> counts = countsOf(panel);
      forRows(first, last, [&](Reg row) {
        Reg line = e_.opaque(e_.at(a_, e_.b.CreateMul(row, mul(k_, 4))));
        const Regs lines = linesFrom(line, 4);
        Regs acc(usize(p_.rows * panel.vectors), e_.floats(0, p_.lanes));
        acc = e_.loop(
            e_.i64(0), k_, 1, acc,
            [&](Reg k, Regs& sums) {
              Reg from = e_.at(columns, e_.b.CreateMul(k, mul(n_, 4)));
              Regs b;
              for (int v = 0; v < panel.vectors; ++v)
                b.push_back(loadUpTo(e_, e_.f32(p_.lanes), e_.at(from, int64_t{v} * p_.lanes * 4), nth(counts, v)));
              for (int64_t r = 0; r < p_.rows; ++r) {
                Reg a = e_.splat(e_.load(e_.f32(), stepped(line, lines, k, p_.k.value * 4, r)), p_.lanes);
                for (size_t v = 0; v < b.size(); ++v) {
                  Reg& sum = sums[usize(r) * b.size() + v];
                  sum = e_.fma(a, b[v], sum);
                }
              }
            },
            !p_.k.isFree && p_.k.value > 0);
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

  Reg panelAt(Reg indexInBlock) {
    return e_.at(e_.at(e_.scratch(), stagedA_), e_.b.CreateMul(indexInBlock, mul(pairs_, p_.panelWidth() * 4)));
  }

  void integerUnit(Reg block) {
    Reg each = e_.number(p_.panelsPerBlock);
    Reg first = e_.b.CreateMul(block, each), last = e_.minOf(e_.b.CreateAdd(first, each), e_.number(p_.panels));
    forPanels(first, last, [&](const Panel& panel) { stageB(panel, panelAt(e_.b.CreateSub(panel.index, first))); });
    forRows(e_.i64(0), m_, [&](Reg row) {
      stageA(row);
      const Regs lines = linesFrom(e_.scratch(), 4);
      forPanels(first, last, [&](const Panel& panel) {
        Reg columns = e_.opaque(panelAt(e_.b.CreateSub(panel.index, first)));
        Regs acc(usize(p_.rows * panel.vectors), e_.ints(0, e_.i32(p_.lanes)));
        acc = e_.loop(
            e_.i64(0), pairs_, 1, acc,
            [&](Reg pair, Regs& sums) {
              Reg from = e_.at(columns, mul(pair, p_.panelWidth() * 4));
              Regs b;
              for (int v = 0; v < panel.vectors; ++v) b.push_back(e_.load(e_.i32(p_.lanes), e_.at(from, int64_t{v} * p_.lanes * 4)));
              for (int64_t r = 0; r < p_.rows; ++r) {
                Reg a = e_.splat(e_.load(e_.b.getInt32Ty(), stepped(e_.scratch(), lines, pair, p_.pairs() * 4, r)), p_.lanes);
                for (size_t v = 0; v < b.size(); ++v) {
                  Reg& sum = sums[usize(r) * b.size() + v];
                  sum = Products::addPairs(e_, sum, a, b[v]);
                }
              }
            },
            !p_.k.isFree && p_.k.value > 0);
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
    const std::vector<LaneCount> counts = countsOf(panel);
    const auto stagePair = [&](Reg pair, bool both) {
      for (int v = 0; v < panel.vectors; ++v) {
        const auto centred = [&](int64_t half) {
          Reg row = e_.b.CreateAdd(mul(pair, 2), e_.i64(half));
          Reg bytes = loadUpTo(e_, e_.i8(p_.lanes), e_.at(e_.at(from, e_.b.CreateMul(row, n_)), int64_t{v} * p_.lanes), nth(counts, v));
          return e_.b.CreateSub(widened(e_, bytes, signedB_), zero);
        };
        Reg value = e_.b.CreateAnd(centred(0), e_.ints(0xffff, e_.i32(p_.lanes)));
        if (both) value = e_.b.CreateOr(value, e_.b.CreateShl(centred(1), e_.ints(16, e_.i32(p_.lanes))));
        e_.store(value, e_.at(e_.at(to, mul(pair, p_.panelWidth() * 4)), int64_t{v} * p_.lanes * 4));
      }
    };
    Reg whole = e_.b.CreateLShr(k_, e_.i64(1));
    e_.loop(e_.i64(0), whole, 1, [&](Reg pair) { stagePair(pair, true); });
    if (p_.k.isFree)
      e_.ifThen(e_.b.CreateICmpSLT(whole, pairs_), [&] { stagePair(whole, false); });
    else if (p_.k.value % 2)
      stagePair(whole, false);
  }

  // The rows of a tile, centred, as 16-bit integers.  Behind an odd row stands anything: it meets the zero row of b.
  void stageA(Reg row) {
    const int width = laneCount(e_, p_.k);
    Reg zero = e_.splat(zeroA_, width);
    for (int64_t r = 0; r < p_.rows; ++r) {
      Reg from = e_.at(a_, e_.b.CreateMul(e_.b.CreateAdd(row, e_.i64(r)), k_));
      Reg to = p_.k.isFree ? e_.at(e_.scratch(), mul(pairs_, r * 4)) : e_.at(e_.scratch(), r * p_.pairs() * 4);
      vectorLoop(e_, k_, width, [&](Reg i, LaneCount count) {
        Reg centred = e_.b.CreateSub(widened(e_, loadUpTo(e_, e_.i8(width), e_.at(from, i), count), signedA_), zero);
        storeUpTo(e_, e_.b.CreateTrunc(centred, e_.i16(width)), e_.at(to, mul(i, 2)), count);
      });
    }
  }

  KernelEmitter& e_;
  const MatmulPlan& p_;
  const bool integer_;
  Reg m_, n_, k_, pairs_ = nullptr, stagedA_ = nullptr;
  bool signedA_ = false, signedB_ = false, quantizes_ = false;
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
  const double matrices = static_cast<double>(p.matrices.value);
  const double tiles = matrices * static_cast<double>(p.panels.value * ceilDiv(p.m.value, p.rows));
  const double outputs = static_cast<double>(p.rows * p.vectors), steps = static_cast<double>(integers ? p.pairs() : p.k.value);
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
          {"staged_vector", ints * matrices * steps * static_cast<double>(p.panels.value * p.vectors)}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const MatmulPlan& plan) { return Matmul(e, node, plan).emit(); }

}  // namespace

std::vector<KernelDef> matmulKernels() {
  return kernelsOf(KernelFamily<MatmulPlan>{
      .ops = {"matmul", "q.matmul"}, .rows = {{"matmul"}}, .plan = plan, .work = work, .onlyNumbers = always, .emit = emit});
}

}  // namespace qc
