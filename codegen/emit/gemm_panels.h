// What convolutions and matrix products have in common, whatever multiplies: a unit of work, its strip of the input, and the panels of
// weights that meet it.  Includes LLVM through emit.h.
#pragma once

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "codegen/emit/emit.h"
#include "codegen/emit/epilogue.h"
#include "codegen/emit/stage_strip.h"
#include "codegen/emit/weight_panel.h"
#include "codegen/plan/gemm.h"

namespace qc {

class GemmPanels {
 public:
  GemmPanels(KernelEmitter& e, const Node& node, const GemmPlan& plan);
  virtual ~GemmPanels() = default;
  GemmPanels(const GemmPanels&) = delete;
  GemmPanels& operator=(const GemmPanels&) = delete;

  KernelShape emit();

 protected:
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

  // A panel of weights that meets the strip of a unit.
  struct Panel {
    Reg index, weights;
    Epilogue::Channels channels;
    Reg column;  // first output channel
  };

  virtual void begin() = 0;  // what all units need
  virtual void multiply(const Unit& unit, const Panel& panel) = 0;
  virtual void end() {}
  // Address of the weights: those of a panel of one group, and counted through all groups.
  virtual Reg weightsOf(Reg panel, Reg globalPanel);
  virtual int64_t stripBytes() const { return plan_.staged ? strip_.bytes() : 0; }
  // So many bytes behind the strip in scratch.
  Reg behindStrip(int64_t bytes) {
    return plan_.cut.stripBytes.isFree ? e_.at(e_.at(e_.scratch(), e_.number(plan_.cut.stripBytes)), bytes)
                                       : e_.at(e_.scratch(), stripBytes() + bytes);
  }
  virtual int64_t scratchBytes() const = 0;  // of a thread

  Reg mul(Reg a, int64_t c) { return c == 1 ? a : e_.b.CreateMul(a, e_.i64(c)); }
  Reg mul(Reg a, Reg c) {
    const auto known = e_.known(c);
    return known ? mul(a, *known) : e_.b.CreateMul(a, c);
  }
  Reg mul(Reg a, const Number& n) { return n.isFree ? e_.b.CreateMul(a, e_.number(n)) : mul(a, n.value); }
  // value becomes the remainder
  Reg quotient(Reg& value, int64_t divisor);
  Reg quotient(Reg& value, Reg divisor);

  // Bytes from a line of the input to the next, from plane to plane, and between pixels of the result.
  Reg rowStride() {
    return plan_.staged ? stagedRowBytes(e_, strip_) : e_.b.CreateMul(e_.number(plan_.size.inW), e_.i64(g_.channels * elementBytes_));
  }
  Reg planeStride() {
    return plan_.staged ? stagedPlaneBytes(e_, strip_)
                        : e_.b.CreateMul(e_.number(plan_.size.inH), e_.b.CreateMul(rowStride(), e_.i64(g_.dilationD)));
  }
  Reg lineDistance() { return e_.b.CreateMul(rowStride(), e_.i64(g_.strideH)); }
  Reg pixelDistance() { return g_.outW == 1 ? lineDistance() : e_.i64(g_.strideW * pixelStride_); }
  bool isLinear() const { return plan_.isLinear(); }
  Reg firstPixelOf(const Unit& u) {
    return e_.b.CreateAdd(mul(u.plane, e_.b.CreateMul(e_.number(plan_.size.outH), e_.number(plan_.size.outW))),
                          mul(u.firstRow, plan_.size.outW));
  }

  int64_t runBytes() const { return layout_.paddedRun() * plan_.packing.panel * sizeOf(isa_.weight); }
  int64_t runsPerRow() const { return plan_.packing.rowRuns ? 1 : g_.kernelW; }

  Rows rowsOf(const Unit& u) { return {mul(u.beginZ, g_.kernelH), mul(u.endZ, g_.kernelH)}; }

  // The values carried through body(first run of a row, input offset of the row).
  std::vector<Reg> overRows(std::vector<Reg> acc, const Rows& rows, const std::function<void(std::vector<Reg>&, Reg, Reg)>& body);

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
  Reg padding_ = nullptr;

 private:
  Reg paddingVector();
  void emitUnit(Reg unit);
  void emitPanel(const Unit& u, Reg panel);
};

// On vector registers, a tile of sums at a time; weights of k.weight_linear become floats panel by panel.
KernelShape emitOnRegisters(KernelEmitter& e, const Node& node, const GemmPlan& plan, const WeightPanels* expanded);
// On the matrix unit.
KernelShape emitOnTiles(KernelEmitter& e, const Node& node, const GemmPlan& plan);

}  // namespace qc
