#include "codegen/plan/rows.h"

#include <algorithm>

#include "codegen/emit/vector_loop.h"
#include "ir/qmath.h"

namespace qc {

using Values = KernelEmitter::Values;

std::optional<RowSpace> RowSpace::around(const Shape& shape, const std::vector<int64_t>& axes, const Target& target) {
  RowSpace space{.lanes = target.vectorBytes() / 4};
  bool reducing = false, after = false;
  for (size_t d = 0; d < shape.size(); ++d) {
    const Number size(shape[d]);
    if (size.value == 1) continue;
    if (std::find(axes.begin(), axes.end(), static_cast<int64_t>(d)) != axes.end()) {
      if (after) return std::nullopt;
      reducing = true;
      space.length = space.length * size;
    } else {
      after = reducing;
      Number& side = after ? space.inner : space.outer;
      side = side * size;
    }
  }
  return space;
}

Reg Rows::at(Reg tensor, int64_t elementBytes) const {
  Reg start = e_.b.CreateMul(outer_, e_.b.CreateMul(length(), inner()));
  if (column_) start = e_.b.CreateAdd(start, column_);
  return e_.opaque(e_.at(tensor, times(start, elementBytes)));
}

Reg Rows::reducedAt(Reg tensor, int64_t elementBytes) const {
  Reg start = column_ ? e_.b.CreateAdd(e_.b.CreateMul(outer_, inner()), column_) : outer_;
  return e_.at(tensor, times(start, elementBytes));
}

Reg Rows::load(Reg row, Reg i, LaneCount lanes) const { return loadUpTo(e_, e_.f32(width_), e_.at(row, byteOffset(i, 4)), lanes); }

Reg Rows::loadIntegers(Reg row, Reg i, LaneCount lanes, DType t) const {
  return widened(e_, loadUpTo(e_, integersOf(e_, t, width_), e_.at(row, byteOffset(i, sizeOf(t))), lanes), isSigned(t));
}

void Rows::store(Reg v, Reg row, Reg i, LaneCount lanes) const { storeUpTo(e_, v, e_.at(row, byteOffset(i, 4)), lanes); }

Values Rows::fold(Values carried, const std::function<void(Reg, LaneCount, Values&)>& body) const {
  Reg n = length();
  if (!space_.along())
    return e_.loop(e_.i64(0), n, 1, std::move(carried), [&](Reg i, Values& values) { body(i, count_, values); }, !space_.length.isFree);
  const auto vectors = [&](Reg from, Reg to, int64_t step, LaneCount lanes, bool atLeastOnce) {
    carried = e_.loop(from, to, step, std::move(carried), [&](Reg i, Values& values) { body(i, lanes, values); }, atLeastOnce);
  };
  if (space_.length.isFree) {
    Reg whole = e_.b.CreateAnd(n, e_.i64(-width_));
    vectors(e_.i64(0), whole, width_, width_, false);
    vectors(whole, n, width_, e_.b.CreateSub(n, whole), false);
    return carried;
  }
  const int64_t whole = space_.length.value / width_ * width_;
  if (whole) vectors(e_.i64(0), e_.i64(whole), width_, width_, true);
  if (const auto rest = static_cast<int>(space_.length.value - whole)) body(e_.i64(whole), rest, carried);
  return carried;
}

void Rows::each(const std::function<void(Reg, LaneCount)>& visit) const {
  fold({}, [&](Reg i, LaneCount lanes, Values&) { visit(i, lanes); });
}

Reg Rows::masked(Reg v, LaneCount lanes, Reg others) const {
  if (!space_.along() || lanes.is(width_)) return v;
  if (lanes.reg) return e_.b.CreateSelect(e_.lanesBelow(lanes.reg, width_), v, others);
  llvm::SmallVector<llvm::Constant*> used;
  for (int i = 0; i < width_; ++i) used.push_back(e_.b.getInt1(i < lanes.known));
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

Reg Rows::sum(const std::function<Reg(Reg, LaneCount)>& term) const { return space_.along() ? sumAlong(term) : sumAcross(term); }

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
Reg Rows::sumAlong(const std::function<Reg(Reg, LaneCount)>& term) const {
  const auto stripes = usize(kStripes / width_);
  Reg zero = e_.floats(0, width_);
  Values sums(stripes, zero);
  const auto add = [&](Reg base, size_t stripe, LaneCount lanes, Values& to) {
    Reg i = e_.b.CreateAdd(base, e_.i64(static_cast<int64_t>(stripe) * width_));
    to[stripe] = e_.b.CreateFAdd(to[stripe], masked(term(i, lanes), lanes, zero));
  };
  const auto rounds = [&](Reg to, bool atLeastOnce) {
    sums = e_.loop(
        e_.i64(0), to, kStripes, sums,
        [&](Reg i, Values& into) {
          for (size_t s = 0; s < stripes; ++s) add(i, s, width_, into);
        },
        atLeastOnce);
  };
  if (space_.length.isFree) {
    Reg n = length(), whole = e_.b.CreateAnd(n, e_.i64(-kStripes));
    rounds(whole, false);
    // What is left of a round: whole vectors in turn, each to its stripe, and a part of one.
    for (size_t s = 0; s < stripes; ++s) {
      Reg from = e_.b.CreateAdd(whole, e_.i64(static_cast<int64_t>(s) * width_));
      Reg left = e_.minOf(e_.b.CreateSub(n, from), e_.i64(width_));
      sums[s] = e_.loop(from, e_.minOf(n, e_.b.CreateAdd(from, e_.i64(1))), 1, {sums[s]},
                        [&](Reg i, Values& sum) { sum[0] = e_.b.CreateFAdd(sum[0], masked(term(i, left), left, zero)); })[0];
    }
  } else {
    const int64_t n = space_.length.value, whole = n / kStripes * kStripes;
    if (whole) rounds(e_.i64(whole), true);
    auto rest = static_cast<int>(n % kStripes);
    for (size_t s = 0; rest > 0; ++s, rest -= width_) add(e_.i64(whole), s, std::min(rest, width_), sums);
  }
  return combined(foldStripes(e_, sums), [&](Reg a, Reg b) { return e_.b.CreateFAdd(a, b); });
}

Reg Rows::sumAcross(const std::function<Reg(Reg, LaneCount)>& term) const {
  Values sums(kStripes, e_.floats(0, width_));
  const auto add = [&](Reg base, int stripe, Values& to) {
    Reg& sum = nth(to, stripe);
    sum = e_.b.CreateFAdd(sum, term(e_.b.CreateAdd(base, e_.i64(stripe)), count_));
  };
  const auto rounds = [&](Reg to, bool atLeastOnce) {
    sums = e_.loop(
        e_.i64(0), to, kStripes, sums,
        [&](Reg i, Values& into) {
          for (int s = 0; s < kStripes; ++s) add(i, s, into);
        },
        atLeastOnce);
  };
  if (space_.length.isFree) {
    Reg n = length(), whole = e_.b.CreateAnd(n, e_.i64(-kStripes));
    rounds(whole, false);
    for (int s = 0; s < kStripes; ++s) {
      Reg from = e_.b.CreateAdd(whole, e_.i64(s));
      nth(sums, s) = e_.loop(from, e_.minOf(n, e_.b.CreateAdd(from, e_.i64(1))), 1, {nth(sums, s)},
                             [&](Reg i, Values& sum) { sum[0] = e_.b.CreateFAdd(sum[0], term(i, count_)); })[0];
    }
  } else {
    const int64_t n = space_.length.value, whole = n / kStripes * kStripes;
    if (whole) rounds(e_.i64(whole), true);
    for (int s = 0; s < n % kStripes; ++s) add(e_.i64(whole), s, sums);
  }
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
  const double units = static_cast<double>(space.outer.value) * (along ? 1 : vectorCount(space.inner.value, lanes));
  const int64_t length = space.length.value;
  return {{"call", 1}, {"row", units}, {"vector", units * (along ? vectorCount(length, lanes) : static_cast<double>(length))}};
}

KernelShape emitRows(KernelEmitter& e, const RowSpace& space, const std::function<void(Rows&)>& body) {
  const int width = space.width();
  if (space.along()) {
    e.loop(e.begin(), e.end(), 1, [&](Reg row) {
      Rows rows(e, space, row, nullptr, width, 1);
      body(rows);
    });
    return space.shape();
  }
  Reg inner = e.number(space.inner);
  Reg blocks = space.inner.isFree ? e.b.CreateUDiv(e.b.CreateAdd(inner, e.i64(width - 1)), e.i64(width)) : e.i64(space.blocks());
  e.loop(e.begin(), e.end(), 1, [&](Reg unit) {
    Reg outer = e.b.CreateUDiv(unit, blocks), block = e.b.CreateURem(unit, blocks);
    const auto vectors = [&](LaneCount count) {
      Rows rows(e, space, outer, e.b.CreateMul(block, e.i64(width)), width, count);
      body(rows);
    };
    if (space.inner.isFree) {
      Reg left = e.b.CreateSub(inner, e.b.CreateMul(block, e.i64(width)));
      return e.ifThen(e.b.CreateICmpSLT(left, e.i64(width)), [&] { vectors(left); }, [&] { vectors(width); });
    }
    const auto rest = static_cast<int>(space.inner.value % width);
    if (!rest)
      vectors(width);
    else if (space.blocks() == 1)
      vectors(rest);
    else
      e.ifThen(e.b.CreateICmpEQ(block, e.i64(space.blocks() - 1)), [&] { vectors(rest); }, [&] { vectors(width); });
  });
  return space.shape();
}

}  // namespace qc
