// The code writer that every emitter builds on: one function, its buffers, loops, and vector arithmetic with exactly the
// semantics of ir/qmath.h and ir/scalar_expr.h on every target (no contraction, no library calls).  Includes LLVM.
//
//   Result<KernelShape> emitDouble(KernelEmitter& e, const Node& node) {
//     const int64_t n = node.result()->type().numElements();
//     const int lanes = e.lanes();
//     e.loop(e.begin(), e.end(), 1, [&](Reg unit) {  // one vector per unit, for brevity
//       llvm::Value* offset = e.b.CreateMul(unit, e.i64(lanes * 4));
//       Reg x = e.load(e.f32(lanes), e.at(e.operand(0), offset));
//       e.store(e.b.CreateFAdd(x, x), e.at(e.result(0), offset));
//     });
//     return KernelShape{.units = n / lanes};
//   }
//
// Addresses are in bytes.  Loads and stores assume element alignment 1, so any buffer will do.  The vector functions
// take float vectors of any lane count (scalars are <1 x float>).
#pragma once

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/IntrinsicsAArch64.h>
#include <llvm/IR/IntrinsicsX86.h>
#include <llvm/IR/Module.h>

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "codegen/plan/kernel.h"
#include "codegen/plan/number.h"
#include "ir/op_def.h"
#include "ir/scalar_expr.h"

namespace qc {

using Reg = llvm::Value*;  // a virtual register of the code under construction; qc::Value is the graph's

// How many lanes of a vector are in use, from the first one on: at least one, or in a register, 0 to all.
struct LaneCount {
  int known = 0;
  Reg reg = nullptr;
  LaneCount(int count) : known(count) {}
  LaneCount(Reg count) : reg(count) {}
  bool is(int count) const { return !reg && known == count; }
};

class KernelEmitter {
 public:
  KernelEmitter(llvm::Module& module, const Target& target, const KernelDef& def, const Node& node, const std::string& symbol);
  int finish();  // ends the function; returns its number of instructions

  // Where the i1 is set the data is bad: the function goes on, within its buffers, and will return 1.  `reason` completes "node: " in the
  // messages of object files.
  void refuse(Reg condition, std::string reason);
  const std::string& reason() const { return reason_; }  // empty: the function returns 0

  llvm::IRBuilder<> b;

  const KernelDef& def() const { return def_; }
  const Target& target() const { return target_; }
  bool has(Isa isa) const { return target_.has(isa); }
  int lanes() const { return target_.vectorBytes() / 4; }  // 32-bit lanes of the widest vector

  // Arguments.  operand() is null for an absent operand.
  Reg operand(int i) const { return i >= 0 && i < static_cast<int>(operands_.size()) ? nth(operands_, i) : nullptr; }
  Reg operand(std::string_view name) const { return operand(node_.def().operandIndex(name)); }
  Reg result(int i = 0) const { return nth(results_, i); }
  Reg begin() const { return function_->getArg(1); }
  Reg end() const { return function_->getArg(2); }
  Reg scratch() const { return function_->getArg(3); }
  // Quantization parameter of an operand or result, loaded where the builder stands: i32 or float.
  Reg operandParam(int i, ParamField field) { return param(i, field); }
  Reg operandParam(std::string_view name, ParamField field) { return param(node_.def().operandIndex(name), field); }
  Reg resultParam(int i, ParamField field) { return param(static_cast<int>(operands_.size()) + i, field); }

  // The value of a register that is a constant; nothing: only the running code knows it.
  static std::optional<int64_t> known(Reg number);
  // A number of the plan: a constant, or read from the parameter block, once for the whole function.
  Reg number(const Number& n);
  // Address of the table of a plan that has one (kernel_family.h).
  Reg tableAt(int slot);

  // Types and constants.
  llvm::Type* f32() { return b.getFloatTy(); }
  llvm::Type* f32(int lanes) { return vectorOf(b.getFloatTy(), lanes); }
  llvm::Type* i8(int lanes) { return vectorOf(b.getInt8Ty(), lanes); }
  llvm::Type* i16(int lanes) { return vectorOf(b.getInt16Ty(), lanes); }
  llvm::Type* i32(int lanes) { return vectorOf(b.getInt32Ty(), lanes); }
  llvm::Type* i64s(int lanes) { return vectorOf(b.getInt64Ty(), lanes); }
  Reg i64(int64_t v) { return b.getInt64(static_cast<uint64_t>(v)); }
  Reg i32c(int64_t v) { return b.getInt32(static_cast<uint32_t>(v)); }
  Reg splat(Reg scalar, int lanes) { return b.CreateVectorSplat(static_cast<unsigned>(lanes), scalar); }
  Reg floats(float v, int lanes);
  Reg ints(int64_t v, llvm::Type* vectorType);
  static llvm::Type* vectorOf(llvm::Type* element, int lanes) { return llvm::FixedVectorType::get(element, static_cast<unsigned>(lanes)); }
  static int lanesOf(Reg v) { return static_cast<int>(llvm::cast<llvm::FixedVectorType>(v->getType())->getNumElements()); }

  // Memory.
  Reg at(Reg pointer, Reg byteOffset) { return b.CreateGEP(b.getInt8Ty(), pointer, byteOffset); }
  Reg at(Reg pointer, int64_t byteOffset);
  // The same pointer, of which the optimizer knows nothing.  Base addresses that inner loops use go through this: loop
  // strength reduction would otherwise weigh every rewriting of every address against all loops around, for long.
  Reg opaque(Reg pointer) { return b.CreateFreeze(pointer); }
  Reg load(llvm::Type* type, Reg pointer) { return b.CreateAlignedLoad(type, pointer, llvm::Align(1)); }
  // Into the second cache.  Any address will do: nothing faults.
  void prefetch(Reg pointer);
  void store(Reg value, Reg pointer) { b.CreateAlignedStore(value, pointer, llvm::Align(1)); }
  // The first `count` lanes, with no access beyond them; other lanes of a load are zero.
  Reg loadPart(llvm::Type* vectorType, Reg pointer, LaneCount count);
  void storePart(Reg vector, Reg pointer, LaneCount count);
  Reg lanesBelow(Reg count, int lanes);  // i1 lanes: whether the lane's number is below
  // Copies or fills a constant or run-time number of bytes with loops of vectors and no access beyond them.
  void copyBytes(Reg to, Reg from, int64_t count);
  void copyBytes(Reg to, Reg from, Reg count);
  void fillBytes(Reg to, Reg byte, Reg count);
  // A constant table of i32 in the code's own read-only data.
  Reg table(const std::vector<int32_t>& values);

  // Control.  Loops count lo, lo+step, ... while < hi; `atLeastOnce` drops the test before the first trip.
  using Values = std::vector<Reg>;
  void loop(Reg lo, Reg hi, int64_t step, const std::function<void(Reg)>& body, bool atLeastOnce = false);
  // With values carried from trip to trip (accumulators); the body replaces them, the loop returns the last.
  Values loop(Reg lo, Reg hi, int64_t step, Values carried, const std::function<void(Reg, Values&)>& body, bool atLeastOnce = false);
  void ifThen(Reg condition, const std::function<void()>& then, const std::function<void()>& otherwise = {});

  // Integer helpers on i64; of two constants a constant, which the builder does not make of intrinsics.
  Reg minOf(Reg a, Reg c);
  Reg maxOf(Reg a, Reg c);

  // Float vectors.
  Reg fma(Reg x, Reg y, Reg z);  // one rounding, on every target
  Reg min(Reg x, Reg y) { return b.CreateSelect(b.CreateFCmpOLT(x, y), x, y); }
  Reg max(Reg x, Reg y) { return b.CreateSelect(b.CreateFCmpOGT(x, y), x, y); }
  Reg nanToZero(Reg x);
  Reg roundEven(Reg x);
  Reg floor(Reg x);
  Reg ceil(Reg x);
  Reg trunc(Reg x);
  Reg toFloat(Reg ints) { return b.CreateSIToFP(ints, f32(lanesOf(ints))); }
  // Nearest integers, half to even, of values <= 2147483520; what lies below -2^31 gives -2^31.
  Reg roundToInt(Reg x);
  // The tree over float vectors of one type.
  Reg expression(const ScalarExpr& expr, std::span<Reg const> args);

  // Quantization of float vectors as in qmath.h.  Bounds are prepared once, in front of loops.
  struct Bounds {
    llvm::Value *low, *high;  // float scalars qmin - zp, qmax - zp
    Reg zeroPoint;            // i32 scalar
  };
  Bounds bounds(Reg zeroPoint, Reg qmin, Reg qmax);
  Bounds resultBounds(int i = 0);
  Reg roundClamp(Reg x, const Bounds& bounds);  // -> i32 lanes, within [qmin, qmax]
  // scale * float(q - zp) of 8- or 16-bit (or i32) integers
  Reg dequantize(Reg ints, bool isSigned, Reg scale, Reg zeroPoint);

  Reg intrinsic(llvm::Intrinsic::ID id, std::initializer_list<Reg> args);
  Reg bitcast(Reg v, llvm::Type* type) { return b.CreateBitCast(v, type); }

 private:
  Reg param(int record, ParamField field);
  int64_t numberPlace(int slot) const;
  Reg loadFirst(llvm::Type* vectorType, Reg pointer, int count);
  void storeFirst(Reg vector, Reg pointer, int count);
  bool hasRoundingInstruction() const { return target_.arch == Arch::aarch64 || has(Isa::avx2); }

  llvm::Module& module_;
  const KernelDef& def_;
  Target target_;
  llvm::Function* function_ = nullptr;
  const Node& node_;
  std::vector<Reg> operands_, results_, numbers_;
  Reg params_ = nullptr;
  llvm::AllocaInst* status_ = nullptr;
  std::string reason_;
};

}  // namespace qc
