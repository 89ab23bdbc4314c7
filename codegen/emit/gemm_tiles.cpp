// Convolutions and matrix products on the matrix unit: `together_` tiles of pixels by `vectors_` of columns at a time.
#include <algorithm>
#include <optional>

#include "codegen/emit/gemm_panels.h"
#include "codegen/emit/tile_unit.h"

namespace qc {
namespace {

using Regs = std::vector<Reg>;

class TileGemm final : public GemmPanels {
 public:
  TileGemm(KernelEmitter& e, const Node& node, const GemmPlan& plan)
      : GemmPanels(e, node, plan), together_(plan.tilesOf(plan.stripRows * g_.outW) > 1 ? 2 : 1) {}

 private:
  void begin() override { tiles_.emplace(e_, tileShapes()); }
  void end() override { tiles_->release(); }
  int64_t scratchBytes() const override { return stripBytes() + together_ * plan_.tileRows * vectors_ * TileUnit::kRowBytes; }

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

  void multiply(const Unit& u, const Panel& p) override {
    const int64_t rows = plan_.tileRows, perLine = (g_.outW + rows - 1) / rows;
    Reg count = plan_.flat ? e_.b.CreateUDiv(e_.b.CreateAdd(u.pixels, e_.i64(rows - 1)), e_.i64(rows))
                           : mul(e_.b.CreateUDiv(u.pixels, e_.i64(g_.outW)), perLine);
    Reg last = e_.b.CreateSub(count, e_.i64(1));
    Reg firstPixel = firstPixelOf(u);
    Reg sums = e_.at(e_.scratch(), stripBytes());
    e_.loop(
        e_.i64(0), count, together_,
        [&](Reg begin) {
          std::vector<TilePlace> places;
          for (int t = 0; t < together_; ++t)
            places.push_back(tilePlace(u, t ? e_.minOf(e_.b.CreateAdd(begin, e_.i64(t)), last) : begin, perLine));
          multiplyTiles(u, places, p.weights);
          const int64_t rowBytes = int64_t{vectors_} * TileUnit::kRowBytes;
          for (int t = 0; t < together_; ++t)
            for (int v = 0; v < vectors_; ++v)
              tiles_->store(sumTile(t, v), e_.at(sums, t * rows * rowBytes + v * TileUnit::kRowBytes), e_.i64(rowBytes));
          for (int t = 0; t < together_; ++t) {
            Reg pixel = e_.b.CreateAdd(firstPixel, nth(places, t).pixel);
            storeTileSums(e_.at(sums, t * rows * rowBytes), p.channels, pixel, p.column);
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

  int together_;  // tiles of pixels computed at a time
  std::optional<TileUnit> tiles_;
};

}  // namespace

KernelShape emitOnTiles(KernelEmitter& e, const Node& node, const GemmPlan& plan) { return TileGemm(e, node, plan).emit(); }

}  // namespace qc
