// The one generator of convolutions and matrix products: see gemm.h for how the work is cut.
#include <algorithm>
#include <optional>
#include <tuple>

#include "codegen/emit/emit.h"
#include "codegen/emit/epilogue.h"
#include "codegen/emit/products.h"
#include "codegen/emit/stage_strip.h"
#include "codegen/emit/tile_unit.h"
#include "codegen/emit/weight_panel.h"
#include "codegen/plan/gemm.h"

namespace qc {
namespace {

using Regs = std::vector<Reg>;

class ConvGemm {
 public:
  ConvGemm(KernelEmitter& e, const Node& node, const GemmPlan& plan)
      : e_(e),
        isa_(*plan.isa),
        plan_(plan),
        g_(plan.conv),
        layout_(plan.packing, plan.conv),
        vectors_(plan.packing.panel / isa_.lanes),
        epilogue_(e, node, plan.packing),
        strip_{g_, plan.stagedRows, plan.stagedWidth, g_.groupChannels(), isa_.input},
        leavesOutPadding_(isa_.product == Product::floats && node.is("k.conv") && node.integer("bounded") != 0) {
    elementBytes_ = sizeOf(isa_.input);
    const int64_t lineStride = plan.staged ? plan.stagedWidth * g_.groupChannels() : g_.inW * g_.channels;
    pixelStride_ = (plan.staged ? g_.groupChannels() : g_.channels) * elementBytes_;
    rowStride_ = lineStride * elementBytes_;
    planeStride_ = plan.staged ? strip_.planeBytes() : g_.dilationD * g_.inH * rowStride_;
    tailColumns_ = g_.groupOutputs() % plan.packing.panel;
    masksTail_ = tailColumns_ && Epilogue::takesMasks(e, plan.packing);
    stripBytes_ = plan.staged ? strip_.bytes() : plan.sparse ? (pixelBytesOfGroup() + StagedStrip::kSlack + 63) / 64 * 64 : 0;
    resultTile_ = (int64_t{plan.tileRows} * plan.packing.panel * epilogue_.resultBytes() + 63) / 64 * 64;
    residualTile_ = (int64_t{plan.tileRows} * plan.packing.panel * epilogue_.residualBytes() + 63) / 64 * 64;
    together_ = plan.tilesOf(plan.stripRows * g_.outW) > 1 ? 2 : 1;
  }
  // Weights that become floats panel by panel.
  void expandWeights(const WeightPanels& panels) { weightPanel_.emplace(e_, panels, isa_.lanes); }

  KernelShape emit() {
    if (!isa_.usesTiles()) products_.emplace(e_, isa_.product, isa_.lanes, e_.def().isas);
    if (plan_.staged || plan_.sparse) padding_ = paddingVector();
    if (plan_.sparse) storePaddingPixel();
    if (isa_.usesTiles())
      tiles_.emplace(e_, tileShapes());
    else if (!isLinear() && !plan_.sparse)
      offsets_ = e_.table(offsetTable());
    e_.loop(e_.begin(), e_.end(), 1, [&](Reg unit) { emitUnit(unit); });
    if (tiles_) tiles_->release();
    if (tiles_) return {.units = plan_.units(), .scratchBytes = stripBytes_ + together_ * plan_.tileRows * vectors_ * TileUnit::kRowBytes};
    return {.units = plan_.units(), .scratchBytes = panelPlace() + (weightPanel_ ? weightPanel_->scratchBytes() : 0) + sumsBytes()};
  }

 private:
  // What a unit fixes.
  struct Unit {
    Reg group, plane, firstRow, pixels;  // plane of the result over all images; pixels of this strip
    Reg input;                           // address of the strip's first pixel at (kz, ky, kx) = 0; sparse: of the plane at kz = 0
    Reg beginZ, endZ;                    // planes of the kernel that take part
  };

  // Rows of the kernel, those of all its planes counted through, that take part.
  struct Rows {
    Reg begin, end;
  };

  // Scratch: the strip, tiles of panels wider than the channels left, a panel of floats.
  int64_t panelPlace() const { return stripBytes_ + (tailColumns_ && !masksTail_ ? resultTile_ + residualTile_ : 0); }

  Reg mul(Reg a, int64_t c) { return c == 1 ? a : e_.b.CreateMul(a, e_.i64(c)); }
  Reg mul(Reg a, const Number& n) { return n.isFree ? e_.b.CreateMul(a, e_.number(n)) : mul(a, n.value); }
  Reg quotient(Reg& value, int64_t divisor) {  // value becomes the remainder
    if (divisor == 1) {
      Reg q = value;
      value = e_.i64(0);
      return q;
    }
    Reg q = e_.b.CreateUDiv(value, e_.i64(divisor));
    value = e_.b.CreateSub(value, mul(q, divisor));
    return q;
  }
  Reg quotient(Reg& value, Reg divisor) {
    if (const auto known = e_.known(divisor)) return quotient(value, *known);
    Reg q = e_.b.CreateUDiv(value, divisor);
    value = e_.b.CreateSub(value, e_.b.CreateMul(q, divisor));
    return q;
  }

  // Consecutive output pixels lie at one constant distance in the input.
  bool isLinear() const { return g_.outW == 1 || plan_.stripRows == 1 || g_.strideH * rowStride_ == g_.outW * g_.strideW * pixelStride_; }
  int64_t pixelStep() const { return g_.outW == 1 ? g_.strideH * rowStride_ : g_.strideW * pixelStride_; }
  std::vector<int32_t> offsetTable() const {
    std::vector<int32_t> offsets;
    for (int64_t p = 0; p < plan_.stripRows * g_.outW; ++p)
      offsets.push_back(static_cast<int32_t>(p / g_.outW * g_.strideH * rowStride_ + p % g_.outW * g_.strideW * pixelStride_));
    return offsets;
  }

  Reg paddingVector() {
    if (isa_.input == DType::f32) return e_.floats(0, isa_.lanes);
    Reg zero = e_.operandParam(0, ParamField::zeroPoint);
    return isa_.widens() ? e_.splat(e_.b.CreateTrunc(zero, e_.b.getInt16Ty()), 2 * isa_.lanes)
                         : e_.splat(e_.b.CreateTrunc(zero, e_.b.getInt8Ty()), 4 * isa_.lanes);
  }

  void emitUnit(Reg unit) {
    Unit u;
    Reg rest = unit;
    const GemmPlan::Cut& cut = plan_.cut;
    Reg strips = e_.number(cut.strips), stripRows = e_.number(cut.stripRows), allRows = e_.number(cut.rows);
    Reg stripsOfPlanes = mul(strips, g_.planes());
    u.group = quotient(rest, e_.b.CreateMul(e_.number(cut.blocks), stripsOfPlanes));
    Reg block = quotient(rest, stripsOfPlanes);
    u.plane = cut.strips.isFree ? e_.i64(0) : quotient(rest, strips);  // such products have one plane
    u.firstRow = mul(rest, cut.stripRows);
    Reg rows = cut.strips.is(1) ? allRows : e_.minOf(stripRows, e_.b.CreateSub(allRows, u.firstRow));
    u.pixels = mul(rows, g_.outW);
    std::tie(u.beginZ, u.endZ) = leavesOutPadding_ ? planesInside(e_, g_, u.plane) : std::pair(e_.i64(0), e_.i64(g_.kernelD));
    if (plan_.staged) {
      stageStrip(e_, strip_, {u.plane, u.firstRow, g_.groups > 1 ? u.group : nullptr, u.beginZ, u.endZ}, padding_);
      u.input = e_.scratch();
    } else {
      Reg offset = mul(firstPlane(e_, g_, u.plane), g_.inH * g_.inW * g_.channels * elementBytes_);
      if (!plan_.sparse) offset = e_.b.CreateAdd(offset, mul(u.firstRow, g_.strideH * rowStride_));
      if (g_.groups > 1) offset = e_.b.CreateAdd(offset, mul(u.group, g_.groupChannels() * elementBytes_));
      u.input = e_.at(e_.operand(0), offset);
    }
    Reg first = mul(block, cut.panelsPerBlock);
    Reg last =
        cut.blocks.is(1) ? e_.i64(plan_.panels) : e_.minOf(e_.i64(plan_.panels), e_.b.CreateAdd(first, e_.number(cut.panelsPerBlock)));
    e_.loop(first, last, 1, [&](Reg panel) { emitPanel(u, panel); }, true);
  }

  // --- compute ---

  void emitPanel(const Unit& u, Reg panel) {
    Reg globalPanel = g_.groups == 1 ? panel : e_.b.CreateAdd(panel, mul(u.group, plan_.panels));
    Reg weights = nullptr;
    if (weightPanel_) {
      weights = e_.opaque(e_.at(e_.scratch(), panelPlace()));
      weightPanel_->expand(e_.operand("w"), e_.operand("sets"), panel, weights);
    } else {
      weights = e_.opaque(e_.at(e_.operand("w"), mul(globalPanel, layout_.panelElements() * sizeOf(isa_.weight))));
    }
    Reg channelOffset = mul(globalPanel, int64_t{4} * plan_.packing.panel);
    Epilogue::Channels channels;
    if (e_.operand("scale")) channels.scale = e_.opaque(e_.at(e_.operand("scale"), channelOffset));
    if (e_.operand("bias")) channels.bias = e_.opaque(e_.at(e_.operand("bias"), channelOffset));
    Reg column = mul(panel, plan_.packing.panel);
    if (g_.groups > 1) column = e_.b.CreateAdd(column, mul(u.group, g_.groupOutputs()));
    if (masksTail_) {
      Reg all = e_.b.getInt64(~uint64_t{0});
      channels.valid = plan_.panels == 1 ? e_.i64((int64_t{1} << tailColumns_) - 1)
                                         : e_.b.CreateSelect(e_.b.CreateICmpEQ(panel, e_.i64(plan_.panels - 1)),
                                                             e_.i64((int64_t{1} << tailColumns_) - 1), all);
    }
    if (tiles_) return emitTiles(u, weights, channels, column);
    Reg isTail = tailColumns_ && !masksTail_ ? e_.b.CreateICmpEQ(panel, e_.i64(plan_.panels - 1)) : nullptr;
    Reg firstPixel = e_.b.CreateAdd(mul(u.plane, g_.outH * g_.outW), mul(u.firstRow, g_.outW));
    Reg lastStart = e_.b.CreateSub(u.pixels, e_.i64(plan_.tileRows));
    if (chunked()) accumulateInChunks(u, weights, channels.bias, lastStart);
    e_.loop(
        e_.i64(0), u.pixels, plan_.tileRows,
        [&](Reg begin) {
          Reg start = e_.minOf(begin, lastStart);
          const Regs acc =
              chunked() ? loadSums(sumsAt(begin)) : accumulate(accumulators(channels.bias), u, rowsOf(u), start, weights, channels.bias);
          Reg element = e_.b.CreateAdd(mul(e_.b.CreateAdd(firstPixel, start), g_.outputs), column);
          storeTile(acc, channels, element, isTail);
        },
        true);
  }

  Regs inputRows(const Unit& u, Reg start) {
    Regs rows;
    if (isLinear()) {
      Reg base = e_.opaque(e_.at(u.input, mul(start, pixelStep())));
      for (int i = 0; i < plan_.tileRows; ++i) rows.push_back(e_.at(base, i * pixelStep()));
      return rows;
    }
    Reg entry = e_.at(offsets_, mul(start, 4));
    for (int i = 0; i < plan_.tileRows; ++i)
      rows.push_back(e_.opaque(e_.at(u.input, e_.b.CreateZExt(e_.load(e_.b.getInt32Ty(), e_.at(entry, 4 * i)), e_.b.getInt64Ty()))));
    return rows;
  }

  // The 32 bits of one step of k; `count` elements of it exist (the others are zero or meet zero weights).
  Reg loadStep(Reg pointer, int count) {
    const int width = isa_.group;
    if (count == width || plan_.staged) return e_.load(e_.b.getInt32Ty(), pointer);
    auto widened = [&](llvm::Type* type, int64_t offset) {
      return e_.b.CreateZExt(e_.load(type, e_.at(pointer, offset)), e_.b.getInt32Ty());
    };
    if (count == 1) return widened(e_.b.getInt8Ty(), 0);
    Reg two = widened(e_.b.getInt16Ty(), 0);
    return count == 2 ? two : e_.b.CreateOr(two, e_.b.CreateShl(widened(e_.b.getInt8Ty(), 2), e_.i32c(16)));
  }

  void step(Regs& acc, const Regs& rows, Reg weights, Reg inputOffset, int64_t inputConstant, int64_t weightConstant, int count) {
    const int lanes = isa_.lanes;
    Regs w;
    for (int v = 0; v < vectors_; ++v) w.push_back(e_.load(e_.i32(lanes), e_.at(weights, weightConstant + int64_t{v} * lanes * 4)));
    for (int r = 0; r < plan_.tileRows; ++r) {
      Reg a = e_.splat(loadStep(e_.at(e_.at(nth(rows, r), inputOffset), inputConstant), count), lanes);
      if (isa_.product == Product::signedBytes)
        a = e_.b.CreateXor(a, e_.ints(static_cast<int32_t>(0x80808080), e_.i32(lanes)));  // u8 - 128 as s8
      for (int v = 0; v < vectors_; ++v) {
        Reg& sum = nth(acc, r * vectors_ + v);
        sum = products_->add(sum, a, nth(w, v));
      }
    }
  }

  // One run of k: whole steps in an unrolled loop, then the rest.
  void run(Regs& acc, const Regs& rows, Reg weights, Reg inputOffset) {
    const int64_t steps = layout_.runLength() / isa_.group, tail = layout_.runLength() % isa_.group;
    const int64_t stepBytes = int64_t{4} * plan_.packing.panel;  // of weights; 4 bytes of input
    // Compile time grows with the body; a step of several instructions per product needs less unrolling.
    const int64_t most = products_->isSingle() && !isa_.inputOffset() ? 4 : 2;
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

  Reg sumsAt(Reg begin) { return e_.opaque(e_.at(e_.at(e_.scratch(), panelPlace()), mul(begin, int64_t{4} * plan_.packing.panel))); }
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
    return chunked() ? tiles * plan_.tileRows * plan_.packing.panel * 4 : 0;
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

  int64_t runBytes() const { return layout_.paddedRun() * plan_.packing.panel * sizeOf(isa_.weight); }
  int64_t runsPerRow() const { return plan_.packing.rowRuns ? 1 : g_.kernelW; }

  Rows rowsOf(const Unit& u) { return {mul(u.beginZ, g_.kernelH), mul(u.endZ, g_.kernelH)}; }

  // The values carried through body(first run of a row, input offset of the row).
  Regs overRows(Regs acc, const Rows& rows, const std::function<void(Regs&, Reg, Reg)>& body) {
    if (g_.kernelRows() == 1) {
      body(acc, e_.i64(0), e_.i64(0));
      return acc;
    }
    const bool always = g_.kernelD == 1 && plan_.chunkRows == g_.kernelH;
    return e_.loop(
        rows.begin, rows.end, 1, acc,
        [&](Reg row, Regs& sums) {
          Reg ky = row, kz = quotient(ky, g_.kernelH);
          if (g_.kernelD == 1) kz = e_.i64(0), ky = row;
          body(sums, mul(row, runsPerRow()), e_.b.CreateAdd(mul(kz, planeStride_), mul(ky, g_.dilationH * rowStride_)));
        },
        always);
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

  int64_t pixelBytesOfGroup() const { return g_.groupChannels() * elementBytes_; }
  void storePaddingPixel() {
    for (int64_t o = 0; o < pixelBytesOfGroup(); o += 4 * isa_.lanes) e_.store(padding_, e_.at(e_.scratch(), o));
  }

  struct Corner {
    Reg y, x;  // of the input under an output pixel at (ky, kx) = 0
  };
  std::vector<Corner> cornersOf(const Unit& u, Reg start) {
    std::vector<Corner> corners;
    for (int r = 0; r < plan_.tileRows; ++r) {
      Reg x = e_.b.CreateAdd(start, e_.i64(r));
      Reg y = e_.b.CreateAdd(quotient(x, g_.outW), u.firstRow);
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
    const auto tap = [&](Regs& sums, Reg plane, Reg insideZ, Reg row, Reg ky, Reg kx) {
      Reg offsetY = mul(ky, g_.dilationH), offsetX = mul(kx, g_.dilationW), any = e_.b.getFalse();
      Regs pixels;
      for (const Corner& corner : corners) {
        Reg y = e_.b.CreateAdd(corner.y, offsetY), x = e_.b.CreateAdd(corner.x, offsetX);
        Reg inside = e_.b.CreateAnd(e_.b.CreateICmpULT(y, e_.i64(g_.inH)), e_.b.CreateICmpULT(x, e_.i64(g_.inW)));
        if (insideZ) inside = e_.b.CreateAnd(inside, insideZ);
        Reg pixel = e_.at(plane, e_.b.CreateAdd(mul(y, rowStride_), mul(x, pixelStride_)));
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
      Reg z = e_.b.CreateAdd(originZ, mul(kz, g_.dilationD)), plane = e_.at(u.input, mul(kz, planeStride_));
      Reg insideZ = leavesOutPadding_ || g_.kernelD == 1 ? nullptr : e_.b.CreateICmpULT(z, e_.i64(g_.inD));
      byRow = e_.loop(e_.i64(0), e_.i64(g_.kernelW), 1, byRow, [&](Reg kx, Regs& sums) { tap(sums, plane, insideZ, row, ky, kx); }, true);
    });
  }

  // --- the matrix unit: `together_` tiles of pixels by `vectors_` of columns ---

  static constexpr int kPixelTiles = 4, kWeightTiles = 6;  // numbers of the first; sums are tiles 0 to 3
  static int sumTile(int tile, int vector) { return 2 * tile + vector; }

  std::vector<TileUnit::Shape> tileShapes() const {
    std::vector<TileUnit::Shape> shapes(TileUnit::kTiles);
    for (int t = 0; t < together_; ++t) nth(shapes, kPixelTiles + t) = {plan_.tileRows, plan_.depth};
    for (int v = 0; v < vectors_; ++v) nth(shapes, kWeightTiles + v) = {plan_.depth / 4, TileUnit::kRowBytes};
    for (int t = 0; t < together_; ++t)
      for (int v = 0; v < vectors_; ++v) nth(shapes, sumTile(t, v)) = {plan_.tileRows, TileUnit::kRowBytes};
    return shapes;
  }

  // First pixel of a tile and where its input begins.
  struct TilePlace {
    Reg pixel, input;
  };
  TilePlace tilePlace(const Unit& u, Reg index, int64_t perLine) {
    const int64_t rows = plan_.tileRows;
    if (plan_.flat) {
      Reg pixel = e_.minOf(mul(index, rows), e_.b.CreateSub(u.pixels, e_.i64(rows)));
      return {pixel, e_.opaque(e_.at(u.input, mul(pixel, pixelStep())))};
    }
    Reg rest = index;
    Reg y = quotient(rest, perLine);
    Reg x = e_.minOf(mul(rest, rows), e_.i64(g_.outW - rows));
    Reg offset = e_.b.CreateAdd(mul(y, g_.strideH * rowStride_), mul(x, pixelStep()));
    return {e_.b.CreateAdd(mul(y, g_.outW), x), e_.opaque(e_.at(u.input, offset))};
  }

  void emitTiles(const Unit& u, Reg weights, const Epilogue::Channels& channels, Reg column) {
    const int64_t rows = plan_.tileRows, perLine = (g_.outW + rows - 1) / rows;
    Reg count = plan_.flat ? e_.b.CreateUDiv(e_.b.CreateAdd(u.pixels, e_.i64(rows - 1)), e_.i64(rows))
                           : mul(e_.b.CreateUDiv(u.pixels, e_.i64(g_.outW)), perLine);
    Reg last = e_.b.CreateSub(count, e_.i64(1));
    Reg firstPixel = e_.b.CreateAdd(mul(u.plane, g_.outH * g_.outW), mul(u.firstRow, g_.outW));
    Reg sums = e_.at(e_.scratch(), stripBytes_);
    e_.loop(
        e_.i64(0), count, together_,
        [&](Reg begin) {
          std::vector<TilePlace> places;
          for (int t = 0; t < together_; ++t)
            places.push_back(tilePlace(u, t ? e_.minOf(e_.b.CreateAdd(begin, e_.i64(t)), last) : begin, perLine));
          multiplyTiles(u, places, weights);
          const int64_t rowBytes = int64_t{vectors_} * TileUnit::kRowBytes;
          for (int t = 0; t < together_; ++t)
            for (int v = 0; v < vectors_; ++v)
              tiles_->store(sumTile(t, v), e_.at(sums, t * rows * rowBytes + v * TileUnit::kRowBytes), e_.i64(rowBytes));
          for (int t = 0; t < together_; ++t) {
            Reg pixel = e_.b.CreateAdd(firstPixel, nth(places, t).pixel);
            storeTileSums(e_.at(sums, t * rows * rowBytes), channels, pixel, column);
          }
        },
        true);
  }

  void multiplyTiles(const Unit& u, const std::vector<TilePlace>& places, Reg weights) {
    for (int t = 0; t < together_; ++t)
      for (int v = 0; v < vectors_; ++v) tiles_->zero(sumTile(t, v));
    for (int64_t half = 0; half < plan_.packing.halves; ++half) multiplyHalf(u, places, e_.at(weights, half * layout_.halfElements()));
  }

  void multiplyHalf(const Unit& u, const std::vector<TilePlace>& places, Reg weights) {
    overRows({}, rowsOf(u), [&](Regs&, Reg firstRun, Reg offset) {
      if (runsPerRow() == 1) return tileRun(places, e_.at(weights, mul(firstRun, runBytes())), offset);
      e_.loop(
          e_.i64(0), e_.i64(g_.kernelW), 1,
          [&](Reg kx) {
            tileRun(places, e_.at(weights, mul(e_.b.CreateAdd(firstRun, kx), runBytes())),
                    e_.b.CreateAdd(offset, mul(kx, g_.dilationW * pixelStride_)));
          },
          true);
    });
  }

  void tileRun(const std::vector<TilePlace>& places, Reg weights, Reg inputOffset) {
    const int64_t steps = layout_.paddedRun() / plan_.depth, panel = plan_.packing.panel;
    auto one = [&](Reg weightsHere, Reg offset) {
      for (int t = 0; t < together_; ++t) {
        tiles_->load(kPixelTiles + t, e_.at(nth(places, t).input, offset), e_.i64(pixelStep()));
        for (int v = 0; v < vectors_; ++v) {
          if (t == 0) tiles_->load(kWeightTiles + v, e_.at(weightsHere, v * TileUnit::kRowBytes), e_.i64(4 * panel));
          tiles_->dot(sumTile(t, v), kPixelTiles + t, kWeightTiles + v, TileUnit::Left::u8);
        }
      }
    };
    auto at = [&](Reg step) { one(e_.at(weights, mul(step, plan_.depth * panel)), e_.b.CreateAdd(inputOffset, mul(step, plan_.depth))); };
    int64_t unroll = std::min<int64_t>(steps, 4);
    while (steps % unroll != 0) --unroll;
    auto unrolled = [&](Reg first) {
      for (int64_t s = 0; s < unroll; ++s) at(e_.b.CreateAdd(first, e_.i64(s)));
    };
    if (steps == unroll) return unrolled(e_.i64(0));
    e_.loop(e_.i64(0), e_.i64(steps), unroll, unrolled, true);
  }

  // The sums of one tile, a few rows at a time; the last few overlap those before.
  void storeTileSums(Reg sums, const Epilogue::Channels& channels, Reg pixel, Reg column) {
    const int rowsAtOnce = std::min(4, plan_.tileRows);
    const int64_t rb = epilogue_.resultBytes(), sb = epilogue_.residualBytes();
    Regs bias;
    for (int v = 0; v < vectors_; ++v) bias.push_back(e_.load(e_.i32(isa_.lanes), e_.at(channels.bias, v * TileUnit::kRowBytes)));
    e_.loop(
        e_.i64(0), e_.i64(plan_.tileRows), rowsAtOnce,
        [&](Reg begin) {
          Reg row = e_.minOf(begin, e_.i64(plan_.tileRows - rowsAtOnce));
          Reg from = e_.at(sums, mul(row, int64_t{vectors_} * TileUnit::kRowBytes));
          Reg element = e_.b.CreateAdd(mul(e_.b.CreateAdd(pixel, row), g_.outputs), column);
          Regs acc, results, residuals;
          for (int r = 0; r < rowsAtOnce; ++r) {
            for (int v = 0; v < vectors_; ++v)
              acc.push_back(e_.b.CreateAdd(e_.load(e_.i32(isa_.lanes), e_.at(from, (int64_t{r} * vectors_ + v) * TileUnit::kRowBytes)),
                                           nth(bias, v)));
            results.push_back(e_.at(e_.at(e_.result(), mul(element, rb)), r * g_.outputs * rb));
            if (sb) residuals.push_back(e_.at(e_.at(e_.operand("residual"), mul(element, sb)), r * g_.outputs * sb));
          }
          epilogue_.store(acc, rowsAtOnce, vectors_, channels, results, residuals);
        },
        true);
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
    if (!isTail || channels.valid) {
      epilogue_.store(acc, plan_.tileRows, vectors_, channels, constantRows(out, g_.outputs * rb), constantRows(residual, g_.outputs * sb));
      return;
    }
    Reg resultTile = e_.at(e_.scratch(), stripBytes_), residualTile = e_.at(e_.scratch(), stripBytes_ + resultTile_);
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

  void copyPart(Reg to, Reg from, int64_t bytes) {
    const int width = e_.target().vectorBytes();
    for (int64_t o = 0; o < bytes; o += width) {
      const int count = static_cast<int>(std::min<int64_t>(width, bytes - o));
      e_.copyBytes(e_.at(to, o), e_.at(from, o), count);
    }
  }

  KernelEmitter& e_;
  const GemmIsa& isa_;
  const GemmPlan& plan_;
  const ConvGeometry& g_;
  PackedLayout layout_;
  int vectors_;
  Epilogue epilogue_;
  StagedStrip strip_;
  bool leavesOutPadding_;  // taps in the padding add nothing
  int64_t elementBytes_ = 1, pixelStride_ = 0, rowStride_ = 0, planeStride_ = 0, tailColumns_ = 0;
  bool masksTail_ = false;
  int64_t stripBytes_ = 0, resultTile_ = 0, residualTile_ = 0;
  int together_ = 1;  // tiles of pixels computed at a time on the matrix unit
  std::optional<Products> products_;
  std::optional<TileUnit> tiles_;
  std::optional<WeightPanel> weightPanel_;
  Reg padding_ = nullptr, offsets_ = nullptr;
};

}  // namespace

Result<KernelShape> emitGemm(KernelEmitter& e, const Node& node, const GemmPlan& plan) {
  if (node.packing("packing") != plan.packing)
    return fail(ErrorCode::kInvalidModel, "kernel '{}' takes packing '{}', the node has '{}'", e.def().id, plan.packing.str(),
                node.packing("packing").str());
  if (plan.staged && plan.conv.kernelD * plan.stagedRows * plan.stagedWidth * plan.conv.groupChannels() > INT32_MAX / 8)
    return fail(ErrorCode::kUnsupported, "one strip of the input exceeds the address range of a kernel").at(node.location());
  ConvGemm gemm(e, node, plan);
  if (!node.is("k.weight_linear")) return gemm.emit();
  QC_ASSIGN(const WeightPanels panels, WeightPanels::of(node.attrs()));
  gemm.expandWeights(panels);
  return gemm.emit();
}

}  // namespace qc
