// Convolution of floats to one to four channels, such as the last one of a network that makes images: vectors over the pixels of a
// row, since vectors over so few channels would stay mostly empty.  A unit is one row of the result.  The rows of the input that
// it needs are kept in scratch with the channels apart and zeros around, in a ring, so that the next unit brings in one row only.
// One FMA each in the order (ky, kx, channel), then bias, then `post`: the definition in ir/ops/conv.cpp.
// Tests: tests/kernels/thin_conv_test.cpp.
#include <algorithm>

#include "codegen/emit/copy.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/gemm.h"
#include "ir/epilogue_form.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;
using Ints = std::vector<int64_t>;

constexpr int64_t kMaxScratch = int64_t{1} << 20;

struct ThinConv {
  int64_t batch, inH, inW, channels, outputs, kernelH, kernelW, outH, outW, padTop, padLeft;

  explicit ThinConv(const ConvGeometry& g)
      : batch(g.batch),
        inH(g.inH),
        inW(g.inW),
        channels(g.channels),
        outputs(g.outputs),
        kernelH(g.kernelH),
        kernelW(g.kernelW),
        outH(g.outH),
        outW(g.outW),
        padTop(g.padTop),
        padLeft(g.padLeft) {}
  int64_t taps() const { return kernelH * kernelW * channels; }
};

// How a row is cut, and where things are in scratch (bytes).
struct ThinPlan {
  ThinConv conv;
  AnySize size;
  int lanes, vectors;     // of a block of pixels: enough chains of FMAs to hide their latency
  int64_t block, blocks;  // pixels; the last one may be partial
  Number whole, rest;     // blocks that are not; pixels of the one that is
  Number pitch;           // floats from one channel's row to the next
  Number weights, tail;   // where they begin, behind the rows; where a partial block does
  CopyPlan line;          // of the input, to the rows of its channels
  int64_t bytes;

  void eachNumber(const NumberVisitor& visit) {
    size.eachNumber(visit);
    for (Number* n : {&whole, &rest, &pitch, &weights, &tail}) visit(*n);
    line.eachNumber(visit);
  }
  std::string form() const { return fmt::format("{} blocks of {} vectors, lines by {}", size.rest, vectors, line.form()); }
  KernelShape shape() const { return {conv.batch * conv.outH, bytes}; }

  ThinPlan(const ThinConv& c, AnySize ofNode, int64_t vectorBytes)
      : conv(c), size(std::move(ofNode)), lanes(static_cast<int>(vectorBytes / 4)) {
    const bool free = size.outW.isFree;
    const int64_t most = c.outputs == 1 ? 8 : 12 / c.outputs, needed = (c.outW + lanes - 1) / lanes;
    vectors = static_cast<int>(std::min(most, free ? powerOfTwo(needed) : needed));  // few pieces of code for any width
    block = int64_t{lanes} * vectors;
    blocks = (c.outW + block - 1) / block;
    whole = c.outW / block, rest = c.outW % block;
    // Not a multiple of a page, where the channels would share their places in the cache.
    pitch = (blocks * block + c.kernelW - 1 + lanes - 1) / lanes * lanes;
    if (pitch.value % 256 == 0) pitch.value += lanes;
    weights = 4 * c.kernelH * c.channels * pitch.value;
    tail = weights.value + 4 * c.taps() * c.outputs;
    bytes = tail.value + 4 * block * c.outputs;
    for (Number* n : {&whole, &rest, &pitch, &weights, &tail}) n->isFree = free;
    const auto lineOf = [&](int64_t width, int64_t distance) -> StridedCopy {
      return {{c.channels, width}, {1, c.channels}, {distance, 1}};
    };
    const int64_t other = free ? 1 : 0;
    line = planCopy(lineOf(c.inW, pitch.value), lineOf(c.inW + other, pitch.value + other), 4, std::min<int64_t>(vectorBytes, 32));
  }

 private:
  static int64_t powerOfTwo(int64_t atLeast) {
    int64_t power = 1;
    while (power < atLeast) power *= 2;
    return power;
  }
};

class ThinConvEmitter {
 public:
  ThinConvEmitter(KernelEmitter& e, const Node& node, const ThinPlan& plan)
      : e_(e), conv_(plan.conv), plan_(plan), post_(EpilogueForm::of(node).formula()) {}

  KernelShape emit() {
    const ThinConv& c = conv_;
    outH_ = e_.number(plan_.size.outH), outW_ = e_.number(plan_.size.outW), inH_ = e_.number(plan_.size.inH);
    lineBytes_ = mul(e_.number(plan_.size.inW), 4), pitchBytes_ = mul(e_.number(plan_.pitch), 4);
    e_.fillBytes(e_.scratch(), e_.b.getInt8(0), e_.number(plan_.weights));
    // Weights (output, channel, ky, kx) in the order of use: (ky, kx, channel, output).
    const int64_t plane = c.kernelH * c.kernelW;
    emitBoxCopy(e_, {{plane, c.channels, c.outputs}, {1, plane, plane * c.channels}, {c.channels * c.outputs, c.outputs, 1}}, 4,
                e_.operand("w"), weights());
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg image = e_.b.CreateUDiv(unit, outH_), oy = e_.b.CreateURem(unit, outH_);
      stageRows(unit, image, oy);
      Reg out = e_.at(e_.result(), e_.b.CreateMul(unit, mul(outW_, 4 * c.outputs)));
      Reg whole = e_.number(plan_.whole), rest = e_.number(plan_.rest);
      const auto at = [&](Reg b) { return e_.at(out, mul(b, 4 * plan_.block * c.outputs)); };
      if (!plan_.whole.is(0)) e_.loop(e_.i64(0), whole, 1, [&](Reg b) { block(oy, b, at(b)); });
      if (plan_.rest.is(0)) return;
      e_.ifThen(e_.b.CreateICmpNE(rest, e_.i64(0)), [&] {
        Reg tail = e_.at(e_.scratch(), e_.number(plan_.tail));
        block(oy, whole, tail);
        e_.copyBytes(at(whole), tail, mul(rest, 4 * c.outputs));
      });
    });
    return {c.batch * c.outH, plan_.bytes};
  }

 private:
  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  Reg weights() { return e_.at(e_.scratch(), e_.number(plan_.weights)); }

  // Tap row ky of result row oy.
  Reg ringRow(Reg oy, Reg ky) {
    Reg slot = e_.b.CreateURem(e_.b.CreateAdd(oy, ky), e_.i64(conv_.kernelH));
    return e_.at(e_.scratch(), e_.b.CreateMul(slot, mul(pitchBytes_, conv_.channels)));
  }

  // The rows that the unit before did not leave behind.
  void stageRows(Reg unit, Reg image, Reg oy) {
    const ThinConv& c = conv_;
    Reg fresh = e_.b.CreateOr(e_.b.CreateICmpEQ(unit, e_.begin()), e_.b.CreateICmpEQ(oy, e_.i64(0)));
    Reg first = e_.b.CreateSelect(fresh, e_.i64(0), e_.i64(c.kernelH - 1));
    Reg source = e_.at(e_.operand(0), e_.b.CreateMul(image, mul(e_.b.CreateMul(inH_, lineBytes_), c.channels)));
    e_.loop(
        first, e_.i64(c.kernelH), 1,
        [&](Reg ky) {
          Reg iy = e_.b.CreateSub(e_.b.CreateAdd(oy, ky), e_.i64(c.padTop));
          Reg to = e_.opaque(e_.at(ringRow(oy, ky), 4 * c.padLeft));
          e_.ifThen(
              e_.b.CreateICmpULT(iy, inH_),
              [&] { emitBoxCopy(e_, plan_.line, e_.opaque(e_.at(source, e_.b.CreateMul(iy, mul(lineBytes_, c.channels)))), to); },
              [&] {
                e_.loop(
                    e_.i64(0), e_.i64(c.channels), 1,
                    [&](Reg channel) { e_.fillBytes(e_.at(to, e_.b.CreateMul(channel, pitchBytes_)), e_.b.getInt8(0), lineBytes_); }, true);
              });
        },
        true);
  }

  // One block of pixels of all outputs.
  void block(Reg oy, Reg index, Reg out) {
    const ThinConv& c = conv_;
    const auto outputs = usize(c.outputs), vectors = usize(plan_.vectors);
    Values acc(outputs * vectors, e_.floats(0, plan_.lanes));
    Reg factorsOfAll = weights();
    acc = e_.loop(
        e_.i64(0), e_.i64(c.kernelH), 1, acc,
        [&](Reg ky, Values& byRow) {
          Reg row = e_.at(ringRow(oy, ky), e_.b.CreateMul(index, e_.i64(4 * plan_.block)));
          byRow = e_.loop(
              e_.i64(0), e_.i64(c.kernelW), 1, byRow,
              [&](Reg kx, Values& byColumn) {
                Reg x = e_.opaque(e_.at(row, e_.b.CreateShl(kx, 2)));
                Reg tap = e_.b.CreateAdd(e_.b.CreateMul(ky, e_.i64(c.kernelW)), kx);
                Reg w = e_.opaque(e_.at(factorsOfAll, e_.b.CreateMul(tap, e_.i64(4 * c.channels * c.outputs))));
                byColumn = e_.loop(
                    e_.i64(0), e_.i64(c.channels), 1, byColumn,
                    [&](Reg channel, Values& sums) {
                      Reg source = e_.at(x, e_.b.CreateMul(channel, pitchBytes_));
                      Reg factors = e_.at(w, e_.b.CreateMul(channel, e_.i64(4 * c.outputs)));
                      Values pixels;
                      for (size_t v = 0; v < vectors; ++v)
                        pixels.push_back(e_.load(e_.f32(plan_.lanes), e_.at(source, static_cast<int64_t>(v) * 4 * plan_.lanes)));
                      for (size_t o = 0; o < outputs; ++o) {
                        Reg factor = e_.splat(e_.load(e_.f32(), e_.at(factors, static_cast<int64_t>(o) * 4)), plan_.lanes);
                        for (size_t v = 0; v < vectors; ++v) sums[o * vectors + v] = e_.fma(pixels[v], factor, sums[o * vectors + v]);
                      }
                    },
                    true);
              },
              true);
        },
        true);
    for (size_t v = 0; v < vectors; ++v) {
      Values parts;
      for (size_t o = 0; o < outputs; ++o) parts.push_back(finished(acc[o * vectors + v], static_cast<int64_t>(o)));
      e_.store(outputs == 1 ? parts[0] : interleaved(e_, parts), e_.at(out, static_cast<int64_t>(v) * 4 * plan_.lanes * c.outputs));
    }
  }

  Reg finished(Reg sum, int64_t output) {
    if (e_.operand("bias")) sum = e_.b.CreateFAdd(sum, e_.splat(e_.load(e_.f32(), e_.at(e_.operand("bias"), 4 * output)), plan_.lanes));
    return e_.expression(post_, {{sum}});
  }

  KernelEmitter& e_;
  const ThinConv& conv_;
  const ThinPlan& plan_;
  ScalarExpr post_;
  Reg outH_ = nullptr, outW_ = nullptr, inH_ = nullptr, lineBytes_ = nullptr, pitchBytes_ = nullptr;  // bytes of one channel
};

bool allOnes(const Ints& list) {
  return std::all_of(list.begin(), list.end(), [](int64_t v) { return v == 1; });
}

std::optional<GemmProblem> problemOf(const Node& node) {
  const TensorType &x = node.operand(0)->type(), &w = node.operand(1)->type(), &y = node.result()->type();
  if (!isPlainFloat(x) || !isPlainFloat(w) || !isPlainFloat(y) || x.rank() != 4 || node.string("layout") != "channels_last")
    return std::nullopt;
  if (node.operand("residual") || node.integer("group") != 1 || !allOnes(node.integers("strides")) || !allOnes(node.integers("dilations")))
    return std::nullopt;
  if (x.numElements() == 0 || y.numElements() == 0 || w.shape[0].size() > 4) return std::nullopt;
  const Result<GemmProblem> problem = GemmProblem::of(node);
  return problem ? std::optional(*problem) : std::nullopt;
}

ThinPlan planOf(const GemmProblem& problem, const Target& target) {
  return ThinPlan(ThinConv(problem.conv), problem.size, target.vectorBytes());
}

std::optional<ThinPlan> plan(const Node& node, const Target& target) {
  const std::optional<GemmProblem> problem = problemOf(node);
  if (!problem) return std::nullopt;
  ThinPlan plan = planOf(*problem, target);
  if (plan.conv.outW < 16 || plan.bytes > kMaxScratch) return std::nullopt;
  return plan;
}

std::optional<ThinPlan> planUsual(const Node& node, const Target& target) {
  const std::optional<GemmProblem> problem = problemOf(node), usual = problem ? problem->usual() : std::nullopt;
  if (!usual) return std::nullopt;
  return planOf(*usual, target);
}

Work work(const ThinPlan& plan, const Node& node, const Target&) {
  const ThinConv& c = plan.conv;
  const auto rows = static_cast<double>(c.batch * c.outH), vectors = rows * static_cast<double>(plan.blocks * plan.vectors);
  return {{"call", 1},
          {"product", vectors * static_cast<double>(c.taps() * c.outputs)},
          {"load", vectors * static_cast<double>(c.taps())},
          {"store", vectors * static_cast<double>(c.outputs)},
          {"staged_element", rows * static_cast<double>(c.inW * c.channels)},
          {"post", vectors * static_cast<double>(c.outputs) * postInstructions(node)}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const ThinPlan& plan) { return ThinConvEmitter(e, node, plan).emit(); }

}  // namespace

std::vector<KernelDef> thinConvKernels() {
  return kernelsOf(KernelFamily<ThinPlan>{.ops = {"conv"},
                                          .rows = {{"thin_conv_f32", isaBit(Isa::avx2)}},
                                          .plan = plan,
                                          .planUsual = planUsual,
                                          .work = work,
                                          .onlyNumbers = servesAnySize<ThinPlan>,
                                          .emit = emit});
}

}  // namespace qc
