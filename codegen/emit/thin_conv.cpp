// Convolution of floats to one to four channels, such as the last one of a network that makes images: vectors over the pixels of a
// row, since vectors over so few channels would stay mostly empty.  A unit is one row of the result.  The rows of the input that
// it needs are kept in scratch with the channels apart and zeros around, in a ring, so that the next unit brings in one row only.
// One FMA each in the order (ky, kx, channel), then bias, then `post`: the definition in ir/ops/conv.cpp.
// Tests: tests/kernels/thin_conv_test.cpp.
#include <algorithm>

#include "codegen/emit/copy.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/any_batch.h"
#include "codegen/plan/kernel_family.h"
#include "ir/epilogue_form.h"

namespace qc {
namespace {

using Values = KernelEmitter::Values;
using Ints = std::vector<int64_t>;

constexpr int64_t kMaxScratch = int64_t{1} << 20;

struct ThinConv {
  int64_t batch, inH, inW, channels, outputs, kernelH, kernelW, outH, outW, padTop, padLeft;

  explicit ThinConv(const Node& node) {
    const Ints x = node.operand(0)->type().sizes(), w = node.operand(1)->type().sizes(), y = node.result()->type().sizes();
    batch = x[0], inH = x[1], inW = x[2], channels = x[3];
    outputs = w[0], kernelH = w[2], kernelW = w[3];
    outH = y[1], outW = y[2];
    const Ints& pads = node.integers("pads");
    padTop = pads.empty() ? 0 : pads[0];
    padLeft = pads.empty() ? 0 : pads[1];
  }
  int64_t taps() const { return kernelH * kernelW * channels; }
};

// How a row is cut, and where things are in scratch (bytes).
struct ThinPlan {
  ThinConv conv;
  int lanes, vectors;     // of a block of pixels: enough chains of FMAs to hide their latency
  int64_t block, blocks;  // pixels; the last one may be partial
  int64_t pitch;          // floats from one channel's row to the next
  int64_t weights, tail, bytes;
  AnyBatch batch;

  void eachNumber(const NumberVisitor& visit) { visit(batch.images); }
  std::string form() const { return batch.sizes; }
  KernelShape shape() const { return {conv.batch * conv.outH, bytes}; }

  ThinPlan(const ThinConv& c, int vectorLanes, AnyBatch ofNode) : conv(c), lanes(vectorLanes), batch(std::move(ofNode)) {
    vectors = static_cast<int>(std::min<int64_t>(c.outputs == 1 ? 8 : 12 / c.outputs, (c.outW + lanes - 1) / lanes));
    block = int64_t{lanes} * vectors;
    blocks = (c.outW + block - 1) / block;
    // Not a multiple of a page, where the channels would share their places in the cache.
    pitch = (blocks * block + c.kernelW - 1 + lanes - 1) / lanes * lanes;
    if (pitch % 256 == 0) pitch += lanes;
    weights = 4 * c.kernelH * c.channels * pitch;
    tail = weights + 4 * c.taps() * c.outputs;
    bytes = tail + 4 * block * c.outputs;
  }
};

class ThinConvEmitter {
 public:
  ThinConvEmitter(KernelEmitter& e, const Node& node, const ThinPlan& plan)
      : e_(e), conv_(plan.conv), plan_(plan), post_(EpilogueForm::of(node).formula()) {}

  KernelShape emit() {
    const ThinConv& c = conv_;
    e_.fillBytes(e_.scratch(), e_.b.getInt8(0), e_.i64(plan_.weights));
    // Weights (output, channel, ky, kx) in the order of use: (ky, kx, channel, output).
    const int64_t plane = c.kernelH * c.kernelW;
    emitBoxCopy(e_, {{plane, c.channels, c.outputs}, {1, plane, plane * c.channels}, {c.channels * c.outputs, c.outputs, 1}}, 4,
                e_.operand("w"), e_.at(e_.scratch(), plan_.weights));
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg image = e_.b.CreateUDiv(unit, e_.i64(c.outH)), oy = e_.b.CreateURem(unit, e_.i64(c.outH));
      stageRows(unit, image, oy);
      Reg out = e_.at(e_.result(), e_.b.CreateMul(unit, e_.i64(4 * c.outW * c.outputs)));
      const int64_t whole = c.outW / plan_.block, rest = c.outW % plan_.block;
      const auto at = [&](Reg b) { return e_.at(out, e_.b.CreateMul(b, e_.i64(4 * plan_.block * c.outputs))); };
      if (whole) e_.loop(e_.i64(0), e_.i64(whole), 1, [&](Reg b) { block(oy, b, at(b)); }, true);
      if (!rest) return;
      Reg tail = e_.at(e_.scratch(), plan_.tail);
      block(oy, e_.i64(whole), tail);
      e_.copyBytes(at(e_.i64(whole)), tail, 4 * rest * c.outputs);
    });
    return {c.batch * c.outH, plan_.bytes};
  }

 private:
  // Tap row ky of result row oy.
  Reg ringRow(Reg oy, Reg ky) {
    Reg slot = e_.b.CreateURem(e_.b.CreateAdd(oy, ky), e_.i64(conv_.kernelH));
    return e_.at(e_.scratch(), e_.b.CreateMul(slot, e_.i64(4 * conv_.channels * plan_.pitch)));
  }

  // The rows that the unit before did not leave behind.
  void stageRows(Reg unit, Reg image, Reg oy) {
    const ThinConv& c = conv_;
    Reg fresh = e_.b.CreateOr(e_.b.CreateICmpEQ(unit, e_.begin()), e_.b.CreateICmpEQ(oy, e_.i64(0)));
    Reg first = e_.b.CreateSelect(fresh, e_.i64(0), e_.i64(c.kernelH - 1));
    Reg source = e_.at(e_.operand(0), e_.b.CreateMul(image, e_.i64(4 * c.inH * c.inW * c.channels)));
    e_.loop(
        first, e_.i64(c.kernelH), 1,
        [&](Reg ky) {
          Reg iy = e_.b.CreateSub(e_.b.CreateAdd(oy, ky), e_.i64(c.padTop));
          Reg to = e_.opaque(e_.at(ringRow(oy, ky), 4 * c.padLeft));
          e_.ifThen(
              e_.b.CreateICmpULT(iy, e_.i64(c.inH)),
              [&] {
                Reg from = e_.opaque(e_.at(source, e_.b.CreateMul(iy, e_.i64(4 * c.inW * c.channels))));
                emitBoxCopy(e_, {{c.channels, c.inW}, {1, c.channels}, {plan_.pitch, 1}}, 4, from, to);
              },
              [&] {
                e_.loop(
                    e_.i64(0), e_.i64(c.channels), 1,
                    [&](Reg channel) {
                      e_.fillBytes(e_.at(to, e_.b.CreateMul(channel, e_.i64(4 * plan_.pitch))), e_.b.getInt8(0), e_.i64(4 * c.inW));
                    },
                    true);
              });
        },
        true);
  }

  // One block of pixels of all outputs.
  void block(Reg oy, Reg index, Reg out) {
    const ThinConv& c = conv_;
    const auto outputs = usize(c.outputs), vectors = usize(plan_.vectors);
    Values acc(outputs * vectors, e_.floats(0, plan_.lanes));
    Reg weights = e_.at(e_.scratch(), plan_.weights);
    acc = e_.loop(
        e_.i64(0), e_.i64(c.kernelH), 1, acc,
        [&](Reg ky, Values& byRow) {
          Reg row = e_.at(ringRow(oy, ky), e_.b.CreateMul(index, e_.i64(4 * plan_.block)));
          byRow = e_.loop(
              e_.i64(0), e_.i64(c.kernelW), 1, byRow,
              [&](Reg kx, Values& byColumn) {
                Reg x = e_.opaque(e_.at(row, e_.b.CreateShl(kx, 2)));
                Reg tap = e_.b.CreateAdd(e_.b.CreateMul(ky, e_.i64(c.kernelW)), kx);
                Reg w = e_.opaque(e_.at(weights, e_.b.CreateMul(tap, e_.i64(4 * c.channels * c.outputs))));
                byColumn = e_.loop(
                    e_.i64(0), e_.i64(c.channels), 1, byColumn,
                    [&](Reg channel, Values& sums) {
                      Reg source = e_.at(x, e_.b.CreateMul(channel, e_.i64(4 * plan_.pitch)));
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
};

bool allOnes(const Ints& list) {
  return std::all_of(list.begin(), list.end(), [](int64_t v) { return v == 1; });
}

std::optional<ThinPlan> plan(const Node& node, const Target& target) {
  const TensorType &x = node.operand(0)->type(), &w = node.operand(1)->type(), &y = node.result()->type();
  if (!isPlainFloat(x) || !isPlainFloat(w) || !isPlainFloat(y) || x.rank() != 4 || node.string("layout") != "channels_last")
    return std::nullopt;
  if (node.operand("residual") || node.integer("group") != 1 || !allOnes(node.integers("strides")) || !allOnes(node.integers("dilations")))
    return std::nullopt;
  if (x.numElements() == 0 || y.numElements() == 0 || w.shape[0].size() > 4) return std::nullopt;
  const ThinConv c(node);
  const ThinPlan plan(c, target.vectorBytes() / 4, AnyBatch(node));
  if (c.outW < 16 || plan.bytes > kMaxScratch) return std::nullopt;
  return plan;
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
                                          .work = work,
                                          .onlyNumbers = servesAnyBatch<ThinPlan>,
                                          .emit = emit});
}

}  // namespace qc
