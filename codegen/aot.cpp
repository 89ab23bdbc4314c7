#include "codegen/aot.h"

#include <llvm/IR/Constants.h>
#include <llvm/Object/ArchiveWriter.h>

#include <map>
#include <set>

#include "codegen/emit/emit.h"
#include "codegen/emit/object.h"

namespace qc {
namespace {

constexpr int64_t kAlignment = 64;

int64_t rounded(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

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

// The module under construction: kernels, constants, and the function that runs the steps.
class AotEmitter {
 public:
  AotEmitter(const Program& program, std::string name, llvm::Module& module)
      : program_(program), name_(std::move(name)), module_(module), b_(module.getContext()) {}

  Status emit() {
    for (const Step& step : program_.steps()) QC_TRY(kernelFor(step));
    for (size_t i = 0; i < program_.steps().size(); ++i) scratch_ = std::max(scratch_, rounded(shapeOf(i).scratchBytes));
    emitRun();
    emitMemoryBytes();
    emitError();
    return {};
  }

 private:
  Status kernelFor(const Step& step) {
    const auto [it, isNew] =
        symbols_.emplace(codeKey(*step.kernel, *step.node, program_.target(), *step.plan), fmt::format("{}_k{}", name_, symbols_.size()));
    kernelOf_.push_back(it->second);
    if (!isNew) return {};
    KernelEmitter emitter(module_, program_.target(), *step.kernel, *step.node, it->second);
    auto shape = step.kernel->emit(emitter, *step.node, *step.plan);
    if (!shape) return tl::make_unexpected(std::move(shape).error().at(step.node->location()));
    shapes_[it->second] = *shape;
    emitter.finish();
    reasons_[it->second] = emitter.reason();
    module_.getFunction(it->second)->setLinkage(llvm::GlobalValue::InternalLinkage);
    return {};
  }

  KernelShape shapeOf(size_t step) { return program_.steps()[step].plan->shapeOf(shapes_[kernelOf_[step]]); }

  llvm::Value* bytesAt(llvm::Value* base, int64_t offset) {
    return b_.CreateConstGEP1_64(b_.getInt8Ty(), base, static_cast<uint64_t>(offset));
  }

  llvm::Value* constantData(const void* data, int64_t bytes) {
    llvm::GlobalVariable*& global = data_[data];
    if (!global) {
      auto* init = llvm::ConstantDataArray::getRaw(llvm::StringRef(static_cast<const char*>(data), usize(bytes)),
                                                   static_cast<uint64_t>(bytes), b_.getInt8Ty());
      global = new llvm::GlobalVariable(module_, init->getType(), true, llvm::GlobalValue::InternalLinkage, init,
                                        fmt::format("{}_c{}", name_, data_.size()));
      global->setAlignment(llvm::Align(kAlignment));
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
    return function;
  }

  // size_t NAME_memory_bytes(int threads)
  void emitMemoryBytes() {
    llvm::Type* size = module_.getDataLayout().getIntPtrType(module_.getContext());
    llvm::Function* function = exported("_memory_bytes", size, {b_.getInt32Ty()});
    b_.SetInsertPoint(llvm::BasicBlock::Create(module_.getContext(), "entry", function));
    const auto number = [&](int64_t n) { return llvm::ConstantInt::get(size, static_cast<uint64_t>(n)); };
    llvm::Value* threads = b_.CreateSExtOrTrunc(function->getArg(0), size);
    const int64_t arena = std::max<int64_t>(rounded(program_.arenaBytes()), kAlignment);
    b_.CreateRet(b_.CreateAdd(number(arena), b_.CreateMul(number(scratch_), threads)));
  }

  // int NAME_run(const void* const* inputs, void* const* outputs, void* memory, qcrt_pool* pool)
  void emitRun() {
    llvm::Type *ptr = b_.getPtrTy(), *i64 = b_.getInt64Ty(), *i32 = b_.getInt32Ty();
    run_ = exported("_run", i32, {ptr, ptr, ptr, ptr});
    const auto supports = module_.getOrInsertFunction("qcrt_cpu_supports", i32, ptr);
    const auto threadsOf = module_.getOrInsertFunction("qcrt_pool_threads", i32, ptr);
    const auto enter = module_.getOrInsertFunction("qcrt_fp_enter", i64);
    leave_ = module_.getOrInsertFunction("qcrt_fp_leave", b_.getVoidTy(), i64);
    const auto runPool = module_.getOrInsertFunction("qcrt_pool_run", i32, ptr, ptr, ptr, i64, i64, ptr, i64);
    auto* entry = llvm::BasicBlock::Create(module_.getContext(), "entry", run_);
    auto* refuse = llvm::BasicBlock::Create(module_.getContext(), "refuse", run_);
    auto* steps = llvm::BasicBlock::Create(module_.getContext(), "steps", run_);
    b_.SetInsertPoint(entry);
    size_t most = 1;
    for (const Step& step : program_.steps()) most = std::max(most, step.buffers.size());
    llvm::Value* buffers = b_.CreateAlloca(llvm::ArrayType::get(ptr, most));
    llvm::Value* ready = b_.CreateCall(supports, {b_.CreateGlobalStringPtr(runtimeTarget(program_.target()), name_ + "_target")});
    b_.CreateCondBr(b_.CreateICmpNE(ready, b_.getInt32(0)), steps, refuse);
    b_.SetInsertPoint(refuse);
    b_.CreateRet(b_.getInt32(1));
    b_.SetInsertPoint(steps);
    state_ = b_.CreateCall(enter);
    llvm::Value* threads = b_.CreateSExt(b_.CreateCall(threadsOf, {run_->getArg(3)}), i64);
    llvm::Value* scratch = bytesAt(run_->getArg(2), rounded(program_.arenaBytes()));
    for (size_t s = 0; s < program_.steps().size(); ++s) {
      const Step& step = program_.steps()[s];
      const KernelShape shape = shapeOf(s);
      for (size_t i = 0; i < step.buffers.size(); ++i)
        b_.CreateStore(address(step.buffers[i], bytesOf(step, i)), b_.CreateConstGEP1_64(ptr, buffers, i));
      llvm::Value* units = b_.getInt64(static_cast<uint64_t>(shape.units));
      llvm::Value* chunks = step.splits() ? b_.CreateBinaryIntrinsic(llvm::Intrinsic::smin, threads, units) : b_.getInt64(1);
      llvm::Value* refused = b_.CreateCall(runPool, {run_->getArg(3), module_.getFunction(kernelOf_[s]), buffers, units, chunks, scratch,
                                                     b_.getInt64(static_cast<uint64_t>(scratch_))});
      if (const std::string& reason = reasons_[kernelOf_[s]]; !reason.empty()) returnIf(refused, *step.node, reason);
    }
    for (const Program::Copy& copy : program_.copies())
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
    returnStatus(messages_.size());
    b_.SetInsertPoint(good);
    messages_.push_back(fmt::format("node '{}': {}", node.location(), reason));
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

  const Program& program_;
  std::string name_;
  llvm::Module& module_;
  llvm::IRBuilder<> b_;
  llvm::Function* run_ = nullptr;
  llvm::FunctionCallee leave_;                  // puts back the state that
  llvm::Value* state_ = nullptr;                // this holds
  std::map<std::string, std::string> symbols_;  // kernel key -> symbol
  std::map<std::string, KernelShape> shapes_;   // by symbol
  std::map<std::string, std::string> reasons_;  // by symbol: what is wrong where it returns 1; empty: it does not
  std::vector<std::string> kernelOf_;           // symbol of every step
  // By status.
  std::vector<std::string> messages_ = {"done", "this CPU lacks what the code needs"};
  std::map<const void*, llvm::GlobalVariable*> data_;
  int64_t scratch_ = 0;
};

std::string portLine(const char* kind, size_t i, const std::string& name, const TensorType& type) {
  std::string shown = name;  // an end of comment inside a name would end the comment
  for (size_t at; (at = shown.find("*/")) != std::string::npos;) shown.replace(at, 2, "* /");
  for (char& c : shown)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return fmt::format("   {}[{}]  {}: {}, {} bytes\n", kind, i, shown, type.str(), type.byteSize());
}

std::string headerText(const Program& program, const std::string& name, bool needsRt) {
  const Graph& g = program.graph();
  std::string ports;
  for (size_t i = 0; i < g.inputs().size(); ++i) ports += portLine("inputs", i, g.inputs()[i]->name(), g.inputs()[i]->type());
  for (size_t i = 0; i < g.outputs().size(); ++i) ports += portLine("outputs", i, g.outputNames()[i], g.outputs()[i]->type());
  return fmt::format(
      "/* {0}, compiled for {1}.  {4}\n{2}*/\n"
      "#pragma once\n\n#include <stddef.h>\n\n#include \"runtime/rt/pool.h\"\n\n"
      "#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n"
      "/* Working memory of a run on a pool of that many threads, in bytes; aligned to {3}. */\n"
      "size_t {0}_memory_bytes(int threads);\n\n"
      "/* 0: done.  1: this CPU lacks what the code needs, and nothing was done.  More: the run met bad data, such as an index outside a\n"
      "   table, and the outputs are of no use.  One run at a time for each pool and memory. */\n"
      "int {0}_run(const void* const* inputs, void* const* outputs, void* memory, qcrt_pool* pool);\n"
      "/* What a status that {0}_run returned means, with the node's name. */\n"
      "const char* {0}_error(int status);\n\n"
      "#ifdef __cplusplus\n}}\n#endif\n",
      name, program.target().str(), ports, kAlignment,
      needsRt ? "Link with qcompile_rt, pthread and m." : "The library holds qcompile_rt: its functions are there, too.");
}

bool isIdentifier(const std::string& name) {
  if (name.empty() || name.size() > 200 || (name[0] >= '0' && name[0] <= '9')) return false;
  return name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

}  // namespace

Result<AotModel> compileToObject(Graph graph, const Target& target, const std::string& name, const AotOptions& options) {
  if (!isIdentifier(name))
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a C identifier", name).help("choose another name: letters, digits and _");
  QC_ASSIGN(const Program program, buildProgram(std::move(graph), target, {.load = false}));
  QC_TRY(checkKernels(program));
  AotModel model;
  QC_ASSIGN(model.object,
            emitObject(target, name, [&](llvm::Module& module) -> Status { return AotEmitter(program, name, module).emit(); }));
  model.header = headerText(program, name, options.needsRt);
  return model;
}

Result<std::string> archiveOf(const std::string& object, const std::string& member) {
  const llvm::NewArchiveMember only(llvm::MemoryBufferRef(object, member));
  auto archive = llvm::writeArchiveToBuffer(only, llvm::SymtabWritingMode::NormalSymtab, llvm::object::Archive::K_GNU,
                                            /*Deterministic=*/true, /*Thin=*/false);
  if (!archive) return fail(ErrorCode::kInternal, "LLVM cannot write a static library: {}", llvm::toString(archive.takeError()));
  return (*archive)->getBuffer().str();
}

}  // namespace qc
