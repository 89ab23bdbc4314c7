// Convolutions and matrix products on the matrix unit: `together_` tiles of pixels by `vectors_` of columns at a time, a block.
//
// Blocks go through a pipeline, from panel to panel and from unit to unit: while one is multiplied, the sums of the block before are stored
// from tiles to memory, and those of the block before that become results, a few rows between any two products.  Until the pipeline is full
// there is no such block; what it would give goes to a row in scratch.
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
      : GemmPanels(e, node, plan),
        together_(plan.together),
        tileRows_(plan.cut.tileRows.isFree ? TileUnit::kRows : plan.tileRows),
        pieceRows_(plan.pieceRows),
        pieces_((tileRows_ + pieceRows_ - 1) / pieceRows_),
        residual_(epilogue_.hasResidual() ? e.operand("residual") : nullptr) {}

 private:
  static constexpr int64_t kUnrolledSteps = 8;
  // Tiles 0 to 3 hold sums, the others pixels and weights: of what has more than its share, in turns.
  int sumTile(int tile, int vector) const { return vectors_ * tile + vector; }
  int pixelTile(int tile) const { return vectors_ == 1 ? 4 + tile % 3 : 4 + tile; }
  int weightTile(int vector) const { return vectors_ == 4 ? 5 + vector % 3 : vectors_ == 2 ? 6 + vector : 7; }

  // Scratch: the strip, two buffers for the sums of a block, and a row that results go to while the pipeline fills.
  int64_t sumRowBytes() const { return int64_t{vectors_} * TileUnit::kRowBytes; }
  int64_t tileBytes() const { return tileRows_ * sumRowBytes(); }  // sums of as many pixels
  int64_t sumBytes() const { return together_ * tileBytes(); }
  int64_t scratchBytes() const override { return stripBytes() + 2 * sumBytes() + sumRowBytes(); }

  std::vector<TileUnit::Shape> tileShapes() const {
    std::vector<TileUnit::Shape> shapes(TileUnit::kTiles);
    for (int t = 0; t < together_; ++t) nth(shapes, pixelTile(t)) = {plan_.cut.tileRows, plan_.depth};
    for (int v = 0; v < vectors_; ++v) nth(shapes, weightTile(v)) = {plan_.depth / 4, TileUnit::kRowBytes};
    for (int t = 0; t < together_; ++t)
      for (int v = 0; v < vectors_; ++v) nth(shapes, sumTile(t, v)) = {plan_.cut.tileRows, TileUnit::kRowBytes};
    return shapes;
  }

  // Where the results of a block go, kept in a place on the stack: the pipeline runs on from panel to panel and from unit to unit.
  struct Block {
    Reg result[4], residual[4];        // addresses of the first row of each tile
    Reg resultStride, residualStride;  // bytes from row to row
    Epilogue::Channels channels;
  };
  static constexpr int kBlockWords = 13;

  std::vector<Reg*> words(Block& block) const {
    std::vector<Reg*> all;
    for (int t = 0; t < together_; ++t) all.push_back(&block.result[t]);
    all.push_back(&block.resultStride);
    if (residual_) {
      for (int t = 0; t < together_; ++t) all.push_back(&block.residual[t]);
      all.push_back(&block.residualStride);
    }
    if (e_.operand("scale")) all.push_back(&block.channels.scale);
    all.push_back(&block.channels.bias);
    if (masksTail_) all.push_back(&block.channels.valid);
    return all;
  }
  void keep(Block block, Reg place) {
    int64_t i = 0;
    for (Reg* word : words(block)) e_.store(*word, e_.at(place, 8 * i++));
  }
  Block kept(Reg place) {
    Block block;
    int64_t i = 0;
    for (Reg* word : words(block))
      *word = e_.load(word == &block.resultStride || word == &block.residualStride || word == &block.channels.valid
                          ? e_.b.getInt64Ty()
                          : static_cast<llvm::Type*>(e_.b.getPtrTy()),
                      e_.at(place, 8 * i++));
    return block;
  }

  // Results that nobody wants: of no block.
  Block nowhere() {
    Reg row = behindStrip(2 * sumBytes());
    Block block{.result = {row, row, row, row},
                .residual = {row, row, row, row},
                .resultStride = e_.i64(0),
                .residualStride = e_.i64(0),
                .channels = {}};
    block.channels = {.scale = e_.operand("scale"), .bias = e_.operand("bias"), .valid = e_.i64(-1)};
    return block;
  }

  void begin() override {
    tiles_.emplace(e_, tileShapes());
    const auto place = [&](int64_t count) { return e_.b.CreateAlloca(e_.b.getInt64Ty(), e_.i64(count)); };
    inTiles_ = place(kBlockWords), inMemory_ = place(kBlockWords), buffers_ = place(2);
    keep(nowhere(), inTiles_);
    keep(nowhere(), inMemory_);
    for (int i = 0; i < 2; ++i) e_.store(behindStrip(i * sumBytes()), e_.at(buffers_, 8 * i));
  }

  void end() override {
    for (int rest = 0; rest < 2; ++rest) {
      storeTiles();
      const Block before = kept(inMemory_);
      Reg sums = buffer(1);
      e_.loop(e_.i64(0), e_.i64(together_ * pieces_), 1, [&](Reg piece) { storePiece(before, sums, piece); }, true);
      step(kept(inTiles_));
    }
    tiles_->release();
  }

  Reg buffer(int i) { return e_.load(e_.b.getPtrTy(), e_.at(buffers_, 8 * i)); }  // 0: for the sums in tiles; 1: of the block in memory

  void storeTiles() {
    Reg sums = buffer(0);
    for (int t = 0; t < together_; ++t)
      for (int v = 0; v < vectors_; ++v)
        tiles_->store(sumTile(t, v), e_.at(sums, t * tileBytes() + v * TileUnit::kRowBytes), e_.i64(sumRowBytes()));
  }

  // The block in tiles is in memory now, `block` in tiles.
  void step(const Block& block) {
    keep(kept(inTiles_), inMemory_);
    keep(block, inTiles_);
    Reg first = buffer(0), second = buffer(1);
    e_.store(second, buffers_);
    e_.store(first, e_.at(buffers_, 8));
  }

  // First pixel of a tile and where its input begins.
  struct TilePlace {
    Reg pixel, input;
  };
  TilePlace tilePlace(const Unit& u, Reg index, Reg perLine) {
    Reg rows = e_.number(plan_.cut.tileRows);
    if (plan_.flat) {
      Reg pixel = e_.minOf(mul(index, rows), e_.b.CreateSub(u.pixels, rows));
      return {pixel, e_.opaque(e_.at(u.input, mul(pixel, pixelDistance())))};
    }
    Reg rest = index, width = e_.number(plan_.size.outW);
    Reg y = quotient(rest, perLine);
    Reg x = e_.minOf(mul(rest, rows), e_.b.CreateSub(width, rows));
    Reg offset = e_.b.CreateAdd(mul(y, lineDistance()), mul(x, pixelDistance()));
    return {e_.b.CreateAdd(mul(y, width), x), e_.opaque(e_.at(u.input, offset))};
  }

  void multiply(const Unit& u, const Panel& p) override {
    Reg perLine = e_.number(plan_.cut.tilesPerLine), rows = e_.number(plan_.cut.tileRows);
    Reg count = plan_.flat ? e_.b.CreateUDiv(e_.b.CreateAdd(u.pixels, e_.b.CreateSub(rows, e_.i64(1))), rows)
                           : mul(e_.b.CreateUDiv(u.pixels, e_.number(plan_.size.outW)), perLine);
    Reg last = e_.b.CreateSub(count, e_.i64(1));
    Reg firstPixel = firstPixelOf(u);
    const int64_t rb = epilogue_.resultBytes(), sb = epilogue_.residualBytes();
    e_.loop(
        e_.i64(0), count, together_,
        [&](Reg begin) {
          std::vector<TilePlace> places;
          Block block{.result = {},
                      .residual = {},
                      .resultStride = e_.i64(g_.outputs * rb),
                      .residualStride = e_.i64(g_.outputs * sb),
                      .channels = p.channels};
          for (int t = 0; t < together_; ++t) {
            places.push_back(tilePlace(u, t ? e_.minOf(e_.b.CreateAdd(begin, e_.i64(t)), last) : begin, perLine));
            Reg element = e_.b.CreateAdd(mul(e_.b.CreateAdd(firstPixel, places.back().pixel), g_.outputs), p.column);
            block.result[t] = e_.at(e_.result(), mul(element, rb));
            if (residual_) block.residual[t] = e_.at(residual_, mul(element, sb));
          }
          multiplyBlock(places, p, begin);
          step(block);
        },
        true);
  }

  // The products of a block; between them the sums of the block before move to memory, and those of the one before it become results.
  void multiplyBlock(const std::vector<TilePlace>& places, const Panel& p, Reg firstTile) {
    const std::vector<int32_t> offsets = plan_.stepOffsets();
    const int64_t steps = std::ssize(offsets), stepBytes = int64_t{plan_.depth} * plan_.packing.panel,
                  pieces = int64_t{together_} * pieces_;
    QC_CHECK(steps * stepBytes == layout_.panelElements(), "steps of {} bytes do not cover a panel of {}", stepBytes,
             layout_.panelElements());
    storeTiles();
    for (int t = 0; t < together_; ++t)
      for (int v = 0; v < vectors_; ++v) tiles_->zero(sumTile(t, v));
    const Block before = kept(inMemory_);
    Reg sums = buffer(1);
    const int64_t dots = int64_t{together_} * vectors_;
    const auto multiplyStep = [&](Reg weights, Reg offset, const std::function<void(int64_t)>& between) {
      int64_t done = 0;
      fetchAhead(e_.at(weights, layout_.panelElements()), firstTile);
      for (int t = 0; t < together_; ++t) {
        tiles_->load(pixelTile(t), e_.at(nth(places, t).input, offset), pixelDistance());
        for (int v = 0; v < vectors_; ++v) {
          if (t == 0) tiles_->load(weightTile(v), e_.at(weights, v * TileUnit::kRowBytes), e_.i64(int64_t{4} * plan_.packing.panel));
          tiles_->dot(sumTile(t, v), pixelTile(t), weightTile(v), TileUnit::Left::u8);
          between(++done);
        }
      }
    };
    Reg table = plan_.hasTable() ? e_.tableAt(plan_.tableSlot) : nullptr;
    const auto offsetAt = [&](Reg place) { return e_.b.CreateSExt(e_.load(e_.b.getInt32Ty(), e_.at(table, place)), e_.b.getInt64Ty()); };
    if (steps <= kUnrolledSteps) {
      int64_t stored = 0;
      for (int64_t s = 0; s < steps; ++s)
        multiplyStep(e_.at(p.weights, s * stepBytes), table ? offsetAt(e_.i64(4 * s)) : e_.i64(nth(offsets, s)), [&](int64_t done) {
          for (; stored < pieces * (s * dots + done) / (steps * dots); ++stored) storePiece(before, sums, e_.i64(stored));
        });
      return;
    }
    if (!table) table = e_.table(offsets);
    e_.loop(
        e_.i64(0), e_.i64(steps), 1,
        [&](Reg s) {
          multiplyStep(e_.at(p.weights, mul(s, stepBytes)), offsetAt(mul(s, 4)), [](int64_t) {});
          const auto share = [&](Reg step) { return e_.b.CreateUDiv(mul(step, pieces), e_.i64(steps)); };
          e_.loop(share(s), share(e_.b.CreateAdd(s, e_.i64(1))), 1, [&](Reg piece) { storePiece(before, sums, piece); });
        },
        true);
  }

  // A share of what the next panel has in place of these weights: else the unit would wait for each of its loads.
  void fetchAhead(Reg next, Reg firstTile) {
    const Number& lines = plan_.cut.fetchedLines;
    if (lines.is(0)) return;
    constexpr int64_t kLine = 64;
    Reg from = e_.at(next, mul(mul(e_.b.CreateUDiv(firstTile, e_.i64(together_)), lines), kLine));
    if (lines.isFree)
      e_.loop(e_.i64(0), e_.number(lines), 1, [&](Reg line) { e_.prefetch(e_.at(from, mul(line, kLine))); });
    else
      for (int64_t line = 0; line < lines.value; ++line) e_.prefetch(e_.at(from, line * kLine));
  }

  // A few rows of one tile; the last of a tile overlap those before.  Tiles of any number of rows have pieces of nothing.
  void storePiece(const Block& block, Reg sums, Reg piece) {
    Reg tile = e_.b.CreateUDiv(piece, e_.i64(pieces_)), inTile = e_.b.CreateSub(piece, mul(tile, pieces_));
    Reg row = mul(inTile, pieceRows_), rows = e_.number(plan_.cut.tileRows);
    const auto store = [&] { storeRows(block, sums, tile, e_.minOf(row, e_.b.CreateSub(rows, e_.i64(pieceRows_)))); };
    if (plan_.cut.tileRows.isFree)
      e_.ifThen(e_.b.CreateICmpSLT(row, rows), store);
    else
      store();
  }

  void storeRows(const Block& block, Reg sums, Reg tile, Reg row) {
    Reg from = e_.at(e_.at(sums, mul(tile, tileBytes())), mul(row, sumRowBytes()));
    const auto addressIn = [&](const Reg(&of)[4], int64_t firstWord, Reg stride) {
      const auto known = e_.known(tile);
      Reg base = known ? of[*known] : e_.load(e_.b.getPtrTy(), e_.at(e_.at(inMemory_, 8 * firstWord), mul(tile, 8)));
      return e_.at(base, e_.b.CreateMul(row, stride));
    };
    Reg result = addressIn(block.result, 0, block.resultStride);
    Reg residual = residual_ ? addressIn(block.residual, together_ + 1, block.residualStride) : nullptr;
    Regs acc, results, residuals;
    for (int r = 0; r < pieceRows_; ++r) {
      for (int v = 0; v < vectors_; ++v) {
        Reg sum = e_.load(e_.i32(isa_.lanes), e_.at(from, r * sumRowBytes() + v * TileUnit::kRowBytes));
        acc.push_back(e_.b.CreateAdd(sum, e_.load(e_.i32(isa_.lanes), e_.at(block.channels.bias, v * TileUnit::kRowBytes))));
      }
      results.push_back(result);
      result = e_.at(result, block.resultStride);
      if (!residual_) continue;
      residuals.push_back(residual);
      residual = e_.at(residual, block.residualStride);
    }
    epilogue_.store(acc, pieceRows_, vectors_, block.channels, results, residuals);
  }

  int together_;   // tiles of pixels computed at a time: a block
  int tileRows_;   // the most that a tile has
  int pieceRows_;  // rows of sums that become results together
  int pieces_;     // of a tile
  Reg residual_;
  std::optional<TileUnit> tiles_;
  Reg inTiles_ = nullptr, inMemory_ = nullptr, buffers_ = nullptr;
};

}  // namespace

KernelShape emitOnTiles(KernelEmitter& e, const Node& node, const GemmPlan& plan) { return TileGemm(e, node, plan).emit(); }

}  // namespace qc
