// roi_align of floats.  A unit is a vector of bins of one box, whose samples are placed once and read in all channels; their sums are in
// scratch memory meanwhile.  The meaning is that of ir/ops/sampling.cpp.  Tests: tests/kernels/roi_align_test.cpp.
#include <array>
#include <limits>

#include "codegen/emit/index.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/kernel_family.h"
#include "ir/ops/sampling.h"

namespace qc {
namespace {

struct AlignedBoxes {
  Number boxes, images, channels, height, width;
  int64_t bins = 1;  // of a box
  int lanes = 1;

  int64_t vectors() const { return (bins + lanes - 1) / lanes; }
  void eachNumber(const NumberVisitor& visit) { visit(boxes), visit(images), visit(channels), visit(height), visit(width); }
  std::string form() const { return fmt::format("{} bins", lanes); }
  KernelShape shape() const { return {boxes.value * vectors(), channels.value * lanes * 4}; }
};

std::optional<AlignedBoxes> planAlignedBoxes(const Node& node, const Target& target) {
  const TensorType &x = node.operand(0)->type(), &y = node.result()->type();
  if (!isPlainFloat(x) || x.numElements() == 0 || y.numElements() == 0) return std::nullopt;
  AlignedBoxes plan{Number(y.shape[0]), Number(x.shape[0]), Number(x.shape[1]),
                    Number(x.shape[2]), Number(x.shape[3]), node.integer("output_height") * node.integer("output_width")};
  plan.lanes = laneCount(target.vectorBytes() / 4, plan.bins);
  if (plan.height.value * plan.width.value > kMaxGatheredElements) return std::nullopt;
  return plan;
}

// Where data says how many samples a bin has, as many as on most maps of features.
Work workOfAlignedBoxes(const AlignedBoxes& plan, const Node& node, const Target&) {
  constexpr int64_t kUsual = 2;
  const int64_t along = node.integer("sampling_ratio") ? node.integer("sampling_ratio") : kUsual;
  const auto vectors = static_cast<double>(plan.boxes.value * plan.vectors()), samples = vectors * static_cast<double>(along * along);
  const auto channels = static_cast<double>(plan.channels.value);
  return {{"call", 1}, {"box", vectors}, {"sample", samples}, {"read", samples * channels * plan.lanes}, {"vector", vectors * channels}};
}

// One side of a box, in registers: where its bins begin, how long they are, how many samples each has.
struct BoxSide {
  Reg start, bin;  // float
  Reg samples;     // i64, at least 0
  Reg samplesAsFloat;
};

// The neighbours of a position in one dim, in lanes, and the share of the one above.
struct Neighbours {
  Reg below, above, share;
  Reg inside;  // i1: else it is of no image
};

class RoiAlignEmitter {
 public:
  RoiAlignEmitter(KernelEmitter& e, const Node& node, const AlignedBoxes& plan) : e_(e), node_(node), plan_(plan) {}

  KernelShape emit() {
    llvm::IRBuilder<>& b = e_.b;
    const int lanes = plan_.lanes;
    const int64_t columns = node_.integer("output_width"), vectors = plan_.vectors();
    Reg channels = e_.number(plan_.channels), images = e_.number(plan_.images);
    Reg plane = b.CreateMul(e_.number(plan_.height), e_.number(plan_.width));
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg box = b.CreateUDiv(unit, e_.i64(vectors)), first = b.CreateMul(b.CreateURem(unit, e_.i64(vectors)), e_.i64(lanes));
      Reg image = loadInteger(e_, node_, 2, box), isBad = b.CreateICmpUGE(image, images);
      e_.refuse(isBad, "a box is of an image that there is not");
      image = b.CreateSelect(isBad, e_.i64(0), image);
      const BoxSide down = side(box, 1, node_.integer("output_height")), across = side(box, 0, columns);
      Reg bin = countedLanes(e_, b.CreateTrunc(first, b.getInt32Ty()), e_.i32c(plan_.bins - 1), lanes);
      Reg row = b.CreateUDiv(bin, e_.ints(columns, bin->getType())), column = b.CreateURem(bin, e_.ints(columns, bin->getType()));
      Reg start = e_.floats(isLargest() ? std::numeric_limits<float>::lowest() : 0.f, lanes);
      e_.loop(e_.i64(0), channels, 1, [&](Reg c) { e_.store(start, sumOf(c)); }, true);
      Reg planes = e_.at(e_.operand(0), b.CreateMul(b.CreateMul(image, channels), b.CreateShl(plane, 2)));
      e_.loop(e_.i64(0), down.samples, 1, [&](Reg v) {
        const Neighbours y = neighbours(position(down, row, v), plan_.height);
        e_.loop(e_.i64(0), across.samples, 1,
                [&](Reg u) { addSample(planes, plane, channels, y, neighbours(position(across, column, u), plan_.width)); });
      });
      Reg count = b.CreateMul(down.samples, across.samples), number = e_.splat(b.CreateSIToFP(count, b.getFloatTy()), lanes);
      Reg isEmpty = b.CreateICmpEQ(count, e_.i64(0)), rest = b.CreateSub(e_.i64(plan_.bins), first);
      e_.loop(
          e_.i64(0), channels, 1,
          [&](Reg c) {
            Reg all = e_.load(e_.f32(lanes), sumOf(c));
            all = b.CreateSelect(isEmpty, e_.floats(0, lanes), isLargest() ? all : b.CreateFDiv(all, number));
            Reg place = b.CreateAdd(b.CreateMul(b.CreateAdd(b.CreateMul(box, channels), c), e_.i64(plan_.bins)), first);
            Reg to = e_.at(e_.result(), b.CreateShl(place, 2));
            storeLeft(e_, all, to, rest);
          },
          true);
    });
    return plan_.shape();
  }

 private:
  bool isLargest() const { return node_.string("mode") == "max"; }
  Reg sumOf(Reg channel) { return e_.at(e_.scratch(), e_.b.CreateMul(channel, e_.i64(int64_t{4} * plan_.lanes))); }
  Reg constant(double v) { return llvm::ConstantFP::get(e_.b.getFloatTy(), static_cast<float>(v)); }

  // From number `from` of a box to the one two further.
  BoxSide side(Reg box, int64_t from, int64_t bins) {
    llvm::IRBuilder<>& b = e_.b;
    const bool halfPixel = node_.string("coordinate_transformation_mode") == "half_pixel";
    const auto edge = [&](int64_t i) {
      Reg given = e_.load(b.getFloatTy(), e_.at(e_.operand(1), b.CreateAdd(b.CreateShl(box, 4), e_.i64(4 * i))));
      return b.CreateFSub(b.CreateFMul(given, constant(node_.real("spatial_scale"))), constant(halfPixel ? 0.5 : 0));
    };
    Reg start = edge(from), length = b.CreateFSub(edge(from + 2), start);
    if (!halfPixel) length = b.CreateSelect(b.CreateFCmpOLT(length, constant(1)), constant(1), length);
    Reg bin = b.CreateFDiv(length, constant(static_cast<double>(bins)));
    const auto isFinite = [&](Reg v) {
      return b.CreateFCmpOLT(b.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, v), constant(std::numeric_limits<float>::infinity()));
    };
    Reg isBad = b.CreateNot(b.CreateAnd(isFinite(start), isFinite(bin)));
    e_.refuse(isBad, "a side of a box is no number");
    Reg samples = e_.i64(node_.integer("sampling_ratio"));
    if (node_.integer("sampling_ratio") == 0) {
      Reg isLong = b.CreateFCmpOGT(bin, constant(kMaxBin));
      e_.refuse(isLong, fmt::format("a box has more than {} samples for each bin", kMaxBin));
      isBad = b.CreateOr(isBad, isLong);
      Reg whole = b.CreateExtractElement(e_.ceil(e_.splat(b.CreateSelect(isBad, constant(0), bin), 1)), uint64_t{0});
      samples =
          e_.maxOf(b.CreateFPToSI(b.CreateSelect(b.CreateFCmpOGT(whole, constant(0)), whole, constant(0)), b.getInt64Ty()), e_.i64(0));
    }
    samples = b.CreateSelect(isBad, e_.i64(0), samples);
    return {start, bin, samples, b.CreateSIToFP(samples, b.getFloatTy())};
  }

  // Where sample number `sample` of the bins lies.
  Reg position(const BoxSide& side, Reg bins, Reg sample) {
    llvm::IRBuilder<>& b = e_.b;
    const auto all = [&](Reg v) { return e_.splat(v, plan_.lanes); };
    Reg within = b.CreateFMul(b.CreateFAdd(b.CreateSIToFP(sample, b.getFloatTy()), constant(0.5)), side.bin);
    Reg begin = b.CreateFAdd(all(side.start), b.CreateFMul(e_.toFloat(bins), all(side.bin)));
    return b.CreateFAdd(begin, all(b.CreateFDiv(within, side.samplesAsFloat)));
  }

  Neighbours neighbours(Reg at, const Number& size) {
    llvm::IRBuilder<>& b = e_.b;
    const int lanes = plan_.lanes;
    Reg wide = e_.number(size), narrow = b.CreateTrunc(wide, b.getInt32Ty()), real = e_.splat(b.CreateSIToFP(wide, b.getFloatTy()), lanes);
    Reg zero = e_.floats(0, lanes);
    Reg inside = b.CreateAnd(b.CreateFCmpOGE(at, e_.floats(-1, lanes)), b.CreateFCmpOLE(at, real));
    at = b.CreateSelect(inside, b.CreateSelect(b.CreateFCmpOLT(at, zero), zero, at), zero);
    Reg last = e_.splat(b.CreateSub(narrow, b.getInt32(1)), lanes), whole = b.CreateFPToSI(at, e_.i32(lanes));
    Reg isLast = b.CreateICmpSGE(whole, last), below = b.CreateSelect(isLast, last, whole);
    return {below, b.CreateSelect(isLast, last, b.CreateAdd(whole, e_.ints(1, whole->getType()))),
            b.CreateSelect(isLast, zero, b.CreateFSub(at, e_.toFloat(whole))), inside};
  }

  // A sample of every bin, to the sums or largest of all channels.
  void addSample(Reg planes, Reg plane, Reg channels, const Neighbours& y, const Neighbours& x) {
    llvm::IRBuilder<>& b = e_.b;
    const int lanes = plan_.lanes;
    Reg one = e_.floats(1, lanes), none = e_.floats(0, lanes), inside = b.CreateAnd(y.inside, x.inside);
    Reg origin = e_.ints(0, e_.i32(lanes)), width = e_.splat(b.CreateTrunc(e_.number(plan_.width), b.getInt32Ty()), lanes);
    const std::array rows{std::pair{y.below, b.CreateFSub(one, y.share)}, std::pair{y.above, y.share}};
    const std::array columns{std::pair{x.below, b.CreateFSub(one, x.share)}, std::pair{x.above, x.share}};
    std::vector<std::pair<Reg, Reg>> corners;  // places and weights
    for (const auto& [row, high] : rows)
      for (const auto& [column, wide] : columns)
        corners.emplace_back(b.CreateSelect(inside, b.CreateAdd(b.CreateMul(row, width), column), origin),
                             b.CreateSelect(inside, b.CreateFMul(high, wide), none));
    e_.loop(
        e_.i64(0), channels, 1,
        [&](Reg c) {
          Reg from = e_.at(planes, b.CreateMul(c, b.CreateShl(plane, 2))), all = e_.load(e_.f32(lanes), sumOf(c));
          for (const auto& [place, weight] : corners) {
            Reg term = b.CreateFMul(weight, gatheredFloats(e_, from, place));
            all = isLargest() ? b.CreateSelect(b.CreateFCmpOLT(all, term), term, all) : b.CreateFAdd(all, term);
          }
          e_.store(all, sumOf(c));
        },
        true);
  }

  KernelEmitter& e_;
  const Node& node_;
  const AlignedBoxes& plan_;
};

Result<KernelShape> emitRoiAlign(KernelEmitter& e, const Node& node, const AlignedBoxes& plan) {
  return RoiAlignEmitter(e, node, plan).emit();
}

}  // namespace

std::vector<KernelDef> roiAlignKernels() {
  return kernelsOf(KernelFamily<AlignedBoxes>{.ops = {"roi_align"},
                                              .rows = {{"roi_align"}},
                                              .plan = planAlignedBoxes,
                                              .work = workOfAlignedBoxes,
                                              .onlyNumbers = always<AlignedBoxes>,
                                              .emit = emitRoiAlign});
}

}  // namespace qc
