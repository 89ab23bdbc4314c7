// What the emitters of ops that address elements by integer indices share.  Includes LLVM through emit.h.
#pragma once

#include <functional>
#include <vector>

#include "codegen/emit/emit.h"
#include "codegen/plan/number.h"

namespace qc {

inline int64_t bytesOf(const Node& node, int operand) { return sizeOf(node.operand(operand)->type().dtype); }
inline double elementsOf(const Value* v) { return static_cast<double>(v->type().numElements()); }

inline Reg scaled(KernelEmitter& e, Reg i, int64_t factor) { return factor == 1 ? i : e.b.CreateMul(i, e.i64(factor)); }
inline Reg scaled(KernelEmitter& e, Reg i, const Number& factor) { return factor.is(1) ? i : e.b.CreateMul(i, e.number(factor)); }

// Calls body(i) for i in [0, count), shared out in units that pay for their arithmetic; and how many those are.
KernelShape emitBlocks(KernelEmitter& e, const Number& count, int64_t bytesOfOne, const std::function<void(Reg)>& body);
KernelShape shapeOfBlocks(const Number& count, int64_t bytesOfOne);

// The floats at places of a buffer, counted in elements, of integer lanes.
inline Reg gatheredFloats(KernelEmitter& e, Reg base, Reg places) {
  Reg addresses = e.b.CreateGEP(e.b.getFloatTy(), base, places);
  return e.b.CreateMaskedGather(e.f32(KernelEmitter::lanesOf(places)), addresses, llvm::Align(4));
}
// Of a buffer whose places are 32-bit lanes.
constexpr int64_t kMaxGatheredElements = int64_t{1} << 30;

// The first `left` lanes of a vector, or all of them.
inline void storeLeft(KernelEmitter& e, Reg vector, Reg to, Reg left) {
  e.ifThen(
      e.b.CreateICmpSLT(left, e.i64(KernelEmitter::lanesOf(vector))), [&] { e.storePart(vector, to, LaneCount(left)); },
      [&] { e.store(vector, to); });
}

// Lanes that count up from `first`, those beyond `last` as that.
inline Reg countedLanes(KernelEmitter& e, Reg first, Reg last, int width) {
  llvm::SmallVector<llvm::Constant*> lanes;
  for (int i = 0; i < width; ++i) lanes.push_back(llvm::ConstantInt::get(first->getType(), static_cast<uint64_t>(i)));
  Reg most = e.splat(last, width), lane = e.b.CreateAdd(e.splat(first, width), llvm::ConstantVector::get(lanes));
  return e.b.CreateSelect(e.b.CreateICmpSLT(lane, most), lane, most);
}

// The number at `place` of an integer operand, as i64.
Reg loadInteger(KernelEmitter& e, const Node& node, int operand, Reg place);

// The index at `place` of an operand of indices, counted from the start of a dim of `size`.  One outside of it is refused, and 0 taken
// so that nothing outside is touched.  size > 0.
Reg checkedIndex(KernelEmitter& e, const Node& node, int operand, Reg place, Reg size);

// gather_nd, scatter_nd: every tuple of indices addresses one run of x.
struct Slices {
  std::vector<Number> dims;        // that the tuples address
  Number count = 0, perBatch = 1;  // tuples, those of one batch entry
  Number addressed = 1;            // runs of x, in one batch entry
  int64_t run = 0, runBytes = 0;   // elements of a run
  bool batched = false;
  bool hasOneRun = true;  // of every size of what was free

  explicit Slices(const Node& node);
  bool isEmpty() const { return count.value == 0 || run == 0 || addressed.value == 0; }
  void eachNumber(const NumberVisitor& visit) {
    for (Number& dim : dims) visit(dim);
    visit(count), visit(perBatch), visit(addressed);
  }
  std::string form() const { return fmt::format("{} of {}", batched ? "batches" : "tuples", run); }

  // Which run of x tuple s addresses.
  Reg runOf(KernelEmitter& e, const Node& node, Reg s) const;
};

// KernelFamily::onlyNumbers of those: a run is code of its own.
template <class Plan>
bool hasOneRun(const Plan& slices, const Node&) {
  return slices.hasOneRun;
}

// gather_elements, scatter_elements: dims of x and of the indices, where the indices reach: neighbours that count through on both sides are
// one.
struct IndexedElements {
  struct Axis {
    Number x, indices;                    // sizes
    Number xStride = 1, placeStride = 1;  // elements of x and indices between neighbours
  };
  std::vector<Axis> dims;
  size_t axis = 0;

  explicit IndexedElements(const Node& node);
  bool isEmpty() const;
  void eachNumber(const NumberVisitor& visit) {
    for (Axis& a : dims) visit(a.x), visit(a.indices), visit(a.xStride), visit(a.placeStride);
  }
  std::string form() const { return fmt::format("along {} of {}", axis, dims.size()); }

  // Calls visit(place among the indices, element of x) for the indices at place `row` of the dims in front of `from`; the row's first
  // place among the indices and element of x are given.
  void eachFrom(KernelEmitter& e, const Node& node, size_t from, Reg place, Reg element, const std::function<void(Reg, Reg)>& visit) const;
  // How far along the axis the index at `place` leads, in elements of x.
  Reg along(KernelEmitter& e, const Node& node, Reg place) const;
};

}  // namespace qc
