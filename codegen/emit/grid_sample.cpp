// grid_sample of floats.  A unit is a vector of positions of one image: where they lead is worked out once, then every channel's plane is
// read there.  The meaning is that of ir/ops/sampling.h and .cpp.  Tests: tests/kernels/grid_sample_test.cpp.
#include <algorithm>
#include <array>

#include "codegen/emit/index.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/sampling.h"

namespace qc {
namespace {

struct SampledImages {
  Number images, channels, positions;
  std::vector<Number> sizes;  // of the image, outermost first
  int taps = 1;               // along each dim
  int width = 1;

  int64_t vectors() const { return (positions.value + width - 1) / width; }
  int64_t corners() const {
    int64_t n = 1;
    for (size_t d = 0; d < sizes.size(); ++d) n *= taps;
    return n;
  }
  void eachNumber(const NumberVisitor& visit) {
    visit(images), visit(channels), visit(positions);
    for (Number& size : sizes) visit(size);
  }
  std::string form() const { return fmt::format("{} positions", width); }
  KernelShape shape() const { return {images.value * vectors(), 0}; }
};

std::optional<SampledImages> planSampledImages(const Node& node, const Target& target) {
  constexpr int64_t kMostCorners = 64;
  const TensorType &x = node.operand(0)->type(), &grid = node.operand(1)->type(), &y = node.result()->type();
  if (!isPlainFloat(x) || !isPlainFloat(grid) || x.numElements() == 0 || y.numElements() == 0) return std::nullopt;
  SampledImages plan{Number(x.shape[0]), Number(x.shape[1]), product(std::span(y.shape).subspan(2)), {}};
  Number plane = 1;
  for (const Dim& dim : std::span(x.shape).subspan(2)) plane = plane * plan.sizes.emplace_back(dim);
  plan.taps = static_cast<int>(sampledTaps(node).size());
  plan.width = laneCount(target.vectorBytes() / 4, plan.positions);
  if (plan.corners() > kMostCorners || plane.value > kMaxGatheredElements) return std::nullopt;
  return plan;
}

Work workOfSampledImages(const SampledImages& plan, const Node& node, const Target&) {
  const auto vectors = static_cast<double>(plan.images.value * plan.vectors()), channels = static_cast<double>(plan.channels.value);
  const auto corners = static_cast<double>(plan.corners());
  const double turned = node.string("padding_mode") == "reflection" ? vectors : 0;
  return {{"call", 1},
          {"tap", vectors * static_cast<double>(plan.sizes.size()) * plan.taps},
          {"turned", turned * static_cast<double>(plan.sizes.size()) * plan.taps},
          {"vector", vectors * channels},
          {"read", vectors * channels * corners * plan.width}};
}

// What a vector of positions reads along one dim.
struct SampledLanes {
  Reg place;  // in the plane, in elements
  Reg weight;
  Reg outside;  // i1 lanes; null: nowhere
};

class GridSampleEmitter {
 public:
  GridSampleEmitter(KernelEmitter& e, const Node& node, const SampledImages& plan)
      : e_(e), plan_(plan), taps_(sampledTaps(node)), hasZeros_(node.string("padding_mode") == "zeros") {}

  KernelShape emit() {
    llvm::IRBuilder<>& b = e_.b;
    Reg positions = e_.number(plan_.positions), channels = e_.number(plan_.channels), plane = e_.i64(1);
    for (const Number& size : plan_.sizes) plane = b.CreateMul(plane, e_.number(size));
    Reg vectors = b.CreateUDiv(b.CreateAdd(positions, e_.i64(plan_.width - 1)), e_.i64(plan_.width));
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg image = b.CreateUDiv(unit, vectors), first = b.CreateMul(b.CreateURem(unit, vectors), e_.i64(plan_.width));
      lead(b.CreateMul(image, positions), first, positions);
      Reg firstPlane = b.CreateMul(image, channels), count = b.CreateSub(positions, first);
      e_.loop(
          e_.i64(0), channels, 1,
          [&](Reg channel) {
            Reg number = b.CreateAdd(firstPlane, channel);
            Reg sum = sampled(e_.at(e_.operand(0), b.CreateMul(number, b.CreateMul(plane, e_.i64(4)))), 0, 0);
            Reg to = e_.at(e_.result(), b.CreateShl(b.CreateAdd(b.CreateMul(number, positions), first), 2));
            storeLeft(e_, sum, to, count);
          },
          true);
    });
    return plan_.shape();
  }

 private:
  // Works out where the positions from `first` on lead; what is beyond the last one is read as it.
  void lead(Reg before, Reg first, Reg positions) {
    llvm::IRBuilder<>& b = e_.b;
    const int width = plan_.width;
    const auto rank = static_cast<int64_t>(plan_.sizes.size());
    Reg lane = countedLanes(e_, first, b.CreateSub(positions, e_.i64(1)), width);
    Reg from = b.CreateMul(b.CreateAdd(lane, e_.splat(before, width)), e_.ints(rank, e_.i64s(width)));
    dims_.assign(plan_.sizes.size(), {});
    llvm::Type* whole = e_.i32(width);
    Reg stride = b.getInt32(1);
    for (size_t d = plan_.sizes.size(); d-- > 0;) {
      Reg size = e_.number(plan_.sizes[d]), narrow = b.CreateTrunc(size, b.getInt32Ty());
      Reg grid = gatheredFloats(e_, e_.at(e_.operand(1), 4 * (rank - 1 - static_cast<int64_t>(d))), from);
      const std::array args{grid, e_.splat(b.CreateSIToFP(size, e_.b.getFloatTy()), width)};
      Reg edge = e_.splat(b.CreateSub(narrow, b.getInt32(1)), width), zero = llvm::Constant::getNullValue(whole);
      for (const SampledTap& tap : taps_) {
        Reg index = b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, b.CreateFPToSI(e_.expression(tap.index, args), whole), edge);
        Reg outside = hasZeros_ ? b.CreateICmpSLT(index, zero) : nullptr;
        if (outside) index = b.CreateSelect(outside, zero, index);
        dims_[d].push_back({b.CreateMul(index, e_.splat(stride, width)), e_.expression(tap.weight, args), outside});
      }
      stride = b.CreateMul(stride, narrow);
    }
    places_.clear();
    join(0, llvm::Constant::getNullValue(whole));
  }

  // The places of all corners, in the order in which sampled() comes to them.
  void join(size_t d, Reg place) {
    if (d == dims_.size()) return places_.push_back(place);
    for (const SampledLanes& tap : dims_[d]) join(d + 1, e_.b.CreateAdd(place, tap.place));
  }

  // The weighted sum over dim d and those inside it.
  Reg sampled(Reg plane, size_t d, size_t corner) {
    if (d == dims_.size()) return gatheredFloats(e_, plane, places_[corner]);
    size_t within = 1;
    for (size_t i = d + 1; i < dims_.size(); ++i) within *= dims_[i].size();
    Reg zero = e_.floats(0, plan_.width), sum = zero;
    for (const SampledLanes& tap : dims_[d]) {
      Reg inner = sampled(plane, d + 1, corner);
      if (tap.outside) inner = e_.b.CreateSelect(tap.outside, zero, inner);
      sum = e_.b.CreateFAdd(sum, e_.b.CreateFMul(tap.weight, inner));
      corner += within;
    }
    return sum;
  }

  KernelEmitter& e_;
  const SampledImages& plan_;
  const std::vector<SampledTap> taps_;
  const bool hasZeros_;
  std::vector<std::vector<SampledLanes>> dims_;  // outermost first, taps in the order of their sum
  std::vector<Reg> places_;
};

Result<KernelShape> emitGridSample(KernelEmitter& e, const Node& node, const SampledImages& plan) {
  return GridSampleEmitter(e, node, plan).emit();
}

}  // namespace

std::vector<KernelDef> gridSampleKernels() {
  return kernelsOf(KernelFamily<SampledImages>{.ops = {"grid_sample"},
                                               .rows = {{"grid_sample"}},
                                               .plan = planSampledImages,
                                               .work = workOfSampledImages,
                                               .onlyNumbers = always<SampledImages>,
                                               .emit = emitGridSample});
}

}  // namespace qc
