// The matrix unit of AMX as emitters use it: eight tiles of up to 16 rows of 64 bytes, configured once per call of a
// kernel.  For a target with emulated tiles (target.h) the same calls become vector code over tiles in memory: the way
// to test kernels to the bit on machines without the unit, not a way to compute.
//
//   TileUnit tiles(e, {{16, 64}, {16, 64}, {16, 64}});  // rows and bytes per row of tiles 0, 1, 2; rows may be a number of the plan
//   tiles.zero(0);
//   tiles.load(1, pixels, e.i64(stride));               // 16 rows of 64 bytes of k
//   tiles.load(2, weights, e.i64(64));                  // 16 rows of 16 columns x 4 bytes of k
//   tiles.dot(0, 1, 2, TileUnit::Left::u8);             // tile 0 += tile 1 * tile 2, in int32
//   tiles.store(0, sums, e.i64(64));
//   tiles.release();                                    // on the way out
//
// Memory beyond the configured rows and bytes is not touched.
#pragma once

#include <vector>

#include "codegen/emit/emit.h"

namespace qc {

class TileUnit {
 public:
  static constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;
  struct Shape {
    Number rows;  // 0: unused
    int bytes = 0;
  };
  enum class Left : uint8_t { u8, s8 };  // the left factors; the right ones are s8

  // Where the builder stands: in front of all loops.  At most kTiles shapes.
  TileUnit(KernelEmitter& e, std::vector<Shape> shapes);

  void zero(int tile);
  void load(int tile, Reg pointer, Reg stride);
  void store(int tile, Reg pointer, Reg stride);
  // Shapes must fit: sum [m][n], left [m][k], right [k/4][n][4].
  void dot(int sum, int left, int right, Left leftType);
  void release();

 private:
  const Shape& shapeOf(int tile) const { return nth(shapes_, tile); }
  Reg row(int tile, Reg index) {
    return e_.at(memory_, e_.b.CreateAdd(e_.i64(int64_t{tile} * kRows * kRowBytes), e_.b.CreateMul(index, e_.i64(kRowBytes))));
  }
  void forRows(int tile, const std::function<void(Reg)>& body) { e_.loop(e_.i64(0), e_.number(shapeOf(tile).rows), 1, body, true); }

  Reg configuration();

  KernelEmitter& e_;
  std::vector<Shape> shapes_;
  Reg memory_ = nullptr;  // of emulated tiles
};

}  // namespace qc
