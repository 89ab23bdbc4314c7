// Elementwise ops on plain types that `map` does not compute: comparisons, logic, selection and arithmetic of integers and bools,
// comparisons and selection of floats, arithmetic of 16-bit floats, and casts.  The op's scalar expression is evaluated in float lanes for
// float data and in integer lanes otherwise: 64 bits, whose arithmetic wraps as the definition says, or 32 bits where they give the same
// result.  Division by 0 gives 0, as the definition has it.  Tests: tests/kernels/plain_test.cpp.
#include <algorithm>
#include <cmath>
#include <optional>

#include "codegen/emit/vector_loop.h"
#include "codegen/plan/iteration_space.h"
#include "codegen/plan/kernel_family.h"
#include "ir/op_def.h"

namespace qc {
namespace {

using Op = ScalarExpr::Op;
using Instruction = ExprProgram::Instruction;

bool isIntegerOrBool(DType t) { return t == DType::boolean || (isInteger(t) && t != DType::u4 && t != DType::s4 && t != DType::u64); }

// What is computed in float32.
bool isSingle(DType t) { return isFloat(t) && t != DType::f64; }

ScalarExpr meaningOf(const Node& node) { return node.is("cast") ? ScalarExpr::arg(0) : node.def().scalar(node.attrs()); }

// The named functions of integers that have code: remainders, with the sign of the dividend or of the divisor.
bool isRemainder(const Instruction& i, std::string_view which) {
  return i.op == Op::call && nth(ScalarExpr::functions(), i.index).name == which;
}

// Ops whose 64-bit form is a few instructions.
bool hasIntegerCode(const Instruction& i) {
  switch (i.op) {
    case Op::arg:
    case Op::constant:
    case Op::neg:
    case Op::abs:
    case Op::add:
    case Op::sub:
    case Op::mul:
    case Op::div:
    case Op::min:
    case Op::max:
    case Op::lt:
    case Op::le:
    case Op::eq:
    case Op::select:
    case Op::fma: return true;
    case Op::call: return isRemainder(i, "mod") || isRemainder(i, "fmod");
    default: return false;
  }
}

// Only these give the same in 32 bits whatever the operands are.
bool onlySelects(Op op) { return op == Op::arg || op == Op::lt || op == Op::le || op == Op::eq || op == Op::select; }

bool isSmallInteger(float v) { return std::trunc(v) == v && std::fabs(v) <= 16777216.0f; }

struct Lanes {
  bool isFloat = false;
  int bits = 32;
};

struct PlainPlan {
  Lanes lanes;
  IterationSpace space;
  void eachNumber(const NumberVisitor& visit) { space.eachNumber(visit); }
  std::string form() const { return space.form(); }
  KernelShape shape() const { return space.shape(); }
};

// In which lanes the node computes; nothing if it has no code here.
std::optional<Lanes> lanesFor(const Node& node) {
  const ScalarExpr meaning = meaningOf(node);
  std::vector<DType> types;
  for (const Value* v : node.operands()) types.push_back(v->type().dtype);
  const DType result = node.result()->type().dtype;
  if (std::find_if(types.begin(), types.end(), isSingle) != types.end()) {
    for (const DType t : types)
      if (!isSingle(t) && t != DType::boolean) return std::nullopt;
    const bool truncates = node.is("cast") && isIntegerOrBool(result);
    if (!isSingle(result) && result != DType::boolean && !truncates) return std::nullopt;
    return Lanes{true, 32};
  }
  bool narrow = true;
  for (const DType t : types) {
    if (!isIntegerOrBool(t)) return std::nullopt;
    narrow = narrow && (sizeOf(t) <= 2 || t == DType::s32);
  }
  if (!isSingle(result) && !isIntegerOrBool(result)) return std::nullopt;
  for (const Instruction& i : flatten(meaning)) {
    if (!hasIntegerCode(i) || (i.op == Op::constant && !isSmallInteger(i.value))) return std::nullopt;
    narrow = narrow && onlySelects(i.op);
  }
  return Lanes{false, narrow ? 32 : 64};
}

// 16-bit floats by integer arithmetic, on every target the bits that ir/tensor.cpp gives, those of NaN included.
class NarrowFloats {
 public:
  NarrowFloats(KernelEmitter& e, int width) : e_(e), b_(e.b), ints_(e.i32(width)), floats_(e.f32(width)), width_(width) {}

  Reg widened(Reg v, DType t) {
    Reg bits = b_.CreateZExt(v, ints_);
    return e_.bitcast(t == DType::bf16 ? b_.CreateShl(bits, number(16)) : fromHalf(bits), floats_);
  }
  Reg narrowed(Reg x, DType t) {
    Reg bits = e_.bitcast(x, ints_);
    return b_.CreateTrunc(t == DType::bf16 ? toBfloat(bits) : toHalf(bits), e_.i16(width_));
  }

 private:
  static constexpr int64_t kRebias = (127 - 15) << 23, kInfinity = 0x7f800000, kHalfOverflow = 0x477ff000, kMinNormalHalf = 0x38800000;
  Reg number(int64_t v) { return e_.ints(v, ints_); }

  Reg fromHalf(Reg bits) {
    Reg magnitude = b_.CreateAnd(bits, number(0x7fff)), shifted = b_.CreateShl(magnitude, number(13));
    Reg subnormal = e_.bitcast(b_.CreateFMul(e_.toFloat(magnitude), e_.floats(0x1p-24f, width_)), ints_);
    Reg other = b_.CreateSelect(b_.CreateICmpSLT(magnitude, number(0x400)), subnormal, b_.CreateAdd(shifted, number(kRebias)));
    Reg all = b_.CreateSelect(b_.CreateICmpSGE(magnitude, number(0x7c00)), b_.CreateOr(shifted, number(kInfinity)), other);
    return b_.CreateOr(all, b_.CreateShl(b_.CreateAnd(bits, number(0x8000)), number(16)));
  }

  // To the nearest, half to even, where `dropped` low bits go.
  Reg rounded(Reg bits, int64_t dropped) {
    Reg isOdd = b_.CreateAnd(b_.CreateLShr(bits, number(dropped)), number(1));
    return b_.CreateLShr(b_.CreateAdd(b_.CreateAdd(bits, number((int64_t{1} << (dropped - 1)) - 1)), isOdd), number(dropped));
  }

  Reg toHalf(Reg bits) {
    Reg magnitude = b_.CreateAnd(bits, number(0x7fffffff));
    Reg small = e_.min(e_.bitcast(magnitude, floats_), e_.floats(0x1p-14f, width_));
    Reg subnormal = e_.roundToInt(b_.CreateFMul(small, e_.floats(0x1p24f, width_)));
    Reg normal = rounded(b_.CreateSub(magnitude, number(kRebias)), 13);
    Reg finite = b_.CreateSelect(b_.CreateICmpSLT(magnitude, number(kMinNormalHalf)), subnormal, normal);
    Reg notNan = b_.CreateSelect(b_.CreateICmpSGE(magnitude, number(kHalfOverflow)), number(0x7c00), finite);
    Reg all = b_.CreateSelect(b_.CreateICmpSGT(magnitude, number(kInfinity)), number(0x7e00), notNan);
    return b_.CreateOr(all, b_.CreateAnd(b_.CreateLShr(bits, number(16)), number(0x8000)));
  }

  Reg toBfloat(Reg bits) {
    Reg isNan = b_.CreateICmpSGT(b_.CreateAnd(bits, number(0x7fffffff)), number(kInfinity));
    return b_.CreateSelect(isNan, b_.CreateOr(b_.CreateLShr(bits, number(16)), number(0x40)), rounded(bits, 16));
  }

  KernelEmitter& e_;
  llvm::IRBuilder<>& b_;
  llvm::Type *ints_, *floats_;
  int width_;
};

class PlainEmitter {
 public:
  PlainEmitter(KernelEmitter& e, const Node& node, const PlainPlan& plan)
      : e_(e),
        node_(node),
        space_(plan.space),
        lanes_(plan.lanes),
        width_(std::max(4, e.lanes() * 32 / plan.lanes.bits)),
        meaning_(meaningOf(node)) {}

  KernelShape emit() {
    const int operands = node_.numOperands();
    return emitUnits(e_, space_, [&](const std::vector<Reg>& offsets, Reg count) {
      std::vector<Reg> sources;
      for (int i = 0; i < operands; ++i) sources.push_back(at(e_.operand(i), nth(offsets, i), bytesOf(i)));
      const DType to = node_.result()->type().dtype;
      Reg result = at(e_.result(), offsets.back(), sizeOf(to));
      vectorLoop(e_, count, width_, [&](Reg index, LaneCount lanes) {
        std::vector<Reg> args;
        for (int i = 0; i < operands; ++i) {
          const auto k = usize(i);
          args.push_back(load(i, sources[k], index, lanes, space_.strides[k].back().value != 0));
        }
        storeUpTo(e_, stored(compute(args), to), at(result, index, sizeOf(to)), lanes);
      });
    });
  }

 private:
  int64_t bytesOf(int operand) const { return sizeOf(node_.operand(operand)->type().dtype); }
  Reg at(Reg base, Reg elements, int64_t bytes) { return e_.at(base, e_.b.CreateMul(elements, e_.i64(bytes))); }
  llvm::Type* ints() { return KernelEmitter::vectorOf(e_.b.getIntNTy(static_cast<unsigned>(lanes_.bits)), width_); }
  llvm::Type* storage(DType t) {
    return t == DType::f32 ? e_.f32(width_) : KernelEmitter::vectorOf(e_.b.getIntNTy(static_cast<unsigned>(8 * sizeOf(t))), width_);
  }

  Reg load(int operand, Reg source, Reg index, LaneCount lanes, bool dense) {
    const DType t = node_.operand(operand)->type().dtype;
    auto* vector = llvm::cast<llvm::FixedVectorType>(storage(t));
    if (!dense) return widen(e_.splat(e_.load(vector->getElementType(), source), width_), t);
    return widen(loadUpTo(e_, vector, at(source, index, sizeOf(t)), lanes), t);
  }

  // From storage to the lanes that compute.  Any byte but 0 is true.
  Reg widen(Reg v, DType t) {
    if (t == DType::f32) return v;
    if (isSingle(t)) return NarrowFloats(e_, width_).widened(v, t);
    if (t == DType::boolean) return truth(e_.b.CreateICmpNE(v, llvm::Constant::getNullValue(v->getType())));
    return isSigned(t) ? e_.b.CreateSExtOrTrunc(v, ints()) : e_.b.CreateZExtOrTrunc(v, ints());
  }

  Reg truth(Reg condition) {
    return lanes_.isFloat ? e_.b.CreateSelect(condition, e_.floats(1, width_), e_.floats(0, width_)) : e_.b.CreateZExt(condition, ints());
  }

  Reg isTrue(Reg v) {
    Reg zero = llvm::Constant::getNullValue(v->getType());
    return lanes_.isFloat ? e_.b.CreateFCmpUNE(v, zero) : e_.b.CreateICmpNE(v, zero);
  }

  Reg stored(Reg v, DType t) {
    if (t == DType::boolean) return e_.b.CreateZExt(isTrue(v), e_.i8(width_));
    if (lanes_.isFloat && isInteger(t)) {  // towards zero, NaN to 0, the ends for what lies beyond
      llvm::Type* to = storage(t);
      return e_.b.CreateIntrinsic(isSigned(t) ? llvm::Intrinsic::fptosi_sat : llvm::Intrinsic::fptoui_sat, {to, v->getType()}, {v});
    }
    if (isInteger(t)) return e_.b.CreateSExtOrTrunc(v, storage(t));
    if (!lanes_.isFloat) v = toFloat(v);
    return t == DType::f32 ? v : NarrowFloats(e_, width_).narrowed(v, t);
  }

  // In one rounding.  AArch64 has that for one 64-bit integer; a vector of them would go through double.
  Reg toFloat(Reg v) {
    if (lanes_.bits == 32 || e_.target().arch != Arch::aarch64) return e_.b.CreateSIToFP(v, e_.f32(width_));
    Reg all = llvm::PoisonValue::get(e_.f32(width_));
    for (int i = 0; i < width_; ++i)
      all = e_.b.CreateInsertElement(all, e_.b.CreateSIToFP(e_.b.CreateExtractElement(v, e_.i32c(i)), e_.b.getFloatTy()), e_.i32c(i));
    return all;
  }

  Reg compute(const std::vector<Reg>& args) {
    if (lanes_.isFloat) return e_.expression(meaning_, args);
    std::vector<Reg> registers;
    for (const Instruction& i : flatten(meaning_)) {
      const auto value = [&](int k) { return i.operand[k] >= 0 ? nth(registers, i.operand[k]) : nullptr; };
      if (i.op == Op::arg)
        registers.push_back(nth(args, i.index));
      else if (i.op == Op::constant)
        registers.push_back(e_.ints(static_cast<int64_t>(i.value), ints()));
      else
        registers.push_back(instruction(i, value(0), value(1), value(2)));
    }
    return registers.back();
  }

  // By what the instruction divides without trouble: 0 has no quotient, -1 none of the least number.
  struct Divisor {
    Reg safe, isZero, isMinusOne;
  };
  Divisor divisor(Reg y) {
    llvm::IRBuilder<>& b = e_.b;
    Reg isZero = b.CreateICmpEQ(y, e_.ints(0, ints())), isMinusOne = b.CreateICmpEQ(y, e_.ints(-1, ints()));
    return {b.CreateSelect(b.CreateOr(isZero, isMinusOne), e_.ints(1, ints()), y), isZero, isMinusOne};
  }

  Reg quotient(Reg x, Reg y) {
    llvm::IRBuilder<>& b = e_.b;
    const Divisor by = divisor(y);
    Reg whole = b.CreateSelect(by.isMinusOne, b.CreateNeg(x), b.CreateSDiv(x, by.safe));
    return b.CreateSelect(by.isZero, e_.ints(0, ints()), whole);
  }

  // By 0, 1 and -1 nothing remains.
  Reg remainder(const Instruction& i, Reg x, Reg y) {
    llvm::IRBuilder<>& b = e_.b;
    Reg rest = b.CreateSRem(x, divisor(y).safe);
    if (!isRemainder(i, "mod")) return rest;
    Reg zero = e_.ints(0, ints());
    Reg differs = b.CreateICmpSLT(b.CreateXor(rest, y), zero);
    return b.CreateSelect(b.CreateAnd(b.CreateICmpNE(rest, zero), differs), b.CreateAdd(rest, y), rest);
  }

  Reg instruction(const Instruction& i, Reg x, Reg y, Reg z) {
    llvm::IRBuilder<>& b = e_.b;
    switch (i.op) {
      case Op::neg: return b.CreateNeg(x);
      case Op::abs: return b.CreateBinaryIntrinsic(llvm::Intrinsic::abs, x, b.getFalse());
      case Op::add: return b.CreateAdd(x, y);
      case Op::sub: return b.CreateSub(x, y);
      case Op::mul: return b.CreateMul(x, y);
      case Op::div: return quotient(x, y);
      case Op::call: return remainder(i, x, y);
      case Op::min: return b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, x, y);
      case Op::max: return b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, x, y);
      case Op::lt: return truth(b.CreateICmpSLT(x, y));
      case Op::le: return truth(b.CreateICmpSLE(x, y));
      case Op::eq: return truth(b.CreateICmpEQ(x, y));
      case Op::select: return b.CreateSelect(isTrue(x), y, z);
      case Op::fma: return b.CreateAdd(b.CreateMul(x, y), z);
      default: break;
    }
    QC_CHECK(false, "operator {} has no integer code", static_cast<int>(i.op));
    return nullptr;
  }

  KernelEmitter& e_;
  const Node& node_;
  const IterationSpace& space_;
  Lanes lanes_;
  int width_;
  ScalarExpr meaning_;
};

std::optional<PlainPlan> plan(const Node& node, const Target&) {
  const TensorType& y = node.result()->type();
  if (y.numElements() == 0 || y.isQuantized()) return std::nullopt;
  for (const Value* v : node.operands())
    if (v->type().isQuantized()) return std::nullopt;
  const std::optional<Lanes> lanes = lanesFor(node);
  if (!lanes) return std::nullopt;
  return PlainPlan{*lanes, iterationSpace(node, node.numOperands())};
}

Work work(const PlainPlan& plan, const Node& node, const Target& target) {
  const Lanes& lanes = plan.lanes;
  const double vectors = vectorCount(node.result()->type().numElements(), target.vectorBytes() * 8 / lanes.bits);
  const bool truncates = lanes.isFloat && node.is("cast") && isIntegerOrBool(node.result()->type().dtype);
  return {{"call", 1},
          {"vector", vectors},
          {"truncation", truncates ? vectors : 0},
          {"operand", vectors * node.numOperands()},
          {"instruction", vectors * static_cast<double>(flatten(meaningOf(node)).size())}};
}

Result<KernelShape> emit(KernelEmitter& e, const Node& node, const PlainPlan& plan) { return PlainEmitter(e, node, plan).emit(); }

}  // namespace

std::vector<KernelDef> plainKernels() {
  return kernelsOf(KernelFamily<PlainPlan>{
      .ops = {"equal", "less", "greater", "less_equal", "greater_equal", "not", "and", "or",   "xor",  "where", "cast",  "add",  "sub",
              "mul",   "div",  "mod",     "neg",        "abs",           "min", "max", "relu", "sign", "clip",  "isnan", "isinf"},
      .rows = {{"plain"}},
      .plan = plan,
      .work = work,
      .onlyNumbers = always,
      .emit = emit});
}

}  // namespace qc
