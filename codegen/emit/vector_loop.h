// What the emitters of elementwise, row and copy kernels share: loops over a number of elements in whole vectors and
// one partial vector, the element types that they take.  Includes LLVM through emit.h.
//
//   const int width = laneCount(e, n);
//   vectorLoop(e, n, width, [&](Reg i, LaneCount count) {       // less than width in the last trip at most
//     Reg x = loadUpTo(e, e.f32(width), e.at(in, e.b.CreateShl(i, 2)), count);
//     storeUpTo(e, e.b.CreateFAdd(x, x), e.at(out, e.b.CreateShl(i, 2)), count);
//   });
#pragma once

#include "codegen/emit/emit.h"

namespace qc {

// Integers of at most 16 bits, which float lanes hold.
inline bool isPerTensorInteger(const TensorType& t) { return t.isQuantized() && !t.quant->perChannel() && sizeOf(t.dtype) <= 2; }
inline bool isPerTensorByte(const TensorType& t) { return t.isQuantized() && !t.quant->perChannel() && sizeOf(t.dtype) == 1; }
inline bool isPlainFloat(const TensorType& t) { return t.dtype == DType::f32 && !t.isQuantized(); }

inline int laneCount(const KernelEmitter& e, const Number& elements) { return laneCount(e.lanes(), elements); }

inline Reg loadUpTo(KernelEmitter& e, llvm::Type* vector, Reg address, LaneCount count) {
  return count.is(static_cast<int>(llvm::cast<llvm::FixedVectorType>(vector)->getNumElements())) ? e.load(vector, address)
                                                                                                 : e.loadPart(vector, address, count);
}

inline void storeUpTo(KernelEmitter& e, Reg v, Reg address, LaneCount count) {
  if (count.is(KernelEmitter::lanesOf(v)))
    e.store(v, address);
  else
    e.storePart(v, address, count);
}

// Calls vector(index, lanes) for `width` elements at a time, and for the rest of `count` of them.
inline void vectorLoop(KernelEmitter& e, int64_t count, int width, const std::function<void(Reg index, LaneCount lanes)>& vector) {
  const int64_t whole = count / width * width;
  const auto rest = static_cast<int>(count % width);
  if (whole == width)
    vector(e.i64(0), width);
  else if (whole)
    e.loop(e.i64(0), e.i64(whole), width, [&](Reg i) { vector(i, width); }, true);
  if (rest) vector(e.i64(whole), rest);
}

// The same for a number of elements in a register; width is a power of two.
inline void vectorLoop(KernelEmitter& e, Reg count, int width, const std::function<void(Reg index, LaneCount lanes)>& vector) {
  if (const auto known = e.known(count)) return vectorLoop(e, *known, width, vector);
  Reg whole = e.b.CreateAnd(count, e.i64(-width));
  e.loop(e.i64(0), whole, width, [&](Reg i) { vector(i, width); });
  e.ifThen(e.b.CreateICmpSLT(whole, count), [&] { vector(whole, e.b.CreateSub(count, whole)); });
}

// The integers of an 8- or 16-bit vector as 32-bit lanes.
inline Reg widened(KernelEmitter& e, Reg integers, bool hasSign) {
  llvm::Type* wide = e.i32(KernelEmitter::lanesOf(integers));
  return hasSign ? e.b.CreateSExt(integers, wide) : e.b.CreateZExt(integers, wide);
}

// Vectors of integers of a type, and 32-bit lanes cut to it.
inline llvm::Type* integersOf(KernelEmitter& e, DType t, int width) {
  return KernelEmitter::vectorOf(e.b.getIntNTy(static_cast<unsigned>(8 * sizeOf(t))), width);
}
inline Reg narrowed(KernelEmitter& e, Reg ints, DType t) { return e.b.CreateTrunc(ints, integersOf(e, t, KernelEmitter::lanesOf(ints))); }

}  // namespace qc
