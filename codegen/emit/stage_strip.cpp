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
    copied_ = std::max<int64_t>(0, std::min(g_.inW, s_.width - g_.padLeft));
    left_ = std::min(g_.padLeft, s_.width);
    right_ = s_.width - left_ - copied_;
  }

  void stage() {
    Reg top = e_.b.CreateSub(mul(at_.firstRow, g_.strideH), e_.i64(g_.padTop)), first = firstPlane(e_, g_, at_.plane);
    if (g_.kernelD == 1) return stagePlane(e_.scratch(), top, first, nullptr);
    Reg z = e_.b.CreateSub(mul(e_.b.CreateURem(at_.plane, e_.i64(g_.outD)), g_.strideD), e_.i64(g_.padFront));
    e_.loop(at_.begin, at_.end, 1, [&](Reg kz) {
      Reg step = mul(kz, g_.dilationD);
      Reg inside = e_.b.CreateICmpULT(e_.b.CreateAdd(z, step), e_.i64(g_.inD));
      stagePlane(e_.at(e_.scratch(), mul(kz, s_.planeBytes())), top, e_.b.CreateAdd(first, step), inside);
    });
  }

 private:
  Reg mul(Reg a, int64_t c) { return c == 1 ? a : e_.b.CreateMul(a, e_.i64(c)); }

  void stagePlane(Reg plane, Reg top, Reg sourcePlane, Reg inside) {
    Reg source = mul(sourcePlane, g_.inH);
    e_.loop(
        e_.i64(0), e_.i64(s_.rows), 1,
        [&](Reg row) {
          Reg to = e_.at(plane, mul(row, s_.rowBytes()));
          if (copied_ == 0) return fill(to, s_.rowBytes());
          Reg y = e_.b.CreateAdd(top, row), exists = e_.b.CreateICmpULT(y, e_.i64(g_.inH));  // unsigned: 0 <= y < inH
          if (inside) exists = e_.b.CreateAnd(exists, inside);
          e_.ifThen(exists, [&] { copyRow(to, e_.b.CreateAdd(source, y)); }, [&] { fill(to, s_.rowBytes()); });
        },
        true);
  }

  void copyRow(Reg to, Reg sourceRow) {
    fill(to, left_ * s_.pixelBytes());
    Reg source = mul(sourceRow, g_.inW * g_.channels * sourceBytes_);
    if (at_.group) source = e_.b.CreateAdd(source, mul(at_.group, s_.channels * sourceBytes_));
    Reg from = e_.at(e_.operand(0), source), inner = e_.at(to, left_ * s_.pixelBytes());
    if (s_.channels == g_.channels)
      copyElements(inner, from, copied_ * s_.channels);
    else
      e_.loop(e_.i64(0), e_.i64(copied_), 1, [&](Reg x) {
        copyElements(e_.at(inner, mul(x, s_.pixelBytes())), e_.at(from, mul(x, g_.channels * sourceBytes_)), s_.channels);
      });
    fill(e_.at(inner, copied_ * s_.pixelBytes()), right_ * s_.pixelBytes());
  }

  void fill(Reg to, int64_t bytes) {  // rounded up to whole vectors: what follows is written later
    const int64_t count = (bytes + vector_ - 1) / vector_ * vector_;
    const auto one = [&](Reg o) { e_.store(padding_, e_.at(to, o)); };
    if (count > 4 * vector_)
      e_.loop(e_.i64(0), e_.i64(count), vector_, one, true);
    else
      for (int64_t o = 0; o < count; o += vector_) one(e_.i64(o));
  }

  void copyElements(Reg to, Reg from, int64_t count) {
    if (!s_.widens) return e_.copyBytes(to, from, count * sourceBytes_);
    const int width = std::max(8, vector_ / 2);
    const int64_t whole = count / width * width;
    const auto widen = [&](Reg bytes) { return e_.b.CreateZExt(bytes, e_.i16(width)); };
    const auto one = [&](Reg o) { e_.store(widen(e_.load(e_.i8(width), e_.at(from, o))), e_.at(to, e_.b.CreateShl(o, e_.i64(1)))); };
    if (whole > 2 * width)
      e_.loop(e_.i64(0), e_.i64(whole), width, one, true);
    else
      for (int64_t o = 0; o < whole; o += width) one(e_.i64(o));
    if (whole < count)
      e_.store(widen(e_.loadPart(e_.i8(width), e_.at(from, whole), static_cast<int>(count - whole))), e_.at(to, 2 * whole));
  }

  KernelEmitter& e_;
  const StagedStrip& s_;
  const ConvGeometry& g_;
  const StripOrigin& at_;
  Reg padding_;
  int vector_;  // bytes
  int64_t sourceBytes_ = 1, copied_ = 0, left_ = 0, right_ = 0;
};

}  // namespace

void stageStrip(KernelEmitter& e, const StagedStrip& strip, const StripOrigin& origin, Reg padding) {
  Stager(e, strip, origin, padding).stage();
}

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
