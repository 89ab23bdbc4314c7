// Depthwise convolution: one filter per channel, vectorised over channels.
//
// Integers: the bytes of four neighbouring taps are interleaved so that each 32-bit lane holds one channel's four taps, and
// multiplied by the packed weights four at a time.  The interleaving works within 128-bit lanes; its column order is the one
// ("quad") that the epilogue's packs undo.  Floats: one FMA per tap, in the order (kz, ky, kx).
// Channels that fill half a panel or less share it with those of the next pixels, whose bytes follow (Packing::copies): all
// loops then step over that many pixels at a time.
// A work unit is a strip of output rows of one plane.  Its input rows are copied into scratch with their padding, so that
// the loops know no borders and whole vectors may be read past the last channel.  Tests: tests/kernels.
#include <algorithm>

#include "codegen/emit/emit.h"
#include "codegen/emit/epilogue.h"
#include "codegen/emit/products.h"
#include "codegen/emit/stage_strip.h"
#include "codegen/emit/vector_loop.h"
#include "codegen/plan/gemm.h"

namespace qc {

namespace {

struct DepthwiseIsa {
  Product product;
  int lanes;    // 32-bit
  int vectors;  // of a panel, at most
  bool masks;   // loads and stores of a part of a vector
};

using Regs = std::vector<Reg>;

constexpr int64_t kStripBytes = 96 * 1024;  // of staged input

struct DepthwisePlan {
  DepthwiseIsa isa;
  ConvGeometry conv;
  Packing packing = {};
  AnySize size = {};
  Number stripRows = 1, strips = 1, stagedRows = 1, stagedWidth = 1;
  int tileColumns = 1;  // panels of output pixels of one row that share loads of weights

  int tilePixels() const { return tileColumns * packing.copies; }
  int64_t columns() const { return conv.channels * packing.copies; }  // of all panels, those that hold results
  StagedStrip strip() const;

  void eachNumber(const NumberVisitor& visit) {
    size.eachNumber(visit);
    visit(stripRows), visit(strips), visit(stagedRows), visit(stagedWidth);
  }
  std::string form() const { return fmt::format("{} {} panels of {} {}", size.rest, tileColumns, packing.str(), strip().form()); }
  KernelShape shape() const { return {conv.planes() * strips.value, strip().bytes()}; }
};

bool isReal(const DepthwiseIsa& isa) { return isa.product == Product::floats; }
// As multiplied.
DType inputOf(const DepthwiseIsa& isa) { return isReal(isa) ? DType::f32 : isa.product == Product::words ? DType::s16 : DType::u8; }

StagedStrip DepthwisePlan::strip() const { return {conv, size.inH, size.inW, stagedRows, stagedWidth, conv.channels, inputOf(isa)}; }

// The widest panel that wastes little: channels beyond the last need masks, or there must be none.
int panelVectors(const DepthwiseIsa& isa, int64_t channels) {
  if (channels <= isa.lanes) return 1;
  for (int v = isa.vectors; v > 1; v /= 2) {
    const bool fits = channels % (v * isa.lanes) == 0;
    if (fits || (isa.masks && (channels > v * isa.lanes / 2 || !isReal(isa)))) return v == 2 && !isReal(isa) ? 4 : v;
  }
  return 1;
}

// How many neighbouring pixels fill a panel together.  Without masks they must fill it to the last column.
int pixelsPerPanel(const DepthwiseIsa& isa, const ConvGeometry& g) {
  constexpr int kPacked = 4;  // vectors whose stores are packed to bytes
  const int64_t panel = kPacked * isa.lanes;
  if (isa.vectors < kPacked || g.strideW != 1 || (!isa.masks && panel % g.channels != 0)) return 1;
  return static_cast<int>(std::clamp<int64_t>(panel / g.channels, 1, std::max<int64_t>(g.outW, 1)));
}

DepthwisePlan planDepthwise(const DepthwiseIsa& isa, const GemmProblem& problem) {
  DepthwisePlan plan{.isa = isa, .conv = problem.conv, .size = problem.size};
  const ConvGeometry& g = plan.conv;
  const bool real = isReal(isa);
  // Interleaved columns need the packed stores of 8-bit results to put them back in order.
  const bool words = problem.words, interleaves = !real && !words && problem.packedResult;
  Packing& p = plan.packing;
  if (interleaves) p.copies = pixelsPerPanel(isa, g);
  const int vectors = real || interleaves ? panelVectors(isa, g.channels * p.copies) : 1;
  p.element = real ? DType::f32 : words ? DType::s16 : DType::s8;
  p.lanes = isa.lanes;
  p.panel = vectors * isa.lanes;
  p.group = p.runPad = real ? 1 : words ? 2 : 4;
  p.columns = interleaves && vectors == 4 ? Packing::Columns::quad : Packing::Columns::natural;
  p.taps = true;
  if (problem.wideWeights && p.element == DType::s8) p.halves = 2;
  const AnySize& size = plan.size;
  plan.stagedWidth = (g.outW - 1) * g.strideW + (g.kernelW - 1) * g.dilationW + 1;
  plan.stagedWidth.isFree = size.outW.isFree;
  const int64_t bytesPerRow = g.kernelD * plan.stagedWidth.value * g.channels * sizeOf(inputOf(isa));
  const int64_t reach = (g.kernelH - 1) * g.dilationH + 1;
  // Strips small enough for the second cache and enough of them for two threads.
  const int64_t most = std::max<int64_t>((kStripBytes / std::max<int64_t>(bytesPerRow, 1) - reach) / g.strideH + 1, 1);
  const int64_t stripRows = std::clamp<int64_t>(std::min(most, (g.outH + 3) / 4), 1, g.outH);
  plan.stripRows = stripRows;
  plan.strips = (g.outH + stripRows - 1) / stripRows;
  plan.stagedRows = (stripRows - 1) * g.strideH + reach;
  for (Number* n : {&plan.stripRows, &plan.strips, &plan.stagedRows}) n->isFree = size.outH.isFree || size.outW.isFree;
  plan.tileColumns = g.outW >= 2 * p.copies ? 2 : 1;
  return plan;
}

class Depthwise {
 public:
  Depthwise(KernelEmitter& e, const Node& node, const DepthwisePlan& plan)
      : e_(e),
        isa_(plan.isa),
        plan_(plan),
        real_(isReal(plan.isa)),
        products_(e, plan.isa.product, plan.isa.lanes, e.def().isas),
        g_(plan.conv),
        layout_(plan.packing, plan.conv),
        epilogue_(e, node, plan.packing),
        strip_(plan.strip()) {
    vectors_ = plan.packing.panel / isa_.lanes;
    bytes_ = sizeOf(strip_.element);
    pixel_ = strip_.pixelBytes();
    tail_ = plan.columns() % plan.packing.panel;
  }

  KernelShape emit() {
    Reg padding = real_ ? e_.floats(0, isa_.lanes)
                        : narrowed(e_, e_.splat(e_.operandParam(0, ParamField::zeroPoint), isa_.lanes * 4 / static_cast<int>(bytes_)),
                                   strip_.element);
    row_ = stagedRowBytes(e_, strip_), plane_ = stagedPlaneBytes(e_, strip_);
    outH_ = e_.number(plan_.size.outH), outW_ = e_.number(plan_.size.outW);
    Reg strips = e_.number(plan_.strips), stripRows = e_.number(plan_.stripRows);
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) {
      Reg plane = e_.b.CreateUDiv(unit, strips), strip = e_.b.CreateURem(unit, strips);
      Reg first = e_.b.CreateMul(strip, stripRows);
      Reg rows = e_.minOf(stripRows, e_.b.CreateSub(outH_, first));
      stageStrip(e_, strip_, {plane, first, nullptr, e_.i64(0), e_.i64(g_.kernelD)}, padding);
      e_.loop(e_.i64(0), rows, 1, [&](Reg row) { emitRow(plane, first, row); }, true);
    });
    return plan_.shape();
  }

 private:
  Reg mul(Reg a, int64_t c) { return e_.b.CreateMul(a, e_.i64(c)); }
  Reg mul(Reg a, Reg c) { return e_.b.CreateMul(a, c); }

  void emitRow(Reg plane, Reg first, Reg row) {
    Reg input = e_.at(e_.scratch(), mul(row, mul(row_, g_.strideH)));
    Reg firstPixel = mul(e_.b.CreateAdd(mul(plane, outH_), e_.b.CreateAdd(first, row)), outW_);
    e_.loop(
        e_.i64(0), e_.i64(layout_.panels()), 1,
        [&](Reg panel) {
          Reg column = mul(panel, plan_.packing.panel);
          Epilogue::Channels channels;
          if (e_.operand("scale")) channels.scale = e_.at(e_.operand("scale"), mul(column, 4));
          if (e_.operand("bias")) channels.bias = e_.at(e_.operand("bias"), mul(column, 4));
          if (tail_) {
            Reg valid = e_.i64((int64_t{1} << tail_) - 1);
            channels.valid = layout_.panels() == 1 ? valid
                                                   : e_.b.CreateSelect(e_.b.CreateICmpEQ(panel, e_.i64(layout_.panels() - 1)), valid,
                                                                       e_.b.getInt64(~uint64_t{0}));
          }
          Reg weights = e_.at(e_.operand("w"), mul(panel, layout_.panelElements() * sizeOf(plan_.packing.element)));
          Reg in = e_.at(input, mul(column, bytes_));
          // The last tile of the row overlaps the one before.
          e_.loop(
              e_.i64(0), outW_, plan_.tilePixels(),
              [&](Reg begin) {
                Reg x = e_.minOf(begin, e_.b.CreateSub(outW_, e_.i64(plan_.tilePixels())));
                const Regs acc = accumulate(e_.at(in, mul(x, g_.strideW * pixel_)), weights, channels.bias);
                Reg element = e_.b.CreateAdd(mul(e_.b.CreateAdd(firstPixel, x), g_.channels), column);
                store(acc, channels, element);
              },
              true);
        },
        true);
  }

  void store(const Regs& acc, const Epilogue::Channels& channels, Reg element) {
    const auto rowsAt = [&](Reg base, int64_t bytes) {
      Regs rows;
      for (int t = 0; bytes && t < plan_.tileColumns; ++t)
        rows.push_back(e_.at(e_.at(base, mul(element, bytes)), t * plan_.columns() * bytes));
      return rows;
    };
    epilogue_.store(acc, plan_.tileColumns, vectors_, channels, rowsAt(e_.result(), epilogue_.resultBytes()),
                    epilogue_.residualBytes() ? rowsAt(e_.operand("residual"), epilogue_.residualBytes()) : Regs{});
  }

  Regs accumulate(Reg input, Reg weights, Reg bias) {
    Regs acc;
    for (int t = 0; t < plan_.tileColumns; ++t)
      for (int v = 0; v < vectors_; ++v)
        acc.push_back(real_ ? e_.floats(0, isa_.lanes) : e_.load(e_.i32(isa_.lanes), e_.at(bias, int64_t{v} * isa_.lanes * 4)));
    const auto line = [&](Reg kz, Reg ky, Regs& sums) {
      Reg in = e_.at(input, e_.b.CreateAdd(mul(kz, plane_), mul(ky, mul(row_, g_.dilationH))));
      Reg w = e_.at(
          weights, mul(e_.b.CreateAdd(mul(kz, g_.kernelH), ky), layout_.paddedRun() * plan_.packing.panel * sizeOf(plan_.packing.element)));
      for (int64_t kx = 0; kx < g_.kernelW; kx += plan_.packing.group) real_ ? floatTap(sums, in, w, kx) : integerTaps(sums, in, w, kx);
    };
    Reg first = weights;
    for (int64_t half = 0; half < plan_.packing.halves; ++half) {
      weights = e_.at(first, half * layout_.halfElements() * sizeOf(plan_.packing.element));
      // Small filters are written out; the accumulators of large ones stay in registers around a loop.
      const auto plane = [&](Reg kz, Regs& sums) {
        if (g_.kernelH * g_.kernelW > 9)
          sums = e_.loop(e_.i64(0), e_.i64(g_.kernelH), 1, sums, [&](Reg ky, Regs& inner) { line(kz, ky, inner); }, true);
        else
          for (int64_t ky = 0; ky < g_.kernelH; ++ky) line(kz, e_.i64(ky), sums);
      };
      if (g_.kernelD > 1)
        acc = e_.loop(e_.i64(0), e_.i64(g_.kernelD), 1, acc, plane, true);
      else
        plane(e_.i64(0), acc);
    }
    return acc;
  }

  int64_t tapOffset(int tile, int64_t kx) const { return (int64_t{tile} * plan_.packing.copies * g_.strideW + kx * g_.dilationW) * pixel_; }

  void floatTap(Regs& acc, Reg in, Reg w, int64_t kx) {
    for (int v = 0; v < vectors_; ++v) {
      Reg weight = e_.load(e_.f32(isa_.lanes), e_.at(w, (kx * plan_.packing.panel + int64_t{v} * isa_.lanes) * 4));
      for (int t = 0; t < plan_.tileColumns; ++t) {
        Reg& sum = nth(acc, t * vectors_ + v);
        sum = e_.fma(e_.load(e_.f32(isa_.lanes), e_.at(in, tapOffset(t, kx) + int64_t{v} * isa_.lanes * 4)), weight, sum);
      }
    }
  }

  void integerTaps(Regs& acc, Reg in, Reg w, int64_t kx) {
    const int group = plan_.packing.group;
    const auto taps = static_cast<int>(std::min<int64_t>(group, g_.kernelW - kx));
    Regs weights;
    for (int v = 0; v < vectors_; ++v)
      weights.push_back(
          e_.load(e_.i32(isa_.lanes), e_.at(w, kx * plan_.packing.panel * sizeOf(plan_.packing.element) + int64_t{v} * isa_.lanes * 4)));
    for (int t = 0; t < plan_.tileColumns; ++t) {
      // A tap that does not exist meets zero weights: any integers will do.
      Regs integers;
      for (int k = 0; k < group; ++k)
        integers.push_back(k < taps ? e_.load(integersOf(e_, strip_.element, plan_.packing.panel), e_.at(in, tapOffset(t, kx + k)))
                                    : integers[0]);
      const Regs interleaved = interleave(integers);
      for (int v = 0; v < vectors_; ++v) {
        Reg& sum = nth(acc, t * vectors_ + v);
        sum = products_.add(sum, nth(interleaved, v), nth(weights, v));
      }
    }
  }

  // Elements 0..half-1 (or half..) of each 16-byte lane of a and c in turn, `size` bytes at a time: punpckl / punpckh.
  Reg unpack(Reg a, Reg c, int size, bool high) {
    const int n = KernelEmitter::lanesOf(a), perLane = 16 / size;
    std::vector<int> mask;
    for (int lane = 0; lane < n; lane += perLane)
      for (int i = 0; i < perLane / 2; ++i) {
        const int from = lane + i + (high ? perLane / 2 : 0);
        mask.push_back(from);
        mask.push_back(n + from);
      }
    return e_.b.CreateShuffleVector(a, c, mask);
  }

  // Bytes of four taps, or words of two -> 32-bit lanes of one channel each, in the packing's column order.
  Regs interleave(const Regs& taps) {
    const int panel = plan_.packing.panel;
    if (taps.size() == 2) {
      std::vector<int> pairs;
      for (int c = 0; c < panel; ++c) pairs.insert(pairs.end(), {c, panel + c});
      return {e_.bitcast(e_.b.CreateShuffleVector(taps[0], taps[1], pairs), e_.i32(panel))};
    }
    if (plan_.packing.columns == Packing::Columns::natural) {
      std::vector<int> first, last;
      for (int i = 0; i < 2 * panel; ++i) first.push_back(i);
      Reg ab = e_.b.CreateShuffleVector(taps[0], taps[1], first), cd = e_.b.CreateShuffleVector(taps[2], taps[3], first);
      for (int c = 0; c < panel; ++c) last.insert(last.end(), {c, panel + c, 2 * panel + c, 3 * panel + c});
      return {e_.bitcast(e_.b.CreateShuffleVector(ab, cd, last), e_.i32(panel))};
    }
    Regs result;
    for (const bool high : {false, true}) {
      Reg ab = e_.bitcast(unpack(taps[0], taps[1], 1, high), e_.i16(panel / 2)),
          cd = e_.bitcast(unpack(taps[2], taps[3], 1, high), e_.i16(panel / 2));
      for (const bool upper : {false, true}) result.push_back(e_.bitcast(unpack(ab, cd, 2, upper), e_.i32(isa_.lanes)));
    }
    return result;
  }

  KernelEmitter& e_;
  const DepthwiseIsa& isa_;
  const DepthwisePlan& plan_;
  bool real_;
  Products products_;
  const ConvGeometry& g_;
  PackedLayout layout_;
  Epilogue epilogue_;
  StagedStrip strip_;
  int vectors_ = 1;
  int64_t bytes_ = 1, pixel_ = 0, tail_ = 0;
  Reg row_ = nullptr, plane_ = nullptr, outH_ = nullptr, outW_ = nullptr;
};

using Row = KernelRow<DepthwiseIsa>;
using Family = KernelFamily<DepthwisePlan, DepthwiseIsa>;

// Depends on the row alone, so that selection, packing and emission agree on every machine.
std::optional<DepthwisePlan> plan(const Row& row, const Node& node, const Target&) {
  if (!hasConvTypes(node)) return std::nullopt;
  const auto problem = GemmProblem::of(node);
  if (!problem || problem->words != (row.traits.product == Product::words)) return std::nullopt;
  const ConvGeometry& g = problem->conv;
  if (g.groups != g.channels || g.outputs != g.channels || g.channels < 2 || g.kernelRows() * g.kernelW > 128 || g.pixels() == 0)
    return std::nullopt;
  const DepthwisePlan plan = planDepthwise(row.traits, *problem);
  if (g.kernelD * plan.stagedRows.value * plan.stagedWidth.value * g.channels > (int64_t{1} << 24)) return std::nullopt;
  const bool tail = plan.columns() % plan.packing.panel != 0;
  if (tail && (!row.traits.masks || plan.packing.panel > 64)) return std::nullopt;
  return plan;
}

std::optional<DepthwisePlan> planUsual(const Row& row, const Node& node, const Target&) {
  const auto problem = GemmProblem::of(node);
  const std::optional<GemmProblem> usual = problem ? problem->usual() : std::nullopt;
  if (!usual) return std::nullopt;
  return planDepthwise(row.traits, *usual);
}

bool supports(const DepthwisePlan& plan, const Node& node, const Target&) { return takesWeights(node, plan.packing.element); }

Work work(const DepthwisePlan& plan, const Node& node, const Target&) {
  const ConvGeometry& g = plan.conv;
  const PackedLayout layout(plan.packing, g);
  const double tiles = static_cast<double>(g.pixels()) / plan.packing.copies * static_cast<double>(layout.panels());
  const double vectors = tiles * plan.packing.panel / plan.isa.lanes;
  const double steps =
      static_cast<double>(plan.packing.halves * g.kernelRows() * ((g.kernelW + plan.packing.group - 1) / plan.packing.group));
  return {{"call", 1},
          {"product", vectors * steps},
          {"tile", tiles},
          {"store", vectors},
          {"post", vectors * postInstructions(node)},
          {"staged_byte", static_cast<double>(plan.strips.value * g.kernelD * plan.strip().planeBytes())}};
}

Result<Node*> pack(const DepthwisePlan& plan, const Node& node, Builder& builder) {
  return packConv(node, PackedLayout(plan.packing, plan.conv), builder);
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const DepthwisePlan& plan) {
  if (node.packing("packing") != plan.packing)
    return fail(ErrorCode::kInvalidModel, "kernel '{}' takes packing '{}', the node has '{}'", e.def().id, plan.packing.str(),
                node.packing("packing").str());
  return Depthwise(e, node, plan).emit();
}

}  // namespace

std::vector<KernelDef> integerDepthwiseKernels() {
  return kernelsOf(Family{
      .ops = {"q.conv"},
      .rows = {{"dw_u8s8_avx512vnni", isaBit(Isa::avx512vnni) | isaBit(Isa::avx512), {Product::bytes, 16, 4, true}},
               {"dw_u8s8_avxvnni", isaBit(Isa::avxvnni) | isaBit(Isa::avx2), {Product::bytes, 8, 4, false}},
               {"dw_u8s8_avx2", isaBit(Isa::avx2), {Product::bytes, 8, 4, false}},
               {"dw_u8s8_generic", 0, {Product::bytes, 4, 1, false}},
               {"dw_s16_avx512", isaBit(Isa::avx512), {Product::words, 16, 1, true}},
               {"dw_s16_avx2", isaBit(Isa::avx2), {Product::words, 8, 1, false}},
               {"dw_s16_generic", 0, {Product::words, 4, 1, false}}},
      .plan = plan,
      .planUsual = planUsual,
      .supports = supports,
      .work = work,
      .onlyNumbers = servesAnySize<DepthwisePlan>,
      .pack = pack,
      .emit = emit,
  });
}

std::vector<KernelDef> floatDepthwiseKernels() {
  return kernelsOf(Family{
      .ops = {"conv"},
      .rows = {{"dw_f32_avx512", isaBit(Isa::avx512), {Product::floats, 16, 4, true}},
               {"dw_f32_avx2", isaBit(Isa::avx2), {Product::floats, 8, 4, false}},
               {"dw_f32_generic", 0, {Product::floats, 4, 1, false}}},
      .plan = plan,
      .planUsual = planUsual,
      .supports = supports,
      .work = work,
      .onlyNumbers = servesAnySize<DepthwisePlan>,
      .pack = pack,
      .emit = emit,
  });
}

}  // namespace qc
