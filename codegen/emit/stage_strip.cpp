#include "codegen/emit/stage_strip.h"

#include <algorithm>

namespace qc {
namespace {

class Stager {
 public:
  Stager(KernelEmitter& e, const StagedStrip& strip, const StripOrigin& origin, Reg padding)
      : e_(e),
        s_(strip),
        g_(strip.conv),
        at_(origin),
        padding_(padding),
        vector_(static_cast<int>(padding->getType()->getPrimitiveSizeInBits() / 8)) {
    sourceBytes_ = strip.widens ? 1 : sizeOf(strip.element);
    left_ = s_.left();
    inH_ = e.number(s_.inH), inW_ = e.number(s_.inW);
    row_ = stagedRowBytes(e, strip), plane_ = stagedPlaneBytes(e, strip);
    if (s_.inW.isFree || s_.width.isFree) {
      Reg width = e.number(s_.width);
      copied_ = e.minOf(inW_, e.b.CreateSub(width, e.i64(g_.padLeft)));
      right_ = e.b.CreateSub(e.b.CreateSub(width, e.i64(left_)), copied_);
    } else {
      copied_ = e.i64(s_.copied());
      right_ = e.i64(s_.width.value - left_ - s_.copied());
    }
  }

  void stage() {
    Reg top = e_.b.CreateSub(mul(at_.firstRow, g_.strideH), e_.i64(g_.padTop)), first = firstPlane(e_, g_, at_.plane);
    if (readsOnePlane(g_)) return stagePlane(e_.scratch(), top, first, nullptr);
    Reg z = e_.b.CreateSub(mul(e_.b.CreateURem(at_.plane, e_.i64(g_.outD)), g_.strideD), e_.i64(g_.padFront));
    e_.loop(at_.begin, at_.end, 1, [&](Reg kz) {
      Reg step = mul(kz, g_.dilationD);
      Reg inside = e_.b.CreateICmpULT(e_.b.CreateAdd(z, step), e_.i64(g_.inD));
      stagePlane(e_.at(e_.scratch(), mul(kz, plane_)), top, e_.b.CreateAdd(first, step), inside);
    });
  }

 private:
  Reg mul(Reg a, int64_t c) { return c == 1 ? a : e_.b.CreateMul(a, e_.i64(c)); }
  Reg mul(Reg a, Reg c) {
    const auto known = e_.known(c);
    return known ? mul(a, *known) : e_.b.CreateMul(a, c);
  }

  void stagePlane(Reg plane, Reg top, Reg sourcePlane, Reg inside) {
    Reg source = mul(sourcePlane, inH_);
    e_.loop(
        e_.i64(0), e_.number(s_.rows), 1,
        [&](Reg row) {
          Reg to = e_.at(plane, mul(row, row_));
          if (s_.copied() == 0) return fill(to, row_);
          Reg y = e_.b.CreateAdd(top, row), exists = e_.b.CreateICmpULT(y, inH_);  // unsigned: 0 <= y < inH
          if (inside) exists = e_.b.CreateAnd(exists, inside);
          e_.ifThen(exists, [&] { copyRow(to, e_.b.CreateAdd(source, y)); }, [&] { fill(to, row_); });
        },
        true);
  }

  void copyRow(Reg to, Reg sourceRow) {
    fill(to, e_.i64(left_ * s_.pixelBytes()));
    Reg source = mul(sourceRow, e_.b.CreateMul(inW_, e_.i64(g_.channels * sourceBytes_)));
    if (at_.group) source = e_.b.CreateAdd(source, mul(at_.group, s_.channels * sourceBytes_));
    Reg from = e_.at(e_.operand(0), source), inner = e_.at(to, left_ * s_.pixelBytes());
    if (s_.channels == g_.channels)
      copyElements(inner, from, e_.b.CreateMul(copied_, e_.i64(s_.channels)));
    else
      e_.loop(e_.i64(0), copied_, 1, [&](Reg x) {
        copyElements(e_.at(inner, mul(x, s_.pixelBytes())), e_.at(from, mul(x, g_.channels * sourceBytes_)), s_.channels);
      });
    fill(e_.at(inner, e_.b.CreateMul(copied_, e_.i64(s_.pixelBytes()))), e_.b.CreateMul(right_, e_.i64(s_.pixelBytes())));
  }

  void fill(Reg to, Reg bytes) {  // rounded up to whole vectors: what follows is written later
    const auto one = [&](Reg o) { e_.store(padding_, e_.at(to, o)); };
    const auto known = e_.known(bytes);
    if (!known) return e_.loop(e_.i64(0), bytes, vector_, one);
    const int64_t count = (*known + vector_ - 1) / vector_ * vector_;
    if (count > 4 * vector_)
      e_.loop(e_.i64(0), e_.i64(count), vector_, one, true);
    else
      for (int64_t o = 0; o < count; o += vector_) one(e_.i64(o));
  }

  void copyElements(Reg to, Reg from, Reg count) {
    if (const auto known = e_.known(count)) return copyElements(to, from, *known);
    if (s_.widens)
      copyVectors(count, widening(), [&](Reg o, llvm::Type* type) { widen(to, from, o, type); });
    else
      copyVectors(mul(count, sourceBytes_), vector_,
                  [&](Reg o, llvm::Type* type) { e_.store(e_.load(type, e_.at(from, o)), e_.at(to, o)); });
  }

  // The last vector overlaps the one before; fewer elements than one has are taken one by one.
  void copyVectors(Reg count, int width, const std::function<void(Reg, llvm::Type*)>& copy) {
    llvm::Type* vector = e_.i8(width);
    Reg last = e_.b.CreateSub(count, e_.i64(width));
    e_.ifThen(
        e_.b.CreateICmpSGE(last, e_.i64(0)),
        [&] {
          e_.loop(e_.i64(0), last, width, [&](Reg o) { copy(o, vector); });
          copy(last, vector);
        },
        [&] { e_.loop(e_.i64(0), count, 1, [&](Reg o) { copy(o, e_.i8(1)); }); });
  }

  int widening() const { return std::max(8, vector_ / 2); }  // elements at a time
  void widen(Reg to, Reg from, Reg o, llvm::Type* bytes) {
    e_.store(e_.b.CreateZExt(e_.load(bytes, e_.at(from, o)), bytes->getWithNewBitWidth(16)), e_.at(to, e_.b.CreateShl(o, e_.i64(1))));
  }

  void copyElements(Reg to, Reg from, int64_t count) {
    if (!s_.widens) return e_.copyBytes(to, from, count * sourceBytes_);
    const int width = widening();
    const int64_t whole = count / width * width;
    const auto one = [&](Reg o) { widen(to, from, o, e_.i8(width)); };
    if (whole > 2 * width)
      e_.loop(e_.i64(0), e_.i64(whole), width, one, true);
    else
      for (int64_t o = 0; o < whole; o += width) one(e_.i64(o));
    if (whole < count)
      e_.store(e_.b.CreateZExt(e_.loadPart(e_.i8(width), e_.at(from, whole), static_cast<int>(count - whole)), e_.i16(width)),
               e_.at(to, 2 * whole));
  }

  KernelEmitter& e_;
  const StagedStrip& s_;
  const ConvGeometry& g_;
  const StripOrigin& at_;
  Reg padding_;
  int vector_;  // bytes
  int64_t sourceBytes_ = 1, left_ = 0;
  Reg inH_ = nullptr, inW_ = nullptr, row_ = nullptr, plane_ = nullptr, copied_ = nullptr, right_ = nullptr;
};

}  // namespace

void stageStrip(KernelEmitter& e, const StagedStrip& strip, const StripOrigin& origin, Reg padding) {
  Stager(e, strip, origin, padding).stage();
}

Reg stagedRowBytes(KernelEmitter& e, const StagedStrip& strip) { return e.b.CreateMul(e.number(strip.width), e.i64(strip.pixelBytes())); }

Reg stagedPlaneBytes(KernelEmitter& e, const StagedStrip& strip) { return e.b.CreateMul(e.number(strip.rows), stagedRowBytes(e, strip)); }

std::pair<Reg, Reg> planesInside(KernelEmitter& e, const ConvGeometry& g, Reg plane) {
  if (g.padFront == 0 && g.padBack == 0) return {e.i64(0), e.i64(g.kernelD)};
  Reg origin = e.b.CreateSub(e.b.CreateMul(e.b.CreateURem(plane, e.i64(g.outD)), e.i64(g.strideD)), e.i64(g.padFront));
  // Rounded-up quotients of what is before the first plane and before the end.
  const auto stepsTo = [&](int64_t place) {
    Reg distance = e.maxOf(e.b.CreateSub(e.i64(place), origin), e.i64(0));
    return e.minOf(e.b.CreateUDiv(e.b.CreateAdd(distance, e.i64(g.dilationD - 1)), e.i64(g.dilationD)), e.i64(g.kernelD));
  };
  return {stepsTo(0), stepsTo(g.inD)};
}

Reg firstPlane(KernelEmitter& e, const ConvGeometry& g, Reg plane) {
  if (g.outD == 1 && g.inD == 1 && g.padFront == 0) return plane;
  Reg image = e.b.CreateUDiv(plane, e.i64(g.outD)), z = e.b.CreateURem(plane, e.i64(g.outD));
  Reg first = e.b.CreateAdd(e.b.CreateMul(image, e.i64(g.inD)), e.b.CreateMul(z, e.i64(g.strideD)));
  return e.b.CreateSub(first, e.i64(g.padFront));
}

}  // namespace qc
