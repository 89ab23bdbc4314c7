// max_pool_gradient: what arrives at a window goes to its first largest element.  A unit is some channels of one image, which no other unit
// writes; a vector of channels looks for its own largest elements tap by tap, and adds where each lane found it.
// The order is that of the evaluation in ir/ops/pool.cpp.  Tests: tests/kernels/pool_gradient_test.cpp.
#include <limits>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/window.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;

struct PoolGradientPlan {
  SpatialView x, dy;
  Window window;
  int lanes;

  PoolGradientPlan(const Node& node, int vectorLanes)
      : x(node.operand(0)->type().sizes(), true),
        dy(node.operand(1)->type().sizes(), true),
        window(alignedToView(Window::of(node.attrs(), node.integers("kernel_shape")))),
        lanes(vectorLanes) {}

  int64_t panels() const { return (x.channels + lanes - 1) / lanes; }
  int64_t units() const { return x.batch * panels(); }
};

class PoolGradientEmitter {
 public:
  PoolGradientEmitter(KernelEmitter& e, const PoolGradientPlan& plan) : e_(e), p_(plan) {}

  KernelShape emit() {
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg panel = e_.b.CreateURem(unit, e_.i64(p_.panels())), image = e_.b.CreateUDiv(unit, e_.i64(p_.panels()));
      Reg channel = mul(panel, 4 * p_.lanes);
      Reg x = e_.at(e_.at(e_.operand(0), mul(image, 4 * p_.x.batchStride)), channel);
      Reg dy = e_.at(e_.at(e_.operand(1), mul(image, 4 * p_.dy.batchStride)), channel);
      Reg dx = e_.at(e_.at(e_.result(), mul(image, 4 * p_.x.batchStride)), channel);
      const auto tail = static_cast<int>(p_.x.channels % p_.lanes);
      if (tail == 0 || p_.panels() == 1) return emitUnit(x, dy, dx, tail ? tail : p_.lanes);
      e_.ifThen(
          e_.b.CreateICmpULT(panel, e_.i64(p_.panels() - 1)), [&] { emitUnit(x, dy, dx, p_.lanes); }, [&] { emitUnit(x, dy, dx, tail); });
    });
    return {p_.units(), 0};
  }

 private:
  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  Reg add(Reg a, Reg c) { return e_.b.CreateAdd(a, c); }
  Reg pixel(const SpatialView& view, Reg base, const Values& at) {
    return e_.at(base, mul(add(add(mul(at[0], view.stride[0]), mul(at[1], view.stride[1])), mul(at[2], view.stride[2])), 4));
  }

  void emitUnit(Reg x, Reg dy, Reg dx, int count) {
    eachOf(p_.x, [&](const Values& at) { storeUpTo(e_, e_.floats(0, p_.lanes), pixel(p_.x, dx, at), count); });
    eachOf(p_.dy, [&](const Values& at) { emitWindow(at, x, pixel(p_.dy, dy, at), dx, count); });
  }

  void eachOf(const SpatialView& view, const std::function<void(const Values&)>& body) {
    e_.loop(e_.i64(0), e_.i64(view.size[0]), 1, [&](Reg z) {
      e_.loop(e_.i64(0), e_.i64(view.size[1]), 1,
              [&](Reg y) { e_.loop(e_.i64(0), e_.i64(view.size[2]), 1, [&](Reg px) { body({z, y, px}); }); });
    });
  }

  // Calls visit(number of the tap, its pixel of x) for the taps inside, with values carried from one to the next.
  Values taps(const Values& at, Values carried, const std::function<void(Reg, const Values&, Values&)>& visit) {
    Values first, last, origin;
    for (size_t d = 0; d < 3; ++d) {
      const int64_t dilation = p_.window.dilation[d];
      Reg from = e_.b.CreateSub(mul(at[d], p_.window.stride[d]), e_.i64(p_.window.padBegin[d]));
      const auto tapsBelow = [&](Reg room) {
        return e_.b.CreateUDiv(add(e_.maxOf(room, e_.i64(0)), e_.i64(dilation - 1)), e_.i64(dilation));
      };
      origin.push_back(from);
      first.push_back(tapsBelow(e_.b.CreateNeg(from)));
      last.push_back(e_.minOf(tapsBelow(e_.b.CreateSub(e_.i64(p_.x.size[d]), from)), e_.i64(p_.window.kernel[d])));
    }
    const auto place = [&](size_t d, Reg tap) { return add(origin[d], mul(tap, p_.window.dilation[d])); };
    return e_.loop(first[0], last[0], 1, std::move(carried), [&](Reg kz, Values& planes) {
      planes = e_.loop(first[1], last[1], 1, planes, [&](Reg ky, Values& rows) {
        rows = e_.loop(first[2], last[2], 1, rows, [&](Reg kx, Values& inner) {
          Reg number = add(mul(add(mul(kz, p_.window.kernel[1]), ky), p_.window.kernel[2]), kx);
          visit(number, {place(0, kz), place(1, ky), place(2, kx)}, inner);
        });
      });
    });
  }

  void emitWindow(const Values& at, Reg x, Reg dy, Reg dx, int count) {
    const auto splat = [&](Reg number) { return e_.splat(e_.b.CreateTrunc(number, e_.b.getInt32Ty()), p_.lanes); };
    Reg none = e_.ints(-1, e_.i32(p_.lanes));
    const Values found =
        taps(at, {e_.floats(-std::numeric_limits<float>::infinity(), p_.lanes), none}, [&](Reg number, const Values& from, Values& best) {
          Reg v = loadUpTo(e_, e_.f32(p_.lanes), pixel(p_.x, x, from), count);
          Reg larger = e_.b.CreateFCmpOGT(v, best[0]);
          best = {e_.b.CreateSelect(larger, v, best[0]), e_.b.CreateSelect(larger, splat(number), best[1])};
        });
    Reg arrives = loadUpTo(e_, e_.f32(p_.lanes), dy, count);
    taps(at, {}, [&](Reg number, const Values& to, Values&) {
      Reg place = pixel(p_.x, dx, to), before = loadUpTo(e_, e_.f32(p_.lanes), place, count);
      Reg here = e_.b.CreateICmpEQ(found[1], splat(number));
      storeUpTo(e_, e_.b.CreateSelect(here, e_.b.CreateFAdd(before, arrives), before), place, count);
    });
  }

  KernelEmitter& e_;
  const PoolGradientPlan& p_;
};

std::optional<PoolGradientPlan> plan(const Node& node, const Target& target) {
  const TensorType &x = node.operand(0)->type(), &dy = node.operand(1)->type();
  if (!isPlainFloat(x) || !isPlainFloat(dy) || !x.isStatic() || x.numElements() == 0 || node.string("layout") != "channels_last")
    return std::nullopt;
  return PoolGradientPlan(node, target.vectorBytes() / 4);
}

Work work(const PoolGradientPlan& plan, const Node&, const Target&) {
  const auto windows = static_cast<double>(plan.units() * plan.dy.pixels());
  return {{"call", 1}, {"window", windows}, {"tap", windows * static_cast<double>(plan.window.taps())}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node&, const PoolGradientPlan& plan) { return PoolGradientEmitter(e, plan).emit(); }

}  // namespace

std::vector<KernelDef> maxPoolGradientKernels() {
  return kernelsOf(KernelFamily<PoolGradientPlan>{
      .ops = {"max_pool_gradient"}, .rows = {{"max_pool_gradient"}}, .plan = plan, .work = work, .emit = emit});
}

}  // namespace qc
