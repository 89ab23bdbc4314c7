#include "codegen/emit/emit.h"

#include <llvm/IR/Constants.h>

#include <algorithm>
#include <bit>
#include <numeric>

namespace qc {

using llvm::Intrinsic::ID;

KernelEmitter::KernelEmitter(llvm::Module& module, const Target& target, const KernelDef& def, const Node& node, const std::string& symbol)
    : b(module.getContext()), module_(module), def_(def), target_(target), node_(node) {
  llvm::Type* pointer = b.getPtrTy();
  auto* type = llvm::FunctionType::get(b.getInt32Ty(), {pointer, b.getInt64Ty(), b.getInt64Ty(), pointer}, false);
  function_ = llvm::Function::Create(type, llvm::Function::ExternalLinkage, symbol, module);
  function_->addFnAttr(llvm::Attribute::NoUnwind);
  const std::string bits = std::to_string(target.vectorBytes() * 8);
  // Both: without a minimum the back end may split what it was told to prefer, and abort when it cannot.
  function_->addFnAttr("prefer-vector-width", bits);
  function_->addFnAttr("min-legal-vector-width", bits);
  function_->addFnAttr("tune-cpu", target.llvmTuneCpu());
  function_->getArg(3)->addAttr(llvm::Attribute::getWithAlignment(module.getContext(), llvm::Align(64)));
  b.SetInsertPoint(llvm::BasicBlock::Create(module.getContext(), "entry", function_));
  function_->addRetAttr(llvm::Attribute::SExt);
  const unsigned pointerBytes = module.getDataLayout().getPointerSize();
  int64_t slot = 0;
  auto next = [&] { return b.CreateAlignedLoad(pointer, at(function_->getArg(0), pointerBytes * slot++), llvm::Align(pointerBytes)); };
  for (int i = 0; i < node.numOperands(); ++i) {
    operands_.push_back(node.operand(i) ? next() : nullptr);
    if (!node.operand(i)) ++slot;
  }
  for (int i = 0; i < node.numResults(); ++i) results_.push_back(next());
  params_ = next();
}

int KernelEmitter::finish() {
  b.CreateRet(status_ ? static_cast<Reg>(b.CreateLoad(b.getInt32Ty(), status_)) : b.getInt32(0));
  return static_cast<int>(function_->getInstructionCount());
}

void KernelEmitter::refuse(Reg condition, std::string reason) {
  if (!status_) {
    llvm::BasicBlock& entry = function_->getEntryBlock();
    llvm::IRBuilder<> first(&entry, entry.begin());
    status_ = first.CreateAlloca(b.getInt32Ty());
    first.CreateStore(b.getInt32(0), status_);
    reason_ = std::move(reason);
  }
  ifThen(condition, [&] { b.CreateStore(b.getInt32(1), status_); });
}

Reg KernelEmitter::param(int record, ParamField field) {
  const int64_t offset = record * static_cast<int64_t>(sizeof(ParamRecord)) + 4 * static_cast<int64_t>(field);
  const bool isFloat = field == ParamField::scale || field == ParamField::inverseScale;
  return b.CreateAlignedLoad(isFloat ? b.getFloatTy() : static_cast<llvm::Type*>(b.getInt32Ty()), at(params_, offset), llvm::Align(4));
}

std::optional<int64_t> KernelEmitter::known(Reg number) {
  const auto* constant = llvm::dyn_cast<llvm::ConstantInt>(number);
  return constant ? std::optional(constant->getSExtValue()) : std::nullopt;
}

Reg KernelEmitter::number(const Number& n) {
  if (!n.isFree) return i64(n.value);
  QC_CHECK(n.slot >= 0, "a number of kernel '{}' has no place in the parameter block", def_.id);
  if (n.slot >= std::ssize(numbers_)) numbers_.resize(usize(n.slot + 1));
  Reg& loaded = nth(numbers_, n.slot);
  if (!loaded) {
    llvm::IRBuilder<>::InsertPointGuard guard(b);
    auto* params = llvm::cast<llvm::Instruction>(params_);
    b.SetInsertPoint(params->getParent(), std::next(params->getIterator()));
    loaded = b.CreateAlignedLoad(b.getInt64Ty(), at(params_, numberPlace(n.slot)), llvm::Align(8));
  }
  return loaded;
}

int64_t KernelEmitter::numberPlace(int slot) const {
  const auto records = static_cast<int64_t>(operands_.size() + results_.size());
  return records * static_cast<int64_t>(sizeof(ParamRecord)) + int64_t{8} * slot;
}

Reg KernelEmitter::tableAt(int slot) {
  QC_CHECK(slot >= 0, "the table of kernel '{}' has no place in the parameter block", def_.id);
  return at(params_, numberPlace(slot));
}

Reg KernelEmitter::floats(float v, int lanes) {
  return llvm::ConstantVector::getSplat(llvm::ElementCount::getFixed(static_cast<unsigned>(lanes)),
                                        llvm::ConstantFP::get(b.getContext(), llvm::APFloat(v)));
}

Reg KernelEmitter::ints(int64_t v, llvm::Type* vectorType) {
  return llvm::ConstantInt::get(vectorType, static_cast<uint64_t>(v), /*isSigned=*/true);
}

Reg KernelEmitter::intrinsic(ID id, std::initializer_list<Reg> args) {
  return b.CreateCall(llvm::Intrinsic::getDeclaration(&module_, id), llvm::SmallVector<Reg>(args));
}

// --- memory ---------------------------------------------------------------------------------------------------------

Reg KernelEmitter::at(Reg pointer, int64_t byteOffset) {
  return byteOffset == 0 ? pointer : b.CreateConstGEP1_64(b.getInt8Ty(), pointer, static_cast<uint64_t>(byteOffset));
}

namespace {

// Lanes [from, from + count) of a vector.
Reg slice(llvm::IRBuilder<>& b, Reg vector, int from, int count) {
  llvm::SmallVector<int> lanes(usize(count));
  std::iota(lanes.begin(), lanes.end(), from);
  return b.CreateShuffleVector(vector, lanes);
}

// Vector `part` at lanes [at, ...) of a vector of `lanes` lanes, others zero.
Reg place(llvm::IRBuilder<>& b, Reg part, int at, int lanes) {
  const int n = KernelEmitter::lanesOf(part);
  llvm::SmallVector<int> mask;
  for (int i = 0; i < lanes; ++i) mask.push_back(i >= at && i < at + n ? i - at : n);
  return b.CreateShuffleVector(part, llvm::Constant::getNullValue(part->getType()), mask);
}

using Op = ScalarExpr::Op;

Reg truth(KernelEmitter& e, Reg condition, int lanes) { return e.b.CreateSelect(condition, e.floats(1, lanes), e.floats(0, lanes)); }

Reg emitInstruction(KernelEmitter& e, Op op, Reg x, Reg y, Reg z, int lanes) {
  llvm::IRBuilder<>& b = e.b;
  llvm::Type* ints = e.i32(lanes);
  auto bits = [&](Reg v) { return e.bitcast(v, ints); };
  switch (op) {
    case Op::neg: return b.CreateFNeg(x);
    case Op::abs: return b.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, x);
    case Op::floor: return e.floor(x);
    case Op::ceil: return e.ceil(x);
    case Op::round: return e.roundEven(x);
    case Op::trunc: return e.trunc(x);
    case Op::sqrt: return b.CreateUnaryIntrinsic(llvm::Intrinsic::sqrt, x);
    // 1.5 * 2^23 + 127 moves n + 127 into the low bits of the sum: the arithmetic of ExprProgram, whatever n is.
    case Op::pow2: return e.bitcast(b.CreateShl(bits(b.CreateFAdd(x, e.floats(12583039.0f, lanes))), e.ints(23, ints)), e.f32(lanes));
    case Op::exponent:
      return e.toFloat(b.CreateSub(b.CreateAnd(b.CreateLShr(bits(x), e.ints(23, ints)), e.ints(255, ints)), e.ints(127, ints)));
    case Op::mantissa: return e.bitcast(b.CreateOr(b.CreateAnd(bits(x), e.ints(0x007fffff, ints)), e.ints(0x3f800000, ints)), e.f32(lanes));
    case Op::add: return b.CreateFAdd(x, y);
    case Op::sub: return b.CreateFSub(x, y);
    case Op::mul: return b.CreateFMul(x, y);
    case Op::div: return b.CreateFDiv(x, y);
    case Op::min: return e.min(x, y);
    case Op::max: return e.max(x, y);
    case Op::lt: return truth(e, b.CreateFCmpOLT(x, y), lanes);
    case Op::le: return truth(e, b.CreateFCmpOLE(x, y), lanes);
    case Op::eq: return truth(e, b.CreateFCmpOEQ(x, y), lanes);
    case Op::select: return b.CreateSelect(b.CreateFCmpUNE(x, e.floats(0, lanes)), y, z);
    case Op::fma: return e.fma(x, y, z);
    case Op::arg:
    case Op::constant:
    case Op::call: break;
  }
  QC_CHECK(false, "operator {} has no code", static_cast<int>(op));
  return nullptr;
}

}  // namespace

Reg KernelEmitter::lanesBelow(Reg count, int lanes) {
  llvm::SmallVector<llvm::Constant*> numbers;
  for (int i = 0; i < lanes; ++i) numbers.push_back(b.getInt32(static_cast<uint32_t>(i)));
  return b.CreateICmpSLT(llvm::ConstantVector::get(numbers), splat(b.CreateTrunc(count, b.getInt32Ty()), lanes));
}

Reg KernelEmitter::loadPart(llvm::Type* vectorType, Reg pointer, LaneCount count) {
  if (!count.reg) return loadFirst(vectorType, pointer, count.known);
  auto* type = llvm::cast<llvm::FixedVectorType>(vectorType);
  Reg mask = lanesBelow(count.reg, static_cast<int>(type->getNumElements()));
  return b.CreateMaskedLoad(type, pointer, llvm::Align(1), mask, llvm::Constant::getNullValue(type));
}

void KernelEmitter::storePart(Reg vector, Reg pointer, LaneCount count) {
  if (!count.reg) return storeFirst(vector, pointer, count.known);
  b.CreateMaskedStore(vector, pointer, llvm::Align(1), lanesBelow(count.reg, lanesOf(vector)));
}

Reg KernelEmitter::loadFirst(llvm::Type* vectorType, Reg pointer, int count) {
  auto* type = llvm::cast<llvm::FixedVectorType>(vectorType);
  const int lanes = static_cast<int>(type->getNumElements());
  if (count == lanes) return load(type, pointer);
  const int bytes = static_cast<int>(type->getScalarSizeInBits() / 8);
  if (has(Isa::avx512) || (has(Isa::avx2) && bytes >= 4)) {
    llvm::SmallVector<llvm::Constant*> mask;
    for (int i = 0; i < lanes; ++i) mask.push_back(b.getInt1(i < count));
    return b.CreateMaskedLoad(type, pointer, llvm::Align(1), llvm::ConstantVector::get(mask), llvm::Constant::getNullValue(type));
  }
  Reg all = llvm::Constant::getNullValue(type);
  for (int from = 0; from < count;) {
    const int piece = static_cast<int>(std::bit_floor(static_cast<unsigned>(count - from)));
    Reg part = load(vectorOf(type->getElementType(), piece), at(pointer, static_cast<int64_t>(from) * bytes));
    Reg placed = place(b, part, from, lanes);
    llvm::SmallVector<int> mask;
    for (int i = 0; i < lanes; ++i) mask.push_back(i >= from && i < from + piece ? lanes + i : i);
    all = from == 0 ? placed : b.CreateShuffleVector(all, placed, mask);
    from += piece;
  }
  return all;
}

void KernelEmitter::storeFirst(Reg vector, Reg pointer, int count) {
  auto* type = llvm::cast<llvm::FixedVectorType>(vector->getType());
  const int lanes = static_cast<int>(type->getNumElements());
  if (count == lanes) return store(vector, pointer);
  const int bytes = static_cast<int>(type->getScalarSizeInBits() / 8);
  if (has(Isa::avx512)) {
    llvm::SmallVector<llvm::Constant*> mask;
    for (int i = 0; i < lanes; ++i) mask.push_back(b.getInt1(i < count));
    b.CreateMaskedStore(vector, pointer, llvm::Align(1), llvm::ConstantVector::get(mask));
    return;
  }
  for (int from = 0; from < count;) {
    const int piece = static_cast<int>(std::bit_floor(static_cast<unsigned>(count - from)));
    store(slice(b, vector, from, piece), at(pointer, static_cast<int64_t>(from) * bytes));
    from += piece;
  }
}

void KernelEmitter::copyBytes(Reg to, Reg from, int64_t count) {
  const int64_t width = target_.vectorBytes();
  const int64_t whole = count / width * width;
  auto copy = [&](Reg offset) { store(load(i8(static_cast<int>(width)), at(from, offset)), at(to, offset)); };
  if (whole >= 4 * width)
    loop(i64(0), i64(whole), width, copy, true);
  else
    for (int64_t o = 0; o < whole; o += width) copy(i64(o));
  for (int64_t o = whole; o < count;) {
    const int64_t piece = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(count - o)));
    llvm::Type* type = b.getIntNTy(static_cast<unsigned>(8 * piece));
    store(load(type, at(from, o)), at(to, o));
    o += piece;
  }
}

void KernelEmitter::copyBytes(Reg to, Reg from, Reg count) {
  if (const auto bytes = known(count)) return copyBytes(to, from, *bytes);
  const int width = target_.vectorBytes();
  Reg whole = b.CreateAnd(count, i64(-width));
  loop(i64(0), whole, width, [&](Reg o) { store(load(i8(width), at(from, o)), at(to, o)); });
  loop(whole, count, 1, [&](Reg o) { store(load(b.getInt8Ty(), at(from, o)), at(to, o)); });
}

void KernelEmitter::fillBytes(Reg to, Reg byte, Reg count) {
  const int width = target_.vectorBytes();
  Reg whole = b.CreateAnd(count, i64(-width));
  Reg vector = splat(byte, width);
  loop(i64(0), whole, width, [&](Reg o) { store(vector, at(to, o)); });
  loop(whole, count, 1, [&](Reg o) { store(byte, at(to, o)); });
}

void KernelEmitter::prefetch(Reg pointer) {
  constexpr int kRead = 0, kSecondCache = 2, kData = 1;
  b.CreateIntrinsic(llvm::Intrinsic::prefetch, {b.getPtrTy()}, {pointer, i32c(kRead), i32c(kSecondCache), i32c(kData)});
}

Reg KernelEmitter::table(const std::vector<int32_t>& values) {
  auto* data = llvm::ConstantDataArray::get(b.getContext(),
                                            llvm::ArrayRef<uint32_t>(reinterpret_cast<const uint32_t*>(values.data()), values.size()));
  auto* global = new llvm::GlobalVariable(module_, data->getType(), true, llvm::GlobalValue::PrivateLinkage, data);
  global->setAlignment(llvm::Align(16));
  return global;
}

// --- control --------------------------------------------------------------------------------------------------------

KernelEmitter::Values KernelEmitter::loop(Reg lo, Reg hi, int64_t step, Values carried, const std::function<void(Reg, Values&)>& body,
                                          bool atLeastOnce) {
  llvm::LLVMContext& context = b.getContext();
  auto* bodyBlock = llvm::BasicBlock::Create(context, "loop", function_);
  auto* exitBlock = llvm::BasicBlock::Create(context, "done", function_);
  llvm::BasicBlock* entryBlock = b.GetInsertBlock();
  const Values initial = carried;
  if (atLeastOnce)
    b.CreateBr(bodyBlock);
  else
    b.CreateCondBr(b.CreateICmpSLT(lo, hi), bodyBlock, exitBlock);
  b.SetInsertPoint(bodyBlock);
  llvm::PHINode* index = b.CreatePHI(b.getInt64Ty(), 2);
  index->addIncoming(lo, entryBlock);
  std::vector<llvm::PHINode*> phis;
  for (Reg& value : carried) {
    phis.push_back(b.CreatePHI(value->getType(), 2));
    phis.back()->addIncoming(value, entryBlock);
    value = phis.back();
  }
  body(index, carried);
  Reg following = b.CreateNSWAdd(index, i64(step));
  llvm::BasicBlock* lastBlock = b.GetInsertBlock();
  index->addIncoming(following, lastBlock);
  for (size_t i = 0; i < phis.size(); ++i) phis[i]->addIncoming(carried[i], lastBlock);
  b.CreateCondBr(b.CreateICmpSLT(following, hi), bodyBlock, exitBlock);
  exitBlock->moveAfter(lastBlock);
  b.SetInsertPoint(exitBlock);
  if (atLeastOnce) return carried;
  Values results;
  for (size_t i = 0; i < carried.size(); ++i) {
    llvm::PHINode* phi = b.CreatePHI(carried[i]->getType(), 2);
    phi->addIncoming(initial[i], entryBlock);
    phi->addIncoming(carried[i], lastBlock);
    results.push_back(phi);
  }
  return results;
}

void KernelEmitter::loop(Reg lo, Reg hi, int64_t step, const std::function<void(Reg)>& body, bool atLeastOnce) {
  loop(lo, hi, step, Values{}, [&](Reg i, Values&) { body(i); }, atLeastOnce);
}

void KernelEmitter::ifThen(Reg condition, const std::function<void()>& then, const std::function<void()>& otherwise) {
  llvm::LLVMContext& context = b.getContext();
  auto* thenBlock = llvm::BasicBlock::Create(context, "then", function_);
  auto* elseBlock = otherwise ? llvm::BasicBlock::Create(context, "else", function_) : nullptr;
  auto* endBlock = llvm::BasicBlock::Create(context, "end", function_);
  b.CreateCondBr(condition, thenBlock, elseBlock ? elseBlock : endBlock);
  b.SetInsertPoint(thenBlock);
  then();
  b.CreateBr(endBlock);
  if (elseBlock) {
    elseBlock->moveAfter(b.GetInsertBlock());
    b.SetInsertPoint(elseBlock);
    otherwise();
    b.CreateBr(endBlock);
  }
  endBlock->moveAfter(b.GetInsertBlock());
  b.SetInsertPoint(endBlock);
}

// --- float vectors --------------------------------------------------------------------------------------------------

Reg KernelEmitter::minOf(Reg a, Reg c) {
  const auto left = known(a), right = known(c);
  if (left && right) return llvm::ConstantInt::getSigned(a->getType(), std::min(*left, *right));
  return b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, a, c);
}

Reg KernelEmitter::maxOf(Reg a, Reg c) {
  const auto left = known(a), right = known(c);
  if (left && right) return llvm::ConstantInt::getSigned(a->getType(), std::max(*left, *right));
  return b.CreateBinaryIntrinsic(llvm::Intrinsic::smax, a, c);
}

Reg KernelEmitter::fma(Reg x, Reg y, Reg z) {
  if (target_.arch == Arch::aarch64 || has(Isa::avx2)) return b.CreateIntrinsic(llvm::Intrinsic::fma, {x->getType()}, {x, y, z});
  // Without the instruction: the product is exact in double; the sum is rounded to odd there (its last bit set when
  // inexact), so that rounding to float afterwards is the only rounding (Boldo and Melquiond, 2008).
  const int n = lanesOf(x);
  llvm::Type* doubles = vectorOf(b.getDoubleTy(), n);
  Reg product = b.CreateFMul(b.CreateFPExt(x, doubles), b.CreateFPExt(y, doubles));
  Reg addend = b.CreateFPExt(z, doubles);
  Reg sum = b.CreateFAdd(product, addend);
  Reg back = b.CreateFSub(sum, product);
  Reg error = b.CreateFAdd(b.CreateFSub(product, b.CreateFSub(sum, back)), b.CreateFSub(addend, back));
  Reg zero = llvm::Constant::getNullValue(doubles);
  llvm::Type* wide = i64s(n);
  Reg bits = bitcast(sum, wide);
  Reg even = b.CreateICmpEQ(b.CreateAnd(bits, ints(1, wide)), llvm::Constant::getNullValue(wide));
  Reg adjust = b.CreateAnd(b.CreateFCmpONE(error, zero), even);
  Reg outward = b.CreateICmpEQ(b.CreateFCmpOGT(error, zero), b.CreateFCmpOGT(sum, zero));
  Reg odd = b.CreateAdd(bits, b.CreateSelect(outward, ints(1, wide), ints(-1, wide)));
  return b.CreateFPTrunc(bitcast(b.CreateSelect(adjust, odd, bits), doubles), x->getType());
}

Reg KernelEmitter::nanToZero(Reg x) { return b.CreateSelect(b.CreateFCmpORD(x, x), x, llvm::Constant::getNullValue(x->getType())); }

Reg KernelEmitter::roundEven(Reg x) {
  if (hasRoundingInstruction()) return b.CreateUnaryIntrinsic(llvm::Intrinsic::roundeven, x);
  Reg big = floats(8388608.0f, lanesOf(x));  // 2^23: from here on every float is integral
  Reg magnitude = b.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, x);
  Reg rounded = b.CreateFSub(b.CreateFAdd(magnitude, big), big);
  return b.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, b.CreateSelect(b.CreateFCmpOLT(magnitude, big), rounded, magnitude), x);
}

Reg KernelEmitter::floor(Reg x) {
  if (hasRoundingInstruction()) return b.CreateUnaryIntrinsic(llvm::Intrinsic::floor, x);
  const int n = lanesOf(x);
  Reg r = roundEven(x);
  Reg lowered = b.CreateFSub(r, b.CreateSelect(b.CreateFCmpOGT(r, x), floats(1, n), floats(0, n)));
  return b.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, lowered, x);
}

Reg KernelEmitter::ceil(Reg x) {
  if (hasRoundingInstruction()) return b.CreateUnaryIntrinsic(llvm::Intrinsic::ceil, x);
  return b.CreateFNeg(floor(b.CreateFNeg(x)));
}

Reg KernelEmitter::trunc(Reg x) {
  if (hasRoundingInstruction()) return b.CreateUnaryIntrinsic(llvm::Intrinsic::trunc, x);
  return b.CreateBinaryIntrinsic(llvm::Intrinsic::copysign, floor(b.CreateUnaryIntrinsic(llvm::Intrinsic::fabs, x)), x);
}

Reg KernelEmitter::roundToInt(Reg x) {
  const int n = lanesOf(x);
  if (target_.isX86()) {
    if (n == 16 && has(Isa::avx512))
      return intrinsic(llvm::Intrinsic::x86_avx512_mask_cvtps2dq_512,
                       {x, llvm::Constant::getNullValue(i32(16)), b.getInt16(0xffff), b.getInt32(4)});
    if (n == 8 && has(Isa::avx2)) return intrinsic(llvm::Intrinsic::x86_avx_cvt_ps2dq_256, {x});
    if (n == 4) return intrinsic(llvm::Intrinsic::x86_sse2_cvtps2dq, {x});
  }
  if (!target_.machine.empty()) return b.CreateIntrinsic(llvm::Intrinsic::fptosi_sat, {i32(n), x->getType()}, {roundEven(x)});
  Reg bounded = max(roundEven(x), floats(-2147483648.0f, n));
  return b.CreateFPToSI(bounded, i32(n));
}

Reg KernelEmitter::expression(const ScalarExpr& expr, std::span<Reg const> args) {
  const ExprProgram program(expr.expand());
  QC_CHECK(!args.empty(), "an expression without arguments has no lane count");
  const int n = lanesOf(args[0]);
  Values registers;
  for (const ExprProgram::Instruction& i : program.instructions()) {
    auto value = [&](int k) {
      return i.operand[k] >= 0 && i.operand[k] < static_cast<int>(registers.size()) ? nth(registers, i.operand[k]) : nullptr;
    };
    if (i.op == Op::arg)
      registers.push_back(nth(args, i.index));
    else if (i.op == Op::constant)
      registers.push_back(floats(i.value, n));
    else
      registers.push_back(emitInstruction(*this, i.op, value(0), value(1), value(2), n));
  }
  return registers.back();
}

// --- quantization ---------------------------------------------------------------------------------------------------

KernelEmitter::Bounds KernelEmitter::bounds(Reg zeroPoint, Reg qmin, Reg qmax) {
  // Clamping before rounding is the same as after (the bounds are integers, rounding is monotone) and keeps the
  // conversion in range.  8- and 16-bit bounds are exact in float.
  auto asFloat = [&](Reg bound) { return b.CreateSIToFP(b.CreateSub(bound, zeroPoint), b.getFloatTy()); };
  return {asFloat(qmin), asFloat(qmax), zeroPoint};
}

KernelEmitter::Bounds KernelEmitter::resultBounds(int i) {
  return bounds(resultParam(i, ParamField::zeroPoint), resultParam(i, ParamField::qmin), resultParam(i, ParamField::qmax));
}

Reg KernelEmitter::roundClamp(Reg x, const Bounds& bounds) {
  const int n = lanesOf(x);
  Reg clamped = max(min(nanToZero(x), splat(bounds.high, n)), splat(bounds.low, n));
  return b.CreateAdd(roundToInt(clamped), splat(bounds.zeroPoint, n));
}

Reg KernelEmitter::dequantize(Reg values, bool isSigned, Reg scale, Reg zeroPoint) {
  const int n = lanesOf(values);
  Reg wide = isSigned ? b.CreateSExt(values, i32(n)) : b.CreateZExt(values, i32(n));
  return b.CreateFMul(splat(scale, n), toFloat(b.CreateSub(wide, splat(zeroPoint, n))));
}

}  // namespace qc
