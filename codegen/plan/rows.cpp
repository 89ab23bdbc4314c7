#include "codegen/plan/rows.h"

#include <algorithm>

#include "codegen/emit/vector_loop.h"
#include "ir/qmath.h"

namespace qc {

using Values = KernelEmitter::Values;

std::optional<RowSpace> RowSpace::around(const std::vector<int64_t>& sizes, const std::vector<int64_t>& axes) {
  RowSpace space;
  bool reducing = false, after = false;
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 1) continue;
    if (std::find(axes.begin(), axes.end(), static_cast<int64_t>(d)) != axes.end()) {
      if (after) return std::nullopt;
      reducing = true;
      space.length *= sizes[d];
    } else {
      after = reducing;
      (after ? space.inner : space.outer) *= sizes[d];
    }
  }
  return space;
}

Reg Rows::at(Reg tensor, int64_t elementBytes) const {
  Reg start = e_.b.CreateMul(outer_, e_.i64(space_.length * space_.inner));
  if (column_) start = e_.b.CreateAdd(start, column_);
  return e_.opaque(e_.at(tensor, e_.b.CreateMul(start, e_.i64(elementBytes))));
}

Reg Rows::reducedAt(Reg tensor, int64_t elementBytes) const {
  Reg start = column_ ? e_.b.CreateAdd(e_.b.CreateMul(outer_, e_.i64(space_.inner)), column_) : outer_;
  return e_.at(tensor, e_.b.CreateMul(start, e_.i64(elementBytes)));
}

Reg Rows::byteOffset(Reg i, int64_t elementBytes) const { return e_.b.CreateMul(i, e_.i64(elementBytes * space_.inner)); }

Reg Rows::load(Reg row, Reg i, int lanes) const { return loadUpTo(e_, e_.f32(width_), e_.at(row, byteOffset(i, 4)), lanes); }

Reg Rows::loadBytes(Reg row, Reg i, int lanes, bool hasSign) const {
  return widened(e_, loadUpTo(e_, e_.i8(width_), e_.at(row, byteOffset(i, 1)), lanes), hasSign);
}

void Rows::store(Reg v, Reg row, Reg i, int lanes) const { storeUpTo(e_, v, e_.at(row, byteOffset(i, 4)), lanes); }

Values Rows::fold(Values carried, const std::function<void(Reg, int, Values&)>& body) const {
  if (!space_.along())
    return e_.loop(e_.i64(0), e_.i64(space_.length), 1, std::move(carried), [&](Reg i, Values& values) { body(i, count_, values); }, true);
  const int64_t whole = space_.length / width_ * width_;
  if (whole)
    carried = e_.loop(e_.i64(0), e_.i64(whole), width_, std::move(carried), [&](Reg i, Values& values) { body(i, width_, values); }, true);
  if (const auto rest = static_cast<int>(space_.length - whole)) body(e_.i64(whole), rest, carried);
  return carried;
}

void Rows::each(const std::function<void(Reg, int)>& visit) const {
  fold({}, [&](Reg i, int lanes, Values&) { visit(i, lanes); });
}

Reg Rows::masked(Reg v, int lanes, Reg others) const {
  if (!space_.along() || lanes == width_) return v;
  llvm::SmallVector<llvm::Constant*> used;
  for (int i = 0; i < width_; ++i) used.push_back(e_.b.getInt1(i < lanes));
  return e_.b.CreateSelect(llvm::ConstantVector::get(used), v, others);
}

Reg Rows::combined(Reg v, const std::function<Reg(Reg, Reg)>& combine) const {
  if (!space_.along()) return v;
  for (int half = width_ / 2; half > 0; half /= 2) {
    llvm::SmallVector<int> low, high;
    for (int i = 0; i < half; ++i) {
      low.push_back(i);
      high.push_back(i + half);
    }
    v = combine(e_.b.CreateShuffleVector(v, low), e_.b.CreateShuffleVector(v, high));
  }
  return e_.b.CreateShuffleVector(v, llvm::SmallVector<int>(usize(width_), 0));
}

Reg Rows::sum(const std::function<Reg(Reg, int)>& term) const { return space_.along() ? sumAlong(term) : sumAcross(term); }

namespace {

constexpr int kStripes = qmath::StripedSum::kLanes;

// The upper half onto the lower half until one is left.
Reg foldStripes(KernelEmitter& e, Values stripes) {
  for (size_t half = stripes.size() / 2; half > 0; half /= 2)
    for (size_t i = 0; i < half; ++i) stripes[i] = e.b.CreateFAdd(stripes[i], stripes[i + half]);
  return stripes[0];
}

}  // namespace

// Stripes of width_ lanes; a lane that gets nothing more stays as it is, since no lane is ever -0.
Reg Rows::sumAlong(const std::function<Reg(Reg, int)>& term) const {
  const int64_t n = space_.length, rounds = n / kStripes;
  const auto stripes = usize(kStripes / width_);
  Reg zero = e_.floats(0, width_);
  Values sums(stripes, zero);
  const auto add = [&](Reg base, size_t stripe, int lanes, Values& to) {
    Reg i = e_.b.CreateAdd(base, e_.i64(static_cast<int64_t>(stripe) * width_));
    to[stripe] = e_.b.CreateFAdd(to[stripe], masked(term(i, lanes), lanes, zero));
  };
  if (rounds)
    sums = e_.loop(
        e_.i64(0), e_.i64(rounds * kStripes), kStripes, sums,
        [&](Reg i, Values& to) {
          for (size_t s = 0; s < stripes; ++s) add(i, s, width_, to);
        },
        true);
  auto rest = static_cast<int>(n % kStripes);
  for (size_t s = 0; rest > 0; ++s, rest -= width_) add(e_.i64(rounds * kStripes), s, std::min(rest, width_), sums);
  return combined(foldStripes(e_, sums), [&](Reg a, Reg b) { return e_.b.CreateFAdd(a, b); });
}

Reg Rows::sumAcross(const std::function<Reg(Reg, int)>& term) const {
  const int64_t n = space_.length, rounds = n / kStripes;
  Values sums(kStripes, e_.floats(0, width_));
  const auto add = [&](Reg base, int stripe, Values& to) {
    Reg& sum = nth(to, stripe);
    sum = e_.b.CreateFAdd(sum, term(e_.b.CreateAdd(base, e_.i64(stripe)), count_));
  };
  if (rounds)
    sums = e_.loop(
        e_.i64(0), e_.i64(rounds * kStripes), kStripes, sums,
        [&](Reg i, Values& to) {
          for (int s = 0; s < kStripes; ++s) add(i, s, to);
        },
        true);
  for (int s = 0; s < n % kStripes; ++s) add(e_.i64(rounds * kStripes), s, sums);
  return foldStripes(e_, sums);
}

void storeReduced(const Rows& rows, Reg v) {
  KernelEmitter& e = rows.emitter();
  auto* type = llvm::cast<llvm::FixedVectorType>(v->getType());
  Reg out = rows.reducedAt(e.result(), static_cast<int64_t>(type->getScalarSizeInBits()) / 8);
  if (rows.space().along())
    e.store(e.b.CreateExtractElement(v, uint64_t{0}), out);
  else
    storeUpTo(e, v, out, rows.columns());
}

Work workOnRows(const RowSpace& space, const Node&, const Target& target) {
  const int64_t lanes = target.vectorBytes() / 4;
  const bool along = space.along();
  const double units = static_cast<double>(space.outer) * (along ? 1 : vectorCount(space.inner, lanes));
  return {{"call", 1}, {"row", units}, {"vector", units * (along ? vectorCount(space.length, lanes) : static_cast<double>(space.length))}};
}

KernelShape emitRows(KernelEmitter& e, const RowSpace& space, const std::function<void(Rows&)>& body) {
  if (space.along()) {
    const int width = laneCount(e, space.length);
    e.loop(e.begin(), e.end(), 1, [&](Reg row) {
      Rows rows(e, space, row, nullptr, width, 1);
      body(rows);
    });
    return {space.outer, 0};
  }
  const int width = laneCount(e, space.inner);
  const int64_t blocks = (space.inner + width - 1) / width;
  const auto rest = static_cast<int>(space.inner % width);
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg outer = e.b.CreateUDiv(unit, e.i64(blocks)), block = e.b.CreateURem(unit, e.i64(blocks));
    const auto vectors = [&](int count) {
      Rows rows(e, space, outer, e.b.CreateMul(block, e.i64(width)), width, count);
      body(rows);
    };
    if (!rest)
      vectors(width);
    else if (blocks == 1)
      vectors(rest);
    else
      e.ifThen(e.b.CreateICmpEQ(block, e.i64(blocks - 1)), [&] { vectors(rest); }, [&] { vectors(width); });
  });
  return {space.outer * blocks, 0};
}

}  // namespace qc
