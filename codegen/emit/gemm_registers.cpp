// Convolutions and matrix products on vector registers: a tile of pixels by the columns of a panel is summed up in registers.
#include <algorithm>
#include <optional>

#include "codegen/emit/gemm_panels.h"
#include "codegen/emit/products.h"

namespace qc {
namespace {

using Regs = std::vector<Reg>;

class RegisterGemm final : public GemmPanels {
 public:
  RegisterGemm(KernelEmitter& e, const Node& node, const GemmPlan& plan, const WeightPanels* expanded)
      : GemmPanels(e, node, plan), products_(e, isa_.product, isa_.lanes, e.def().isas), longPost_(postInstructions(node) >= kLongPost) {
    resultTile_ = (int64_t{plan.tileRows} * plan.packing.panel * epilogue_.resultBytes() + 63) / 64 * 64;
    residualTile_ = (int64_t{plan.tileRows} * plan.packing.panel * epilogue_.residualBytes() + 63) / 64 * 64;
    if (expanded) weightPanel_.emplace(e, *expanded, isa_.lanes);
  }

 private:
  void begin() override {
    if (plan_.sparse)
      storePaddingPixel();
    else if (!isLinear() && !plan_.size.hasFreePixels())
      offsets_ = e_.table(offsetTable());
  }
  int64_t stripBytes() const override { return plan_.sparse ? plan_.paddingPixelBytes() : GemmPanels::stripBytes(); }
  // Scratch: the strip, tiles of panels wider than the channels left, a panel of floats, sums of chunks.
  int64_t panelPlace() const { return tailColumns_ && !masksTail_ ? resultTile_ + residualTile_ : 0; }  // behind the strip
  int64_t scratchBytes() const override {
    return stripBytes() + panelPlace() + (weightPanel_ ? weightPanel_->scratchBytes() : 0) + sumsBytes();
  }

  Reg weightsOf(Reg panel, Reg globalPanel) override {
    if (!weightPanel_) return GemmPanels::weightsOf(panel, globalPanel);
    Reg weights = e_.opaque(behindStrip(panelPlace()));
    weightPanel_->expand(e_.operand("w"), e_.operand("sets"), panel, weights);
    return weights;
  }

  std::vector<int32_t> offsetTable() const {
    std::vector<int32_t> offsets;
    for (int64_t p = 0; p < plan_.stripRows * g_.outW; ++p)
      offsets.push_back(static_cast<int32_t>(p / g_.outW * g_.strideH * rowStride_ + p % g_.outW * g_.strideW * pixelStride_));
    return offsets;
  }

  void multiply(const Unit& u, const Panel& p) override {
    Reg isTail = tailColumns_ && !masksTail_ ? e_.b.CreateICmpEQ(p.index, e_.i64(plan_.panels - 1)) : nullptr;
    Reg firstPixel = firstPixelOf(u);
    Reg lastStart = e_.b.CreateSub(u.pixels, e_.i64(plan_.tileRows));
    if (chunked()) accumulateInChunks(u, p.weights, p.channels.bias, lastStart);
    e_.loop(
        e_.i64(0), u.pixels, plan_.tileRows,
        [&](Reg begin) {
          Reg start = e_.minOf(begin, lastStart);
          const Regs acc = chunked() ? loadSums(sumsAt(begin))
                                     : accumulate(accumulators(p.channels.bias), u, rowsOf(u), start, p.weights, p.channels.bias);
          Reg element = e_.b.CreateAdd(mul(e_.b.CreateAdd(firstPixel, start), g_.outputs), p.column);
          storeTile(acc, p.channels, element, isTail);
        },
        true);
  }

  Regs inputRows(const Unit& u, Reg start) {
    Regs rows;
    if (isLinear()) {
      Reg step = pixelDistance(), base = e_.opaque(e_.at(u.input, mul(start, step)));
      const auto known = e_.known(step);
      for (int i = 0; i < plan_.tileRows; ++i) rows.push_back(known ? e_.at(base, i * *known) : e_.at(base, mul(step, i)));
      return rows;
    }
    if (plan_.size.hasFreePixels()) return plan_.tileRows <= g_.outW ? inputRowsOverLines(u, start) : inputRowsOverShortLines(u, start);
    Reg entry = e_.at(offsets_, mul(start, 4));
    for (int i = 0; i < plan_.tileRows; ++i)
      rows.push_back(e_.opaque(e_.at(u.input, e_.b.CreateZExt(e_.load(e_.b.getInt32Ty(), e_.at(entry, 4 * i)), e_.b.getInt64Ty()))));
    return rows;
  }

  // Of a tile in which a line of the result may end, once.
  Regs inputRowsOverLines(const Unit& u, Reg start) {
    Reg width = e_.number(plan_.size.outW), rowStep = lineDistance();
    llvm::Type* narrow = e_.b.getInt32Ty();
    Reg y = e_.b.CreateZExt(e_.b.CreateUDiv(e_.b.CreateTrunc(start, narrow), e_.b.CreateTrunc(width, narrow)), e_.b.getInt64Ty());
    Reg x = e_.b.CreateSub(start, e_.b.CreateMul(y, width)), left = e_.b.CreateSub(width, x);
    const int64_t step = g_.strideW * pixelStride_;
    Reg here = e_.at(u.input, e_.b.CreateAdd(e_.b.CreateMul(y, rowStep), mul(x, step)));
    Reg next = e_.at(here, e_.b.CreateSub(rowStep, mul(width, step)));
    Regs rows;
    for (int i = 0; i < plan_.tileRows; ++i)
      rows.push_back(e_.opaque(e_.at(e_.b.CreateSelect(e_.b.CreateICmpSGT(left, e_.i64(i)), here, next), i * step)));
    return rows;
  }

  // Of a tile in which any number of lines may end.
  Regs inputRowsOverShortLines(const Unit& u, Reg start) {
    Reg width = e_.number(plan_.size.outW), x = start, y = quotient(x, width), step = pixelDistance();
    Reg place = e_.b.CreateAdd(e_.b.CreateMul(y, lineDistance()), e_.b.CreateMul(x, step));
    Reg toNextLine = e_.b.CreateSub(lineDistance(), e_.b.CreateMul(e_.b.CreateSub(width, e_.i64(1)), step));
    Regs rows;
    for (int i = 0; i < plan_.tileRows; ++i) {
      rows.push_back(e_.opaque(e_.at(u.input, place)));
      x = e_.b.CreateAdd(x, e_.i64(1));
      Reg ends = e_.b.CreateICmpEQ(x, width);
      place = e_.b.CreateAdd(place, e_.b.CreateSelect(ends, toNextLine, step));
      x = e_.b.CreateSelect(ends, e_.i64(0), x);
    }
    return rows;
  }

  // The 32 bits of one step of k; `count` elements of it exist (the others are zero or meet zero weights).
  Reg loadStep(Reg pointer, int count) {
    const int width = isa_.group;
    if (count == width || plan_.staged) return e_.load(e_.b.getInt32Ty(), pointer);
    auto widened = [&](llvm::Type* type, int64_t offset) {
      return e_.b.CreateZExt(e_.load(type, e_.at(pointer, offset)), e_.b.getInt32Ty());
    };
    if (plan_.words) return widened(e_.b.getInt16Ty(), 0);
    if (count == 1) return widened(e_.b.getInt8Ty(), 0);
    Reg two = widened(e_.b.getInt16Ty(), 0);
    return count == 2 ? two : e_.b.CreateOr(two, e_.b.CreateShl(widened(e_.b.getInt8Ty(), 2), e_.i32c(16)));
  }

  Reg loadWeights(Reg from) {
    if (isa_.weight != DType::f16) return e_.load(e_.i32(isa_.lanes), from);
    return e_.b.CreateFPExt(e_.load(KernelEmitter::vectorOf(e_.b.getHalfTy(), isa_.lanes), from), e_.f32(isa_.lanes));
  }

  void step(Regs& acc, const Regs& rows, Reg weights, Reg inputOffset, int64_t inputConstant, int64_t weightConstant, int count) {
    const int lanes = isa_.lanes;
    Regs w;
    for (int v = 0; v < vectors_; ++v) w.push_back(loadWeights(e_.at(weights, weightConstant + v * lanes * isa_.laneBytes())));
    for (int r = 0; r < plan_.tileRows; ++r) {
      Reg a = e_.splat(loadStep(e_.at(e_.at(nth(rows, r), inputOffset), inputConstant), count), lanes);
      if (isa_.product == Product::signedBytes)
        a = e_.b.CreateXor(a, e_.ints(static_cast<int32_t>(0x80808080), e_.i32(lanes)));  // u8 - 128 as s8
      for (int v = 0; v < vectors_; ++v) {
        Reg& sum = nth(acc, r * vectors_ + v);
        sum = products_.add(sum, a, nth(w, v));
      }
    }
  }

  // One run of k: whole steps in an unrolled loop, then the rest.
  void run(Regs& acc, const Regs& rows, Reg weights, Reg inputOffset) {
    const int64_t steps = layout_.runLength() / isa_.group, tail = layout_.runLength() % isa_.group;
    const int64_t stepBytes = isa_.laneBytes() * plan_.packing.panel;  // of weights; 4 bytes of input
    // Compile time grows with the body, and what hides the loop is enough; a step of several instructions per product needs less unrolling.
    constexpr int64_t kProductsOfBody = 48;
    const int64_t most =
        products_.isSingle() && !isa_.inputOffset() ? std::clamp<int64_t>(kProductsOfBody / (plan_.tileRows * vectors_), 1, 4) : 2;
    int64_t unroll = most;
    while (unroll > 1 && steps % unroll != 0) --unroll;
    if (unroll == 1) unroll = std::min(most, steps);
    int64_t done = 0;
    if (steps > 2 * unroll || steps > 6) {
      done = steps / unroll * unroll;
      acc = e_.loop(
          e_.i64(0), e_.i64(done), unroll, acc,
          [&](Reg k, Regs& sums) {
            Reg input = e_.b.CreateAdd(inputOffset, mul(k, 4)), weight = e_.at(weights, mul(k, stepBytes));
            for (int64_t s = 0; s < unroll; ++s) step(sums, rows, weight, input, 4 * s, stepBytes * s, isa_.group);
          },
          true);
    }
    for (int64_t s = done; s < steps; ++s) step(acc, rows, weights, inputOffset, 4 * s, stepBytes * s, isa_.group);
    if (tail) step(acc, rows, weights, inputOffset, 4 * steps, stepBytes * steps, static_cast<int>(tail));
  }

  // The products of some rows of the kernel; those of every half of the weights are added up.
  Regs accumulate(Regs acc, const Unit& u, const Rows& kernelRows, Reg start, Reg weights, Reg bias) {
    const Regs rows = plan_.sparse ? Regs{} : inputRows(u, start);
    const std::vector<Corner> corners = plan_.sparse ? cornersOf(u, start) : std::vector<Corner>{};
    for (int64_t half = 0; half < plan_.packing.halves; ++half) {
      Reg these = e_.at(weights, half * layout_.halfElements() * sizeOf(isa_.weight));
      acc = plan_.sparse ? accumulateSparse(std::move(acc), u, kernelRows, corners, these, bias)
                         : accumulateHalf(std::move(acc), kernelRows, rows, these);
    }
    return acc;
  }

  // A panel that does not stay in the second cache between tiles: a chunk of its rows at a time meets all tiles, whose sums wait in
  // scratch.
  void accumulateInChunks(const Unit& u, Reg weights, Reg bias, Reg lastStart) {
    const auto tiles = [&](const std::function<void(Reg, Reg)>& body) {
      e_.loop(e_.i64(0), u.pixels, plan_.tileRows, [&](Reg begin) { body(begin, sumsAt(begin)); }, true);
    };
    tiles([&](Reg, Reg sums) { storeSums(accumulators(bias), sums); });
    const Rows all = rowsOf(u);
    e_.loop(all.begin, all.end, plan_.chunkRows, [&](Reg first) {
      const Rows chunk{first, e_.minOf(all.end, e_.b.CreateAdd(first, e_.i64(plan_.chunkRows)))};
      tiles([&](Reg begin, Reg sums) { storeSums(accumulate(loadSums(sums), u, chunk, e_.minOf(begin, lastStart), weights, bias), sums); });
    });
  }

  Reg sumsAt(Reg begin) { return e_.opaque(e_.at(behindStrip(panelPlace()), mul(begin, int64_t{4} * plan_.packing.panel))); }
  llvm::Type* sumType() { return isa_.product == Product::floats ? e_.f32(isa_.lanes) : e_.i32(isa_.lanes); }
  Regs loadSums(Reg from) {
    Regs acc;
    for (int i = 0; i < plan_.tileRows * vectors_; ++i) acc.push_back(e_.load(sumType(), e_.at(from, int64_t{4} * i * isa_.lanes)));
    return acc;
  }
  void storeSums(const Regs& acc, Reg to) {
    for (size_t i = 0; i < acc.size(); ++i) e_.store(acc[i], e_.at(to, static_cast<int64_t>(4 * i) * isa_.lanes));
  }
  int64_t sumsBytes() const {
    const int64_t tiles = (plan_.stripRows * g_.outW + plan_.tileRows - 1) / plan_.tileRows;
    return chunked()        ? tiles * plan_.tileRows * plan_.packing.panel * 4
           : storesByRows() ? int64_t{4} * plan_.tileRows * plan_.packing.panel
                            : 0;
  }
  bool chunked() const { return plan_.chunkRows < g_.kernelRows(); }

  Regs accumulators(Reg bias) {
    Regs acc;
    for (int r = 0; r < plan_.tileRows; ++r)
      for (int v = 0; v < vectors_; ++v) {
        if (isa_.product == Product::floats)
          acc.push_back(e_.floats(0, isa_.lanes));
        else
          acc.push_back(r == 0 ? e_.load(e_.i32(isa_.lanes), e_.at(bias, int64_t{v} * isa_.lanes * 4)) : nth(acc, v));
      }
    return acc;
  }

  Regs accumulateHalf(Regs acc, const Rows& kernelRows, const Regs& rows, Reg weights) {
    return overRows(std::move(acc), kernelRows, [&](Regs& sums, Reg firstRun, Reg offset) {
      if (runsPerRow() == 1) return run(sums, rows, e_.at(weights, mul(firstRun, runBytes())), offset);
      sums = e_.loop(
          e_.i64(0), e_.i64(g_.kernelW), 1, sums,
          [&](Reg kx, Regs& inner) {
            run(inner, rows, e_.at(weights, mul(e_.b.CreateAdd(firstRun, kx), runBytes())),
                e_.b.CreateAdd(offset, mul(kx, g_.dilationW * pixelStride_)));
          },
          true);
    });
  }

  // --- sparse: every tap of a pixel is in the input or is the one pixel of padding in scratch ---

  void storePaddingPixel() {
    for (int64_t o = 0; o < plan_.pixelBytesOfGroup(); o += 4 * isa_.lanes) e_.store(padding_, e_.at(e_.scratch(), o));
  }

  struct Corner {
    Reg y, x;  // of the input under an output pixel at (ky, kx) = 0
  };
  std::vector<Corner> cornersOf(const Unit& u, Reg start) {
    std::vector<Corner> corners;
    for (int r = 0; r < plan_.tileRows; ++r) {
      Reg x = e_.b.CreateAdd(start, e_.i64(r));
      Reg y = e_.b.CreateAdd(quotient(x, e_.number(plan_.size.outW)), u.firstRow);
      corners.push_back({e_.b.CreateSub(mul(y, g_.strideH), e_.i64(g_.padTop)), e_.b.CreateSub(mul(x, g_.strideW), e_.i64(g_.padLeft))});
    }
    return corners;
  }

  // What a run adds that reads only padding.
  void addSums(Regs& acc, Reg bias, Reg run) {
    Reg sums = e_.at(bias, mul(e_.b.CreateAdd(run, e_.i64(1)), 4 * layout_.columns()));
    for (int v = 0; v < vectors_; ++v) {
      Reg sum = e_.load(e_.i32(isa_.lanes), e_.at(sums, int64_t{v} * isa_.lanes * 4));
      for (int r = 0; r < plan_.tileRows; ++r) {
        Reg& to = nth(acc, r * vectors_ + v);
        to = e_.b.CreateAdd(to, sum);
      }
    }
  }

  Regs accumulateSparse(Regs acc, const Unit& u, const Rows& kernelRows, const std::vector<Corner>& corners, Reg weights, Reg bias) {
    Reg originZ = e_.b.CreateSub(mul(e_.b.CreateURem(u.plane, e_.i64(g_.outD)), g_.strideD), e_.i64(g_.padFront));
    Reg inH = e_.number(plan_.size.inH), inW = e_.number(plan_.size.inW), line = rowStride();
    const auto tap = [&](Regs& sums, Reg plane, Reg insideZ, Reg row, Reg ky, Reg kx) {
      Reg offsetY = mul(ky, g_.dilationH), offsetX = mul(kx, g_.dilationW), any = e_.b.getFalse();
      Regs pixels;
      for (const Corner& corner : corners) {
        Reg y = e_.b.CreateAdd(corner.y, offsetY), x = e_.b.CreateAdd(corner.x, offsetX);
        Reg inside = e_.b.CreateAnd(e_.b.CreateICmpULT(y, inH), e_.b.CreateICmpULT(x, inW));
        if (insideZ) inside = e_.b.CreateAnd(inside, insideZ);
        Reg pixel = e_.at(plane, e_.b.CreateAdd(mul(y, line), mul(x, pixelStride_)));
        pixels.push_back(e_.opaque(e_.b.CreateSelect(inside, pixel, e_.scratch())));
        any = e_.b.CreateOr(any, inside);
      }
      Reg index = e_.b.CreateAdd(mul(row, g_.kernelW), kx), here = e_.at(weights, mul(index, runBytes()));
      if (!leavesOutPadding_ && !plan_.packing.sums) return run(sums, pixels, here, e_.i64(0));
      const auto where = [&](Reg condition, const std::function<void(Regs&)>& body) {
        sums = e_.loop(e_.i64(0), e_.b.CreateZExt(condition, e_.b.getInt64Ty()), 1, sums, [&](Reg, Regs& inner) { body(inner); });
      };
      where(any, [&](Regs& inner) { run(inner, pixels, here, e_.i64(0)); });
      if (plan_.packing.sums) where(e_.b.CreateNot(any), [&](Regs& inner) { addSums(inner, bias, index); });
    };
    return e_.loop(kernelRows.begin, kernelRows.end, 1, acc, [&](Reg row, Regs& byRow) {
      Reg ky = row, kz = quotient(ky, g_.kernelH);
      Reg z = e_.b.CreateAdd(originZ, mul(kz, g_.dilationD)), plane = e_.at(u.input, mul(kz, planeStride()));
      Reg insideZ = leavesOutPadding_ || readsOnePlane(g_) ? nullptr : e_.b.CreateICmpULT(z, e_.i64(g_.inD));
      byRow = e_.loop(e_.i64(0), e_.i64(g_.kernelW), 1, byRow, [&](Reg kx, Regs& sums) { tap(sums, plane, insideZ, row, ky, kx); }, true);
    });
  }

  // --- results ---

  // A panel that is wider than the channels left goes through a tile in scratch, whose valid columns are copied.
  void storeTile(const Regs& acc, const Epilogue::Channels& channels, Reg element, Reg isTail) {
    const int64_t rb = epilogue_.resultBytes(), sb = epilogue_.residualBytes(), panel = plan_.packing.panel;
    Reg out = e_.opaque(e_.at(e_.result(), mul(element, rb)));
    Reg residual = sb ? e_.opaque(e_.at(e_.operand("residual"), mul(element, sb))) : nullptr;
    auto rowsOf = [&](Reg base, Reg stride) {
      Regs rows{base};
      for (int r = 1; r < plan_.tileRows; ++r) rows.push_back(e_.at(rows.back(), stride));
      return rows;
    };
    auto constantRows = [&](Reg base, int64_t stride) {
      Regs rows;
      for (int r = 0; base && r < plan_.tileRows; ++r) rows.push_back(e_.at(base, r * stride));
      return rows;
    };
    if (!isTail && storesByRows()) return storeByRows(acc, channels, out, residual);
    if (!isTail || channels.valid) {
      epilogue_.store(acc, plan_.tileRows, vectors_, channels, constantRows(out, g_.outputs * rb), constantRows(residual, g_.outputs * sb));
      return;
    }
    Reg resultTile = behindStrip(0), residualTile = behindStrip(resultTile_);
    auto copyTail = [&](Reg to, int64_t toStride, Reg from, int64_t fromStride, int64_t bytes) {
      e_.loop(
          e_.i64(0), e_.i64(plan_.tileRows), 1,
          [&](Reg r) { copyPart(e_.at(to, mul(r, toStride)), e_.at(from, mul(r, fromStride)), bytes); }, true);
    };
    if (sb) e_.ifThen(isTail, [&] { copyTail(residualTile, panel * sb, residual, g_.outputs * sb, tailColumns_ * sb); });
    auto select = [&](Reg tile, Reg direct, int64_t bytes) {
      Reg base = e_.b.CreateSelect(isTail, tile, direct);
      return rowsOf(base, e_.b.CreateSelect(isTail, e_.i64(panel * bytes), e_.i64(g_.outputs * bytes)));
    };
    epilogue_.store(acc, plan_.tileRows, vectors_, channels, select(resultTile, out, rb), sb ? select(residualTile, residual, sb) : Regs{});
    e_.ifThen(isTail, [&] { copyTail(out, g_.outputs * rb, resultTile, panel * rb, tailColumns_ * rb); });
  }

  // Whether the rows of a tile go through the epilogue in a loop, their sums waiting in scratch, which a long expression does not notice.
  // Its code for a row, not for all of them, is what a length that is met for the first time waits for.
  bool storesByRows() const {
    return longPost_ && plan_.isProductOfRows() && plan_.servesAnySize() && vectors_ == 4 && plan_.tileRows > 1 && !weightPanel_;
  }
  void storeByRows(const Regs& acc, const Epilogue::Channels& channels, Reg out, Reg residual) {
    Reg sums = sumsAt(e_.i64(0));
    storeSums(acc, sums);
    e_.loop(
        e_.i64(0), e_.i64(plan_.tileRows), 1,
        [&](Reg row) {
          Reg from = e_.at(sums, mul(row, int64_t{4} * plan_.packing.panel));
          Regs own;
          for (int v = 0; v < vectors_; ++v) own.push_back(e_.load(sumType(), e_.at(from, int64_t{4} * v * isa_.lanes)));
          const auto line = [&](Reg base, int64_t bytes) { return base ? Regs{e_.at(base, mul(row, g_.outputs * bytes))} : Regs{}; };
          epilogue_.store(own, 1, vectors_, channels, line(out, epilogue_.resultBytes()), line(residual, epilogue_.residualBytes()));
        },
        true);
  }

  void copyPart(Reg to, Reg from, int64_t bytes) {
    const int width = e_.target().vectorBytes();
    for (int64_t o = 0; o < bytes; o += width) {
      const int count = static_cast<int>(std::min<int64_t>(width, bytes - o));
      e_.copyBytes(e_.at(to, o), e_.at(from, o), count);
    }
  }

  static constexpr double kLongPost = 12;  // instructions

  Products products_;
  const bool longPost_;
  std::optional<WeightPanel> weightPanel_;
  int64_t resultTile_ = 0, residualTile_ = 0;
  Reg offsets_ = nullptr;
};

}  // namespace

KernelShape emitOnRegisters(KernelEmitter& e, const Node& node, const GemmPlan& plan, const WeightPanels* expanded) {
  return RegisterGemm(e, node, plan, expanded).emit();
}

}  // namespace qc
