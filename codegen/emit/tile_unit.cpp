#include "codegen/emit/tile_unit.h"

#include <algorithm>

namespace qc {

using namespace llvm::Intrinsic;

TileUnit::TileUnit(KernelEmitter& e, std::vector<Shape> shapes) : e_(e), shapes_(std::move(shapes)) {
  QC_CHECK(shapes_.size() <= kTiles, "more than {} tiles", kTiles);
  for (const Shape& s : shapes_)
    QC_CHECK(s.rows.value <= kRows && s.bytes <= kRowBytes && s.bytes % 4 == 0, "tile of {} x {}", s.rows.value, s.bytes);
  if (e.target().emulatesTiles())
    memory_ = e.b.CreateAlloca(e.b.getInt8Ty(), e.i64(int64_t{kTiles} * kRows * kRowBytes));
  else
    e.intrinsic(x86_ldtilecfg, {configuration()});
}

// The operand of ldtilecfg, palette 1: bytes per row from byte 16 on, 16 bits each; rows from byte 48 on, 8 bits each.
Reg TileUnit::configuration() {
  constexpr int kWords = 16, kFirstRows = 48;
  std::vector<int32_t> words(kWords, 0);
  words[0] = 1;
  bool isFixed = true;
  for (size_t t = 0; t < shapes_.size(); ++t) {
    const Number& rows = shapes_[t].rows;
    words[4 + t / 2] |= shapes_[t].bytes << (t % 2 * 16);
    if (rows.isFree)
      isFixed = false;
    else
      words[12 + t / 4] |= static_cast<int32_t>(rows.value) << (t % 4 * 8);
  }
  Reg fixed = e_.table(words);
  if (isFixed) return fixed;
  Reg made = e_.b.CreateAlloca(e_.i32(kWords));
  e_.store(e_.load(e_.i32(kWords), fixed), made);
  for (size_t t = 0; t < shapes_.size(); ++t)
    if (shapes_[t].rows.isFree)
      e_.store(e_.b.CreateTrunc(e_.number(shapes_[t].rows), e_.b.getInt8Ty()), e_.at(made, kFirstRows + static_cast<int64_t>(t)));
  return made;
}

void TileUnit::release() {
  if (!memory_) e_.intrinsic(x86_tilerelease, {});
}

void TileUnit::zero(int tile) {
  if (!memory_) return void(e_.intrinsic(x86_tilezero, {e_.b.getInt8(static_cast<uint8_t>(tile))}));
  forRows(tile, [&](Reg r) { e_.store(llvm::Constant::getNullValue(e_.i8(kRowBytes)), row(tile, r)); });
}

void TileUnit::load(int tile, Reg pointer, Reg stride) {
  if (!memory_) return void(e_.intrinsic(x86_tileloadd64, {e_.b.getInt8(static_cast<uint8_t>(tile)), pointer, stride}));
  forRows(tile, [&](Reg r) {
    e_.store(e_.loadPart(e_.i8(kRowBytes), e_.at(pointer, e_.b.CreateMul(r, stride)), shapeOf(tile).bytes), row(tile, r));
  });
}

void TileUnit::store(int tile, Reg pointer, Reg stride) {
  if (!memory_) return void(e_.intrinsic(x86_tilestored64, {e_.b.getInt8(static_cast<uint8_t>(tile)), pointer, stride}));
  forRows(tile, [&](Reg r) {
    e_.storePart(e_.load(e_.i8(kRowBytes), row(tile, r)), e_.at(pointer, e_.b.CreateMul(r, stride)), shapeOf(tile).bytes);
  });
}

void TileUnit::dot(int sum, int left, int right, Left leftType) {
  const Shape &s = shapeOf(sum), &l = shapeOf(left), &r = shapeOf(right);
  QC_CHECK(s.rows.value == l.rows.value && l.bytes == 4 * r.rows.value && s.bytes == r.bytes, "tiles {}, {}, {} do not fit", sum, left,
           right);
  if (!memory_) {
    const auto number = [&](int tile) { return e_.b.getInt8(static_cast<uint8_t>(tile)); };
    e_.intrinsic(leftType == Left::u8 ? x86_tdpbusd : x86_tdpbssd, {number(sum), number(left), number(right)});
    return;
  }
  llvm::Type* ints = e_.i32(kRowBytes / 4);
  forRows(sum, [&](Reg m) {
    KernelEmitter::Values acc{e_.load(ints, row(sum, m))};
    acc = e_.loop(
        e_.i64(0), e_.number(r.rows), 1, acc,
        [&](Reg k, KernelEmitter::Values& sums) {
          Reg weights = e_.load(ints, row(right, k));
          Reg factors = e_.at(row(left, m), e_.b.CreateShl(k, e_.i64(2)));
          for (int i = 0; i < 4; ++i) {
            Reg byte = e_.load(e_.b.getInt8Ty(), e_.at(factors, i));
            Reg factor = leftType == Left::u8 ? e_.b.CreateZExt(byte, e_.b.getInt32Ty()) : e_.b.CreateSExt(byte, e_.b.getInt32Ty());
            Reg weight = e_.b.CreateAShr(e_.b.CreateShl(weights, e_.ints(24 - 8 * i, ints)), e_.ints(24, ints));
            sums[0] = e_.b.CreateAdd(sums[0], e_.b.CreateMul(e_.splat(factor, kRowBytes / 4), weight));
          }
        },
        true);
    e_.store(acc[0], row(sum, m));
  });
}

}  // namespace qc
