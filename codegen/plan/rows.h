// Rows: a tensor seen as [outer][length][inner], of which an op reduces the middle dim.  An emitter is written once against this
// class; what is a vector depends on the form.  Along (inner = 1): a vector is a piece of one row and results are splats.
// Across (inner > 1): a vector is one element each of neighbouring rows.  Sums are qmath::StripedSum in both.
//
//   return emitRows(e, space, [&](Rows& rows) {
//     Reg x = rows.at(e.operand(0), 4), y = rows.at(e.result(), 4);
//     Reg total = rows.sum([&](Reg i, LaneCount lanes) { return rows.load(x, i, lanes); });
//     rows.each([&](Reg i, LaneCount lanes) { rows.store(e.b.CreateFDiv(rows.load(x, i, lanes), total), y, i, lanes); });
//   });
#pragma once

#include <optional>

#include "codegen/emit/emit.h"
#include "codegen/plan/cost.h"

namespace qc {

struct RowSpace {
  Number outer = 1, length = 1, inner = 1;
  int lanes = 4;  // of the widest float vector
  bool along() const { return inner.is(1); }
  // Around one axis, or around axes that have only dims of size 1 between them; nothing for other axes.
  static std::optional<RowSpace> around(const Shape& shape, const std::vector<int64_t>& axes, const Target& target);

  int width() const { return laneCount(lanes, along() ? length : inner); }
  int64_t blocks() const { return along() ? 1 : (inner.value + width() - 1) / width(); }  // vectors of rows side by side
  void eachNumber(const NumberVisitor& visit) { visit(outer), visit(length), visit(inner); }
  std::string form() const { return "rows"; }
  KernelShape shape() const { return {outer.value * blocks(), 0}; }
};

// What kernels on rows do, whatever they compute there: cost.h.
Work workOnRows(const RowSpace& space, const Node& node, const Target& target);

class Rows {
 public:
  Rows(KernelEmitter& e, const RowSpace& space, Reg outer, Reg column, int width, LaneCount count)
      : e_(e), space_(space), outer_(outer), column_(column), width_(width), count_(count) {}

  KernelEmitter& emitter() const { return e_; }
  const RowSpace& space() const { return space_; }
  int width() const { return width_; }  // lanes of every vector
  Reg length() const { return e_.number(space_.length); }
  Reg lengthInFloats() const { return e_.splat(e_.b.CreateSIToFP(length(), e_.f32()), width_); }
  Reg inner() const { return e_.number(space_.inner); }
  Reg outer() const { return outer_; }          // along: the row
  Reg column() const { return column_; }        // across: the first of the rows, within inner
  LaneCount columns() const { return count_; }  // across: how many of them; along: 1

  // Where the row, or the first of the rows, starts in a tensor like x, or in one with one element per row (a reduction's result).
  Reg at(Reg tensor, int64_t elementBytes) const;
  Reg reducedAt(Reg tensor, int64_t elementBytes) const;

  // Element i of every row in the vector, or elements [i, i + lanes) of the row; float, or integers of at most 16 bits (widened to i32
  // lanes).
  Reg load(Reg row, Reg i, LaneCount lanes) const;
  Reg loadIntegers(Reg row, Reg i, LaneCount lanes, DType t) const;
  void store(Reg v, Reg row, Reg i, LaneCount lanes) const;

  // All vectors in order; lanes is how many of the vector's are in use.  The body replaces what is carried.
  void each(const std::function<void(Reg i, LaneCount lanes)>& visit) const;
  KernelEmitter::Values fold(KernelEmitter::Values carried,
                             const std::function<void(Reg i, LaneCount lanes, KernelEmitter::Values&)>& body) const;
  // term(i, lanes) gives float lanes; those not in use count as zero.
  Reg sum(const std::function<Reg(Reg i, LaneCount lanes)>& term) const;
  // Lanes not in use replaced, so that they have no part in a fold.  Across, they have none anyway.
  Reg masked(Reg v, LaneCount lanes, Reg others) const;
  // Along: all lanes combined and splat.  Across: v itself.
  Reg combined(Reg v, const std::function<Reg(Reg, Reg)>& combine) const;

 private:
  Reg byteOffset(Reg i, int64_t elementBytes) const { return e_.b.CreateMul(i, times(inner(), elementBytes)); }
  Reg times(Reg a, int64_t factor) const { return e_.b.CreateMul(a, e_.i64(factor)); }
  Reg sumAlong(const std::function<Reg(Reg, LaneCount)>& term) const;
  Reg sumAcross(const std::function<Reg(Reg, LaneCount)>& term) const;

  KernelEmitter& e_;
  RowSpace space_;
  Reg outer_, column_;
  int width_;
  LaneCount count_;
};

// What a reduction gives for each row, to the node's first result.
void storeReduced(const Rows& rows, Reg v);

// A unit is one row, or one vector of rows.
KernelShape emitRows(KernelEmitter& e, const RowSpace& space, const std::function<void(Rows&)>& body);

}  // namespace qc
