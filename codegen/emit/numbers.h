// Elements of a tensor as the numbers that compute: f32 and f64 as they are, integers and bools as i64; one at a time or in vectors.
#pragma once

#include "codegen/emit/emit.h"

namespace qc {

inline bool isReal(DType dtype) { return dtype == DType::f32 || dtype == DType::f64; }

class Numbers {
 public:
  Numbers(KernelEmitter& e, DType dtype) : e_(e), dtype_(dtype), bytes_(sizeOf(dtype)) {}

  int64_t bytes() const { return bytes_; }
  llvm::Type* storage() const {
    if (dtype_ == DType::f32) return e_.f32();
    if (dtype_ == DType::f64) return e_.b.getDoubleTy();
    return e_.b.getIntNTy(static_cast<unsigned>(8 * bytes_));
  }
  Reg widened(Reg v) const {
    if (isReal(dtype_)) return v;
    llvm::Type* wide = v->getType()->getWithNewBitWidth(64);
    if (dtype_ == DType::boolean) return e_.b.CreateZExt(e_.b.CreateICmpNE(v, llvm::Constant::getNullValue(v->getType())), wide);
    return isSigned(dtype_) ? e_.b.CreateSExt(v, wide) : e_.b.CreateZExt(v, wide);
  }
  Reg narrowed(Reg v) const {
    if (isReal(dtype_)) return v;
    llvm::Type* narrow = v->getType()->getWithNewBitWidth(static_cast<unsigned>(8 * bytes_));
    if (dtype_ == DType::boolean) return e_.b.CreateZExt(e_.b.CreateICmpNE(v, llvm::Constant::getNullValue(v->getType())), narrow);
    return e_.b.CreateTrunc(v, narrow);
  }
  Reg place(Reg base, Reg index) const { return e_.at(base, e_.b.CreateMul(index, e_.i64(bytes_))); }

 private:
  KernelEmitter& e_;
  DType dtype_;
  int64_t bytes_;
};

}  // namespace qc
