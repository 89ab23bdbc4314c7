#include "codegen/emit/nibbles.h"

#include <llvm/IR/IRBuilder.h>

#include <algorithm>

#include "ir/signed_index.h"

namespace qc {

std::optional<std::string> packNibbles(std::span<const int8_t> bytes) {
  if (!std::all_of(bytes.begin(), bytes.end(), [](int8_t v) { return v >= -8 && v <= 7; })) return std::nullopt;
  constexpr auto kBlock = usize(kNibbleBlock), kHalf = kBlock / 2;
  const size_t blocks = (bytes.size() + kBlock - 1) / kBlock;
  std::string packed(blocks * kHalf, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) {
    const size_t inBlock = i % kBlock, at = i / kBlock * kHalf + inBlock % kHalf;
    const int nibble = bytes[i] & 15;
    packed[at] = static_cast<char>(packed[at] | (inBlock < kHalf ? nibble : nibble << 4));
  }
  return packed;
}

llvm::Function* emitUnpackNibbles(llvm::Module& module, const Target& target, const std::string& symbol) {
  llvm::IRBuilder<> b(module.getContext());
  llvm::Type *pointer = b.getPtrTy(), *i64 = b.getInt64Ty();
  auto* function = llvm::Function::Create(llvm::FunctionType::get(b.getInt32Ty(), {pointer, i64, i64, pointer}, false),
                                          llvm::Function::InternalLinkage, symbol, module);
  const std::string bits = std::to_string(target.vectorBytes() * 8);
  function->addFnAttr("prefer-vector-width", bits);
  function->addFnAttr("min-legal-vector-width", bits);
  const auto block = [&](const char* name) { return llvm::BasicBlock::Create(module.getContext(), name, function); };
  auto *entry = block("entry"), *loop = block("loop"), *done = block("done");
  b.SetInsertPoint(entry);
  llvm::Value *buffers = function->getArg(0), *first = function->getArg(1), *last = function->getArg(2);
  llvm::Value* to = b.CreateLoad(pointer, buffers);
  llvm::Value* from = b.CreateLoad(pointer, b.CreateConstGEP1_64(pointer, buffers, 1));
  b.CreateCondBr(b.CreateICmpSLT(first, last), loop, done);
  b.SetInsertPoint(loop);
  llvm::PHINode* unit = b.CreatePHI(i64, 2);
  unit->addIncoming(first, entry);
  // As many lanes as a register has: shifts of bytes are shifts of words there, with what came from the neighbour masked off.
  const int64_t lanes = std::clamp<int64_t>(target.vectorBytes(), 1, kNibbleBlock / 2);
  llvm::Type* vector = llvm::FixedVectorType::get(b.getInt8Ty(), static_cast<unsigned>(lanes));
  const auto at = [&](llvm::Value* base, int64_t bytesOfUnit, int64_t offset) {
    llvm::Value* place =
        b.CreateAdd(b.CreateMul(unit, b.getInt64(static_cast<uint64_t>(bytesOfUnit))), b.getInt64(static_cast<uint64_t>(offset)));
    return b.CreateGEP(b.getInt8Ty(), base, place);
  };
  llvm::Value* eight = llvm::ConstantInt::get(vector, 8);
  const auto put = [&](llvm::Value* nibbles, int64_t offset) {  // of their sign
    b.CreateAlignedStore(b.CreateSub(b.CreateXor(nibbles, eight), eight), at(to, kNibbleBlock, offset),
                         llvm::Align(static_cast<uint64_t>(lanes)));
  };
  for (int64_t i = 0; i < kNibbleBlock / 2; i += lanes) {
    llvm::Value* both = b.CreateAlignedLoad(vector, at(from, kNibbleBlock / 2, i), llvm::Align(static_cast<uint64_t>(lanes)));
    put(b.CreateAnd(both, llvm::ConstantInt::get(vector, 15)), i);
    put(b.CreateLShr(both, llvm::ConstantInt::get(vector, 4)), i + kNibbleBlock / 2);
  }
  llvm::Value* next = b.CreateAdd(unit, b.getInt64(1));
  unit->addIncoming(next, loop);
  b.CreateCondBr(b.CreateICmpSLT(next, last), loop, done);
  b.SetInsertPoint(done);
  b.CreateRet(b.getInt32(0));
  return function;
}

}  // namespace qc
