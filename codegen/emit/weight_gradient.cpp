// Gradients of convolution weights: products of a pixel's channels in x with those of a pixel in dy, summed over pixels in registers.
// A unit is a tap, some input channels and a panel of output channels.  Images are the outer loop and units the inner one: an image stays
// near while all units of a thread read it; their sums are added up in the result.  Where an image is larger than the first cache, a strip
// of its rows at a time meets all units, whose sums wait in scratch.
//
//   dense      acc[row][vector] += x[row] (one number for all lanes) * dy[vector]
//   depthwise  acc[vector] += x[vector] * dy[vector]
//
// The order is that of the definition in ir/ops/weight_gradient.cpp.  Tests: tests/kernels/weight_gradient_test.cpp.
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;

struct WeightGradientPlan {
  SpatialView x, dy;
  Window window;
  int64_t groups;
  bool depthwise;
  int lanes, vectors, rows;  // of a tile
  int64_t stripRows = 0;     // of dy

  WeightGradientPlan(const Node& node, int vectorLanes)
      : x(node.operand(0)->type().sizes(), true),
        dy(node.operand(1)->type().sizes(), true),
        window(alignedToView(Window::of(node.attrs(), node.integers("kernel_shape")))),
        groups(node.integer("group")),
        depthwise(groups == x.channels && groups == dy.channels && groups > 1),
        lanes(vectorLanes) {
    constexpr int kSums = 16;  // enough chains of FMAs to hide their latency, and registers for all of them
    vectors = static_cast<int>(std::clamp<int64_t>((outputs() + lanes - 1) / lanes, 1, lanes > 4 ? 4 : 2));
    const int64_t sums = lanes > 8 ? kSums : kSums / 2;
    rows = 1;
    for (int r = 2; !depthwise && r * vectors <= sums; ++r)
      if (inputs() % r == 0) rows = r;
    chooseStrips();
  }

  int64_t inputs() const { return depthwise ? 1 : x.channels / groups; }  // of a group
  int64_t outputs() const { return depthwise ? groups : dy.channels / groups; }
  int64_t outerGroups() const { return depthwise ? 1 : groups; }
  int64_t panel() const { return int64_t{vectors} * lanes; }
  int64_t panels() const { return (outputs() + panel() - 1) / panel(); }
  int64_t rowTiles() const { return inputs() / rows; }
  int64_t units() const { return window.taps() * outerGroups() * rowTiles() * panels(); }
  int64_t strips() const { return (dy.size[1] + stripRows - 1) / std::max<int64_t>(stripRows, 1); }
  int64_t tileBytes() const { return int64_t{4} * rows * panel(); }

 private:
  void chooseStrips() {
    constexpr int64_t kNear = 36 << 10, kFewestPixels = 32;  // fewer are not worth taking sums up and down again
    stripRows = dy.size[1];
    const int64_t rowOfX = 4 * x.size[2] * x.channels, rowOfDy = 4 * dy.size[2] * dy.channels;
    const int64_t overlap = (window.kernel[1] - 1) * window.dilation[1];
    if (dy.size[0] > 1 || x.size[0] > 1 || rowOfX * x.size[1] + rowOfDy * dy.size[1] <= kNear) return;
    const int64_t fit = (kNear - overlap * rowOfX) / (window.stride[1] * rowOfX + rowOfDy);
    if (fit >= 1 && fit < stripRows && fit * dy.size[2] >= kFewestPixels) stripRows = fit;
  }
};

class WeightGradientEmitter {
 public:
  WeightGradientEmitter(KernelEmitter& e, const WeightGradientPlan& plan) : e_(e), p_(plan) {}

  KernelShape emit() {
    e_.loop(e_.i64(0), e_.i64(p_.x.batch), 1, [&](Reg image) {
      Reg x = e_.at(e_.operand(0), mul(image, 4 * p_.x.batchStride)), dy = e_.at(e_.operand(1), mul(image, 4 * p_.dy.batchStride));
      Reg isFirst = e_.b.CreateICmpEQ(image, e_.i64(0));
      const auto units = [&](Reg strip) { e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) { emitUnit(unit, strip, x, dy, isFirst); }); };
      if (p_.strips() == 1)
        units(nullptr);
      else
        e_.loop(e_.i64(0), e_.i64(p_.strips()), 1, units);
    });
    return {p_.units(), p_.strips() > 1 ? p_.units() * p_.tileBytes() : 0};
  }

 private:
  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  Reg add(Reg a, Reg c) { return e_.b.CreateAdd(a, c); }
  // The remainder of `number` by `base`, and what is left of it.
  Reg digit(Reg& number, int64_t base) {
    Reg low = e_.b.CreateURem(number, e_.i64(base));
    number = e_.b.CreateUDiv(number, e_.i64(base));
    return low;
  }

  // Positions at which a tap reads inside of x, and where it reads at position 0: tapRange() of ir/ops/weight_gradient.h.
  struct Range {
    Reg first, last, origin;
  };
  Range range(size_t d, Reg tap) {
    const int64_t stride = p_.window.stride[d];
    Reg offset = e_.b.CreateSub(mul(tap, p_.window.dilation[d]), e_.i64(p_.window.padBegin[d]));
    Reg before = e_.maxOf(e_.b.CreateNeg(offset), e_.i64(0));
    Reg inside = e_.maxOf(e_.b.CreateSub(e_.i64(p_.x.size[d] - 1 + stride), offset), e_.i64(0));
    return {e_.b.CreateUDiv(add(before, e_.i64(stride - 1)), e_.i64(stride)),
            e_.minOf(e_.i64(p_.dy.size[d]), e_.b.CreateUDiv(inside, e_.i64(stride))), offset};
  }

  // strip: null: all rows.
  void emitUnit(Reg unit, Reg strip, Reg x, Reg dy, Reg isFirst) {
    Reg rest = unit;
    Reg panel = digit(rest, p_.panels()), rowTile = digit(rest, p_.rowTiles()), group = digit(rest, p_.outerGroups()), tap = rest;
    Reg kx = digit(tap, p_.window.kernel[2]), ky = digit(tap, p_.window.kernel[1]);
    const Range z = range(0, tap), u = range(2, kx);
    Range v = range(1, ky);
    if (strip) {
      Reg top = mul(strip, p_.stripRows);
      v.first = e_.maxOf(v.first, top), v.last = e_.minOf(v.last, add(top, e_.i64(p_.stripRows)));
    }
    Reg waiting = strip ? e_.opaque(e_.at(e_.scratch(), mul(e_.b.CreateSub(unit, e_.begin()), p_.tileBytes()))) : nullptr;
    Reg row = mul(rowTile, p_.rows), column = mul(panel, p_.panel());
    Reg output = add(mul(group, p_.outputs()), column);
    Reg input = p_.depthwise ? output : add(mul(group, p_.inputs()), row);
    Reg left = e_.b.CreateSub(e_.i64(p_.outputs()), column);  // columns from here on
    Reg to = e_.at(e_.result(), mul(add(mul(add(mul(rest, p_.inputs()), row), p_.dy.channels), output), 4));
    x = e_.at(x, mul(input, 4));
    dy = e_.at(dy, mul(output, 4));
    const auto sumAndStore = [&](int64_t columns) {
      Values sums(usize(p_.rows * p_.vectors), e_.floats(0, p_.lanes));
      if (strip) takeUp(sums, waiting, e_.b.CreateICmpEQ(strip, e_.i64(0)));
      sums = e_.loop(z.first, z.last, 1, sums, [&](Reg pz, Values& planeSums) {
        planeSums = e_.loop(v.first, v.last, 1, planeSums, [&](Reg py, Values& rowSums) {
          Reg fromX = lineOf(p_.x, x, at(0, pz, z), at(1, py, v), at(2, e_.i64(0), u)), fromDy = lineOf(p_.dy, dy, pz, py, e_.i64(0));
          fromX = e_.opaque(fromX), fromDy = e_.opaque(fromDy);
          rowSums = e_.loop(u.first, u.last, 1, rowSums, [&](Reg px, Values& pixelSums) {
            accumulate(e_.at(fromX, mul(px, 4 * p_.window.stride[2] * p_.x.stride[2])), e_.at(fromDy, mul(px, 4 * p_.dy.stride[2])),
                       columns, pixelSums);
          });
        });
      });
      if (!strip) return store(sums, to, columns, isFirst);
      e_.ifThen(
          e_.b.CreateICmpEQ(strip, e_.i64(p_.strips() - 1)), [&] { store(sums, to, columns, isFirst); },
          [&] {
            for (size_t i = 0; i < sums.size(); ++i) e_.store(sums[i], e_.at(waiting, static_cast<int64_t>(4 * i) * p_.lanes));
          });
    };
    const int64_t tail = p_.outputs() % p_.panel();
    if (tail == 0) return sumAndStore(p_.panel());
    if (p_.panels() == 1) return sumAndStore(tail);
    e_.ifThen(e_.b.CreateICmpSGE(left, e_.i64(p_.panel())), [&] { sumAndStore(p_.panel()); }, [&] { sumAndStore(tail); });
  }

  // Sums of the strips before; the first begins with zeros.
  void takeUp(Values& sums, Reg waiting, Reg begins) {
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i] = e_.b.CreateSelect(begins, sums[i], e_.load(e_.f32(p_.lanes), e_.at(waiting, static_cast<int64_t>(4 * i) * p_.lanes)));
  }

  Reg at(size_t d, Reg p, const Range& r) { return add(mul(p, p_.window.stride[d]), r.origin); }
  Reg lineOf(const SpatialView& view, Reg base, Reg z, Reg y, Reg x) {
    return e_.at(base, mul(add(add(mul(z, view.stride[0]), mul(y, view.stride[1])), mul(x, view.stride[2])), 4));
  }

  // How many columns of the vector there are; 0: none, it is left out.
  int countOf(int64_t columns, int vector) const {
    return static_cast<int>(std::clamp<int64_t>(columns - int64_t{vector} * p_.lanes, 0, p_.lanes));
  }
  Reg loaded(Reg from, int64_t columns, int vector) {
    return loadUpTo(e_, e_.f32(p_.lanes), e_.at(from, int64_t{4} * vector * p_.lanes), countOf(columns, vector));
  }

  void accumulate(Reg x, Reg dy, int64_t columns, Values& sums) {
    for (int vector = 0; vector < p_.vectors; ++vector) {
      if (countOf(columns, vector) == 0) continue;
      Reg arrives = loaded(dy, columns, vector);
      for (int row = 0; row < p_.rows; ++row) {
        Reg factor = p_.depthwise ? loaded(x, columns, vector) : e_.splat(e_.load(e_.f32(), e_.at(x, int64_t{4} * row)), p_.lanes);
        Reg& sum = nth(sums, row * p_.vectors + vector);
        sum = e_.fma(factor, arrives, sum);
      }
    }
  }

  // The first image's sums are stored, the others' added.
  void store(const Values& sums, Reg to, int64_t columns, Reg isFirst) {
    const auto each = [&](bool adds) {
      for (int row = 0; row < p_.rows; ++row)
        for (int vector = 0; vector < p_.vectors; ++vector) {
          const int count = countOf(columns, vector);
          if (count == 0) continue;
          Reg place = e_.at(to, 4 * (row * p_.dy.channels + int64_t{vector} * p_.lanes)), sum = nth(sums, row * p_.vectors + vector);
          if (adds) sum = e_.b.CreateFAdd(loadUpTo(e_, e_.f32(p_.lanes), place, count), sum);
          storeUpTo(e_, sum, place, count);
        }
    };
    e_.ifThen(isFirst, [&] { each(false); }, [&] { each(true); });
  }

  KernelEmitter& e_;
  const WeightGradientPlan& p_;
};

std::optional<WeightGradientPlan> plan(const Node& node, const Target& target) {
  const TensorType &x = node.operand(0)->type(), &dy = node.operand(1)->type();
  if (!isPlainFloat(x) || !isPlainFloat(dy) || !x.isStatic() || !dy.isStatic() || node.result()->type().numElements() == 0)
    return std::nullopt;
  if (x.shape[0] == Dim(0)) return std::nullopt;
  return WeightGradientPlan(node, target.vectorBytes() / 4);
}

Work work(const WeightGradientPlan& plan, const Node&, const Target&) {
  const auto products = static_cast<double>(plan.dy.batch * plan.dy.pixels() * plan.units() * plan.rows * plan.vectors);
  const auto stores = static_cast<double>(plan.dy.batch * plan.units() * plan.rows * plan.vectors);
  return {{"call", 1}, {"product", products}, {"store", stores}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node&, const WeightGradientPlan& plan) { return WeightGradientEmitter(e, plan).emit(); }

}  // namespace

std::vector<KernelDef> weightGradientKernels() {
  return kernelsOf(KernelFamily<WeightGradientPlan>{
      .ops = {"conv_weight_gradient"}, .rows = {{"conv_weight_gradient"}}, .plan = plan, .work = work, .emit = emit});
}

}  // namespace qc
