// What the emitters of elementwise, row and copy kernels share: loops over a constant number of elements in whole vectors and
// one partial vector, the element types that they take, products of short integers.  Includes LLVM through emit.h.
//
//   const int width = laneCount(e, n);
//   vectorLoop(e, n, width, [&](Reg i, int count) {             // count < width in the last trip at most
//     Reg x = loadUpTo(e, e.f32(width), e.at(in, e.b.CreateShl(i, 2)), count);
//     storeUpTo(e, e.b.CreateFAdd(x, x), e.at(out, e.b.CreateShl(i, 2)), count);
//   });
#pragma once

#include "codegen/emit/emit.h"

namespace qc {

inline bool isPerTensorByte(const TensorType& t) { return t.isQuantized() && !t.quant->perChannel() && sizeOf(t.dtype) == 1; }
inline bool isPlainFloat(const TensorType& t) { return t.dtype == DType::f32 && !t.isQuantized(); }

// The lanes of the widest float vector that `n` elements fill at least half of; 4 at least.
inline int laneCount(const KernelEmitter& e, int64_t n) {
  int width = e.lanes();
  while (width > 4 && width / 2 >= n) width /= 2;
  return width;
}

inline Reg loadUpTo(KernelEmitter& e, llvm::Type* vector, Reg address, int count) {
  return count == static_cast<int>(llvm::cast<llvm::FixedVectorType>(vector)->getNumElements()) ? e.load(vector, address)
                                                                                                : e.loadPart(vector, address, count);
}

inline void storeUpTo(KernelEmitter& e, Reg v, Reg address, int count) {
  if (count == KernelEmitter::lanesOf(v))
    e.store(v, address);
  else
    e.storePart(v, address, count);
}

// Calls vector(index, lanes) for `width` elements at a time, and for the rest of `count` of them.
inline void vectorLoop(KernelEmitter& e, int64_t count, int width, const std::function<void(Reg index, int lanes)>& vector) {
  const int64_t whole = count / width * width;
  const auto rest = static_cast<int>(count % width);
  if (whole == width)
    vector(e.i64(0), width);
  else if (whole)
    e.loop(e.i64(0), e.i64(whole), width, [&](Reg i) { vector(i, width); }, true);
  if (rest) vector(e.i64(whole), rest);
}

// The integers of an 8-bit vector as 32-bit lanes.
inline Reg widened(KernelEmitter& e, Reg bytes, bool hasSign) {
  llvm::Type* wide = e.i32(KernelEmitter::lanesOf(bytes));
  return hasSign ? e.b.CreateSExt(bytes, wide) : e.b.CreateZExt(bytes, wide);
}

// sum + the two products of 16-bit halves, in every 32-bit lane of vectors as wide as the target's.
inline Reg addPairs(KernelEmitter& e, Reg sum, Reg a, Reg b) {
  using namespace llvm;
  const int lanes = KernelEmitter::lanesOf(sum);
  const auto words = [&](Reg v) { return e.bitcast(v, e.i16(2 * lanes)); };
  if (lanes == 16 && e.has(Isa::avx512vnni)) return e.intrinsic(Intrinsic::x86_avx512_vpdpwssd_512, {sum, a, b});
  if (lanes == 8 && e.has(Isa::avxvnni)) return e.intrinsic(Intrinsic::x86_avx512_vpdpwssd_256, {sum, a, b});
  if (lanes == 16) return e.b.CreateAdd(sum, e.intrinsic(Intrinsic::x86_avx512_pmaddw_d_512, {words(a), words(b)}));
  if (lanes == 8) return e.b.CreateAdd(sum, e.intrinsic(Intrinsic::x86_avx2_pmadd_wd, {words(a), words(b)}));
  Reg sixteen = e.ints(16, e.i32(lanes));
  const auto high = [&](Reg v) { return e.b.CreateAShr(v, sixteen); };
  const auto low = [&](Reg v) { return high(e.b.CreateShl(v, sixteen)); };
  return e.b.CreateAdd(sum, e.b.CreateAdd(e.b.CreateMul(low(a), low(b)), e.b.CreateMul(high(a), high(b))));
}

}  // namespace qc
