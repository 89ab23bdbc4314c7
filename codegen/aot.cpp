#include "codegen/aot.h"

#include <llvm/IR/Constants.h>
#include <llvm/Object/ArchiveWriter.h>
#include <llvm/Support/xxhash.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "codegen/aot_header.h"
#include "codegen/emit/emit.h"
#include "codegen/emit/nibbles.h"
#include "codegen/emit/object.h"

namespace qc {
namespace {

int64_t rounded(int64_t bytes) { return (bytes + kAotAlignment - 1) / kAotAlignment * kAotAlignment; }

Status checkKernels(const Program& program) {
  std::set<std::string> ops;
  const Node* first = nullptr;
  for (const Step& step : program.steps()) {
    if (step.kernel) continue;
    ops.insert(std::string(step.node->op()));
    if (!first) first = step.node;
  }
  if (!first) return {};
  std::string names;
  for (const std::string& op : ops) names += (names.empty() ? "" : ", ") + op;
  return fail(ErrorCode::kUnsupported, "no generated code for {} in this form on {}; an object cannot evaluate them on the host", names,
              program.target().str())
      .at(first->location())
      .help("run the model with the JIT, or take these ops out of it");
}

// What qcrt_cpu_supports is asked for: machines without extensions of ours need nothing but what each of their kind has.
std::string runtimeTarget(const Target& target) { return target.machine.empty() ? target.str() : "generic"; }

// The module under construction: kernels, constants, and the functions that run the steps of each program.
class AotEmitter {
 public:
  AotEmitter(const AotContent& content, std::string name, llvm::Module& module, bool packsNibbles)
      : content_(content), name_(std::move(name)), module_(module), b_(module.getContext()), packsNibbles_(packsNibbles) {
    if (content.hasBuckets()) messages_.push_back("the model has no bucket for these sizes, or of this number");
  }

  Status emit() {
    std::vector<llvm::Function*> runs;
    for (const Program& program : content_.programs) {
      program_ = &program;
      kernelOf_.clear();
      for (const Step& step : program.steps()) QC_TRY(kernelFor(step));
      scratch_ = 0;
      for (size_t i = 0; i < program.steps().size(); ++i) scratch_ = std::max(scratch_, rounded(shapeOf(i).scratchBytes));
      mostScratch_ = std::max(mostScratch_, scratch_);
      unpacked_ = 0;
      for (const Step& step : program.steps()) unpacked_ = std::max(unpacked_, unpackedBytes(step));
      mostArena_ = std::max(mostArena_, rounded(program.arenaBytes()) + unpacked_);
      earlierMessages_ = messages_.size();
      earlierData_.insert(newData_.begin(), newData_.end());
      newData_.clear();
      emitRun(runs.size());
      runs.push_back(run_);
    }
    if (content_.hasBuckets()) {
      emitChoice(runs);
      emitPick();
    }
    emitMemoryBytes();
    emitError();
    return {};
  }

  const std::vector<std::string>& exports() const { return exports_; }

 private:
  Status kernelFor(const Step& step) {
    const auto [it, isNew] =
        symbols_.emplace(codeKey(*step.kernel, *step.node, program_->target(), *step.plan), fmt::format("{}_k{}", name_, symbols_.size()));
    kernelOf_.push_back(it->second);
    if (!isNew) return {};
    KernelEmitter emitter(module_, program_->target(), *step.kernel, *step.node, it->second);
    auto shape = step.kernel->emit(emitter, *step.node, *step.plan);
    if (!shape) return tl::make_unexpected(std::move(shape).error().at(step.node->location()));
    shapes_[it->second] = *shape;
    emitter.finish();
    reasons_[it->second] = emitter.reason();
    module_.getFunction(it->second)->setLinkage(llvm::GlobalValue::InternalLinkage);
    return {};
  }

  // Two to a byte; null: it stays as it is.
  const std::string* packedForm(const Step& step, size_t buffer) {
    constexpr int64_t kWorthwhile = 1024;  // bytes
    const BufferRef& ref = step.buffers[buffer];
    const int64_t bytes = bytesOf(step, buffer);
    if (!packsNibbles_ || ref.kind != BufferRef::Kind::fixed || bytes < kWorthwhile) return nullptr;
    auto [it, isNew] = packed_.try_emplace(std::pair(ref.address, bytes));
    if (isNew) it->second = packNibbles({static_cast<const int8_t*>(ref.address), usize(bytes)});
    return it->second ? &*it->second : nullptr;
  }

  static int64_t inBlocks(int64_t bytes) { return (bytes + kNibbleBlock - 1) / kNibbleBlock * kNibbleBlock; }

  // Of the memory that a step's constants are unpacked into.
  int64_t unpackedBytes(const Step& step) {
    int64_t bytes = 0;
    for (size_t i = 0; i < step.buffers.size(); ++i)
      if (packedForm(step, i)) bytes += inBlocks(bytesOf(step, i));
    return bytes;
  }

  // Emits what unpacks it; where it is then.
  llvm::Value* unpacked(const Step& step, size_t buffer, const std::string& packed, int64_t offset) {
    llvm::Type* ptr = b_.getPtrTy();
    if (!unpack_) unpack_ = emitUnpackNibbles(module_, program_->target(), name_ + "_unpack");
    llvm::Value* to = bytesAt(run_->getArg(2), rounded(program_->arenaBytes()) + offset);
    b_.CreateStore(to, b_.CreateConstGEP1_64(ptr, buffers_, 0));
    b_.CreateStore(constantData(packed.data(), std::ssize(packed)), b_.CreateConstGEP1_64(ptr, buffers_, 1));
    constexpr int64_t kBlocksOfThread = 512;  // fewer are unpacked before another thread has woken up
    const int64_t blocks = inBlocks(bytesOf(step, buffer)) / kNibbleBlock, parts = std::max<int64_t>(blocks / kBlocksOfThread, 1);
    llvm::Value* units = b_.getInt64(static_cast<uint64_t>(blocks));
    llvm::Value* chunks = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, threads_, b_.getInt64(static_cast<uint64_t>(parts)));
    b_.CreateCall(runPool_, {run_->getArg(3), unpack_, buffers_, units, chunks, to, b_.getInt64(0)});
    return to;
  }

  KernelShape shapeOf(size_t step) { return program_->steps()[step].plan->shapeOf(shapes_[kernelOf_[step]]); }

  llvm::Value* bytesAt(llvm::Value* base, int64_t offset) {
    return b_.CreateConstGEP1_64(b_.getInt8Ty(), base, static_cast<uint64_t>(offset));
  }

  llvm::Value* constantData(const void* data, int64_t bytes) {
    llvm::GlobalVariable*& global = data_[data];
    const llvm::StringRef text(static_cast<const char*>(data), usize(bytes));
    // What another program holds as well, though elsewhere.
    const std::pair<uint64_t, int64_t> content(content_.hasBuckets() ? llvm::xxh3_64bits(text) : 0, bytes);
    if (const auto same = earlierData_.find(content); !global && same != earlierData_.end() && same->second.first == text)
      global = same->second.second;
    if (!global) {
      auto* init = llvm::ConstantDataArray::getRaw(text, static_cast<uint64_t>(bytes), b_.getInt8Ty());
      global = new llvm::GlobalVariable(module_, init->getType(), true, llvm::GlobalValue::InternalLinkage, init,
                                        fmt::format("{}_c{}", name_, data_.size()));
      global->setAlignment(llvm::Align(kAotAlignment));
      if (content_.hasBuckets()) newData_.emplace(content, std::pair(text, global));
    }
    return global;
  }

  llvm::Value* address(const BufferRef& ref, int64_t bytes) {
    switch (ref.kind) {
      case BufferRef::Kind::none: return llvm::ConstantPointerNull::get(b_.getPtrTy());
      case BufferRef::Kind::input:
        return b_.CreateLoad(b_.getPtrTy(), b_.CreateConstGEP1_64(b_.getPtrTy(), run_->getArg(0), static_cast<uint64_t>(ref.index)));
      case BufferRef::Kind::output:
        return b_.CreateLoad(b_.getPtrTy(), b_.CreateConstGEP1_64(b_.getPtrTy(), run_->getArg(1), static_cast<uint64_t>(ref.index)));
      case BufferRef::Kind::arena: return bytesAt(run_->getArg(2), ref.index);
      case BufferRef::Kind::fixed: return constantData(ref.address, bytes);
    }
    return nullptr;
  }

  // What C calls: on some machines an int stands sign-extended in its register.
  llvm::Function* exported(const char* suffix, llvm::Type* result, std::vector<llvm::Type*> parameters) {
    auto* function = llvm::Function::Create(llvm::FunctionType::get(result, parameters, false), llvm::GlobalValue::ExternalLinkage,
                                            name_ + suffix, module_);
    if (result == b_.getInt32Ty()) function->addRetAttr(llvm::Attribute::SExt);
    exports_.push_back(suffix + 1);
    return function;
  }

  // size_t NAME_memory_bytes(int threads)
  void emitMemoryBytes() {
    llvm::Type* size = module_.getDataLayout().getIntPtrType(module_.getContext());
    llvm::Function* function = exported("_memory_bytes", size, {b_.getInt32Ty()});
    b_.SetInsertPoint(llvm::BasicBlock::Create(module_.getContext(), "entry", function));
    const auto number = [&](int64_t n) { return llvm::ConstantInt::get(size, static_cast<uint64_t>(n)); };
    // A pool has one thread at least, whatever was asked for.
    llvm::Value* asked = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, function->getArg(0), b_.getInt32(1));
    llvm::Value* threads = b_.CreateSExtOrTrunc(asked, size);
    const int64_t arena = std::max(mostArena_, kAotAlignment);
    b_.CreateRet(b_.CreateAdd(number(arena), b_.CreateMul(number(mostScratch_), threads)));
  }

  // int NAME_run(const void* const* inputs, void* const* outputs, void* memory, qcrt_pool* pool), or that of a bucket
  void emitRun(size_t bucket) {
    llvm::Type *ptr = b_.getPtrTy(), *i64 = b_.getInt64Ty(), *i32 = b_.getInt32Ty();
    if (content_.hasBuckets())
      run_ = llvm::Function::Create(llvm::FunctionType::get(i32, {ptr, ptr, ptr, ptr}, false), llvm::GlobalValue::InternalLinkage,
                                    fmt::format("{}_run_{}", name_, bucket), module_);
    else
      run_ = exported("_run", i32, {ptr, ptr, ptr, ptr});
    const auto supports = module_.getOrInsertFunction("qcrt_cpu_supports", i32, ptr);
    const auto threadsOf = module_.getOrInsertFunction("qcrt_pool_threads", i32, ptr);
    const auto enter = module_.getOrInsertFunction("qcrt_fp_enter", i64);
    leave_ = module_.getOrInsertFunction("qcrt_fp_leave", b_.getVoidTy(), i64);
    runPool_ = module_.getOrInsertFunction("qcrt_pool_run", i32, ptr, ptr, ptr, i64, i64, ptr, i64);
    auto* entry = llvm::BasicBlock::Create(module_.getContext(), "entry", run_);
    auto* refuse = llvm::BasicBlock::Create(module_.getContext(), "refuse", run_);
    auto* steps = llvm::BasicBlock::Create(module_.getContext(), "steps", run_);
    b_.SetInsertPoint(entry);
    size_t most = 2;
    for (const Step& step : program_->steps()) most = std::max(most, step.buffers.size());
    buffers_ = b_.CreateAlloca(llvm::ArrayType::get(ptr, most));
    llvm::Value* ready = b_.CreateCall(supports, {b_.CreateGlobalStringPtr(runtimeTarget(program_->target()), name_ + "_target")});
    b_.CreateCondBr(b_.CreateICmpNE(ready, b_.getInt32(0)), steps, refuse);
    b_.SetInsertPoint(refuse);
    b_.CreateRet(b_.getInt32(1));
    b_.SetInsertPoint(steps);
    state_ = b_.CreateCall(enter);
    threads_ = b_.CreateSExt(b_.CreateCall(threadsOf, {run_->getArg(3)}), i64);
    llvm::Value* scratch = bytesAt(run_->getArg(2), rounded(program_->arenaBytes()) + unpacked_);
    for (size_t s = 0; s < program_->steps().size(); ++s) {
      const Step& step = program_->steps()[s];
      const KernelShape shape = shapeOf(s);
      std::vector<llvm::Value*> addresses;
      int64_t offset = 0;
      for (size_t i = 0; i < step.buffers.size(); ++i) {
        const std::string* packed = packedForm(step, i);
        addresses.push_back(packed ? unpacked(step, i, *packed, offset) : address(step.buffers[i], bytesOf(step, i)));
        if (packed) offset += inBlocks(bytesOf(step, i));
      }
      for (size_t i = 0; i < addresses.size(); ++i) b_.CreateStore(addresses[i], b_.CreateConstGEP1_64(ptr, buffers_, i));
      llvm::Value* units = b_.getInt64(static_cast<uint64_t>(shape.units));
      llvm::Value* chunks = step.splits() ? b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, threads_, units) : b_.getInt64(1);
      llvm::Value* refused = b_.CreateCall(runPool_, {run_->getArg(3), module_.getFunction(kernelOf_[s]), buffers_, units, chunks, scratch,
                                                      b_.getInt64(static_cast<uint64_t>(scratch_))});
      if (const std::string& reason = reasons_[kernelOf_[s]]; !reason.empty()) returnIf(refused, *step.node, reason);
    }
    for (const Program::Copy& copy : program_->copies())
      b_.CreateMemMove(address({BufferRef::Kind::output, copy.output, nullptr}, copy.bytes), llvm::MaybeAlign(1),
                       address(copy.from, copy.bytes), llvm::MaybeAlign(1), static_cast<uint64_t>(copy.bytes));
    returnStatus(0);
  }

  // With the floating-point state as the caller had it.
  void returnStatus(size_t status) {
    b_.CreateCall(leave_, {state_});
    b_.CreateRet(b_.getInt32(static_cast<uint32_t>(status)));
  }

  // Each step that may meet bad data has a status of its own.
  void returnIf(llvm::Value* refused, const Node& node, const std::string& reason) {
    auto* bad = llvm::BasicBlock::Create(module_.getContext(), "bad", run_);
    auto* good = llvm::BasicBlock::Create(module_.getContext(), "good", run_);
    b_.CreateCondBr(b_.CreateICmpNE(refused, b_.getInt32(0)), bad, good);
    b_.SetInsertPoint(bad);
    std::string message = fmt::format("node '{}': {}", node.location(), reason);
    const auto earlier = messages_.begin() + static_cast<std::ptrdiff_t>(earlierMessages_);  // other buckets say the same of it
    const auto known = std::find(messages_.begin(), earlier, message);
    returnStatus(static_cast<size_t>((known == earlier ? messages_.end() : known) - messages_.begin()));
    if (known == earlier) messages_.push_back(std::move(message));
    b_.SetInsertPoint(good);
  }

  // int NAME_run(int bucket, ...)
  void emitChoice(const std::vector<llvm::Function*>& runs) {
    llvm::Type *ptr = b_.getPtrTy(), *i32 = b_.getInt32Ty();
    llvm::Function* function = exported("_run", i32, {i32, ptr, ptr, ptr, ptr});
    auto* entry = llvm::BasicBlock::Create(module_.getContext(), "entry", function);
    auto* none = llvm::BasicBlock::Create(module_.getContext(), "none", function);
    b_.SetInsertPoint(entry);
    llvm::SwitchInst* choice = b_.CreateSwitch(function->getArg(0), none);
    b_.SetInsertPoint(none);
    b_.CreateRet(b_.getInt32(kNoBucket));
    for (size_t i = 0; i < runs.size(); ++i) {
      auto* bucket = llvm::BasicBlock::Create(module_.getContext(), "bucket", function);
      b_.SetInsertPoint(bucket);
      b_.CreateRet(b_.CreateCall(runs[i], {function->getArg(1), function->getArg(2), function->getArg(3), function->getArg(4)}));
      choice->addCase(b_.getInt32(static_cast<uint32_t>(i)), bucket);
    }
  }

  // int NAME_pick(const NAME_sizes* wanted, NAME_bucket* bucket): both are words of 64 bits, as the header declares them.
  void emitPick() {
    llvm::Type *ptr = b_.getPtrTy(), *i64 = b_.getInt64Ty(), *i32 = b_.getInt32Ty();
    llvm::Function* function = exported("_pick", i32, {ptr, ptr});
    const auto block = [&](const char* label) { return llvm::BasicBlock::Create(module_.getContext(), label, function); };
    const auto word = [&](llvm::Value* base, size_t i) { return b_.CreateConstGEP1_64(i64, base, i); };
    b_.SetInsertPoint(block("entry"));
    const size_t symbols = content_.symbols.size();
    std::vector<llvm::Value*> wanted;
    for (size_t i = 0; i < symbols; ++i) wanted.push_back(b_.CreateAlignedLoad(i64, word(function->getArg(0), i), llvm::Align(8)));
    for (size_t p = 0; p < content_.programs.size(); ++p) {
      auto *fits = block("fits"), *next = block("next");
      llvm::Value* holds = b_.getTrue();
      for (size_t i = 0; i < symbols; ++i)  // sizes below zero are larger than any
        holds = b_.CreateAnd(holds, b_.CreateICmpULE(wanted[i], b_.getInt64(static_cast<uint64_t>(content_.sizes[p][i]))));
      b_.CreateCondBr(holds, fits, next);
      b_.SetInsertPoint(fits);
      size_t at = 0;
      const auto put = [&](llvm::Value* value) { b_.CreateAlignedStore(value, word(function->getArg(1), at++), llvm::Align(8)); };
      const auto number = [&](int64_t n) { return b_.getInt64(static_cast<uint64_t>(n)); };
      put(number(static_cast<int64_t>(p)));
      for (const int64_t size : content_.sizes[p]) put(number(size));
      for (size_t i = 0; i < symbols; ++i) put(b_.CreateSub(number(content_.sizes[p][i]), wanted[i]));
      for (const Value* v : content_.programs[p].graph().inputs()) put(number(v->type().byteSize()));
      for (const Value* v : content_.programs[p].graph().outputs()) put(number(v->type().byteSize()));
      b_.CreateRet(b_.getInt32(0));
      b_.SetInsertPoint(next);
    }
    b_.CreateRet(b_.getInt32(kNoBucket));
  }

  // const char* NAME_error(int status)
  void emitError() {
    llvm::Type* ptr = b_.getPtrTy();
    auto* function = exported("_error", ptr, {b_.getInt32Ty()});
    const auto block = [&](const char* label) { return llvm::BasicBlock::Create(module_.getContext(), label, function); };
    auto *entry = block("entry"), *unknown = block("unknown");
    b_.SetInsertPoint(entry);
    llvm::SwitchInst* choice = b_.CreateSwitch(function->getArg(0), unknown);
    b_.SetInsertPoint(unknown);
    b_.CreateRet(b_.CreateGlobalStringPtr("no status of this model", name_ + "_message"));
    for (size_t i = 0; i < messages_.size(); ++i) {
      auto* known = block("known");
      b_.SetInsertPoint(known);
      b_.CreateRet(b_.CreateGlobalStringPtr(messages_[i], name_ + "_message"));
      choice->addCase(b_.getInt32(static_cast<uint32_t>(i)), known);
    }
  }

  // The parameter block comes last.
  static int64_t bytesOf(const Step& step, size_t buffer) {
    const auto i = static_cast<int>(buffer);
    const int results = step.numOperands + step.node->numResults();
    if (i >= results) return static_cast<int64_t>(kernelParams(*step.node, step.plan->numbers).size() * sizeof(ParamRecord));
    const Value* v = i < step.numOperands ? step.node->operand(i) : step.node->result(i - step.numOperands);
    return v ? v->type().byteSize() : 0;
  }

  static constexpr uint32_t kNoBucket = 2;  // the status of it

  const AotContent& content_;
  const Program* program_ = nullptr;  // that is being written
  std::string name_;
  llvm::Module& module_;
  llvm::IRBuilder<> b_;
  llvm::Function* run_ = nullptr;
  llvm::FunctionCallee leave_;    // puts back the state that
  llvm::Value* state_ = nullptr;  // this holds
  llvm::FunctionCallee runPool_;
  llvm::Value *buffers_ = nullptr, *threads_ = nullptr;  // of the run that is being written
  std::map<std::string, std::string> symbols_;           // kernel key -> symbol
  std::map<std::string, KernelShape> shapes_;            // by symbol
  std::map<std::string, std::string> reasons_;           // by symbol: what is wrong where it returns 1; empty: it does not
  std::vector<std::string> kernelOf_;                    // symbol of every step
  // By status.
  std::vector<std::string> messages_ = {"done", "this CPU lacks what the code needs"};
  size_t earlierMessages_ = 0;  // of programs before this one
  std::map<const void*, llvm::GlobalVariable*> data_;
  // By hash and size: bytes of programs before this one, and its own.
  std::map<std::pair<uint64_t, int64_t>, std::pair<llvm::StringRef, llvm::GlobalVariable*>> earlierData_, newData_;
  std::vector<std::string> exports_;
  int64_t scratch_ = 0, mostScratch_ = 0, mostArena_ = 0;
  const bool packsNibbles_;
  llvm::Function* unpack_ = nullptr;
  int64_t unpacked_ = 0;  // bytes behind the arena, before scratch
  std::map<std::pair<const void*, int64_t>, std::optional<std::string>> packed_;
};

bool isIdentifier(const std::string& name) {
  if (name.empty() || name.size() > 200 || (name[0] >= '0' && name[0] <= '9')) return false;
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

Result<AotModel> compileContent(const AotContent& content, const Target& target, const std::string& name, const AotOptions& options) {
  AotModel model;
  QC_ASSIGN(model.object, emitObject(target, name, [&](llvm::Module& module) -> Status {
              AotEmitter emitter(content, name, module, options.packsNibbles);
              QC_TRY(emitter.emit());
              model.exports = emitter.exports();
              return {};
            }));
  model.header = aotHeader(content, name, options.needsRt);
  return model;
}

Status checkName(const std::string& name) {
  if (isIdentifier(name)) return {};
  return fail(ErrorCode::kInvalidArgument, "'{}' is not a C identifier", name).help("choose another name: letters, digits and _");
}

Status addProgram(AotContent& content, Graph graph, const Target& target, std::shared_ptr<ProgramParts> parts) {
  QC_ASSIGN(Program program, buildProgram(std::move(graph), target, {.load = false, .parts = std::move(parts)}));
  QC_TRY(checkKernels(program));
  content.programs.push_back(std::move(program));
  return {};
}

}  // namespace

Result<AotModel> compileToObject(Graph graph, const Target& target, const std::string& name, const AotOptions& options) {
  QC_TRY(checkName(name));
  AotContent content;
  QC_TRY(addProgram(content, std::move(graph), target, nullptr));
  return compileContent(content, target, name, options);
}

Result<AotModel> compileToObject(AotBuckets buckets, const Target& target, const std::string& name, const AotOptions& options) {
  QC_TRY(checkName(name));
  if (buckets.symbols.empty() || buckets.buckets.empty())
    return fail(ErrorCode::kInvalidArgument, "{} buckets of {} symbols", buckets.buckets.size(), buckets.symbols.size())
        .help("compile the graph alone");
  AotContent content{{}, std::move(buckets.symbols), {}};
  for (AotBucket& bucket : buckets.buckets) {
    if (bucket.sizes.size() != content.symbols.size())
      return fail(ErrorCode::kInvalidArgument, "a bucket has {} sizes for {} symbols", bucket.sizes.size(), content.symbols.size());
    content.sizes.push_back(std::move(bucket.sizes));
    QC_TRY(addProgram(content, std::move(bucket.graph), target, buckets.parts));
  }
  return compileContent(content, target, name, options);
}

Result<std::string> archiveOf(const std::string& object, const std::string& member) {
  const llvm::NewArchiveMember only(llvm::MemoryBufferRef(object, member));
  auto archive = llvm::writeArchiveToBuffer(only, llvm::SymtabWritingMode::NormalSymtab, llvm::object::Archive::K_GNU,
                                            /*Deterministic=*/true, /*Thin=*/false);
  if (!archive) return fail(ErrorCode::kInternal, "LLVM cannot write a static library: {}", llvm::toString(archive.takeError()));
  return (*archive)->getBuffer().str();
}

}  // namespace qc
