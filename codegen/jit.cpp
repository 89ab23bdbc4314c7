#include "codegen/jit.h"

#include <llvm/Config/llvm-config.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/IR/DiagnosticInfo.h>
#include <llvm/IR/DiagnosticPrinter.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Support/ErrorHandling.h>
#include <llvm/Support/MemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/TargetParser/Triple.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "codegen/emit/emit.h"
#include "codegen/emit/object.h"

namespace qc {
namespace {

struct LlvmFatalError {
  std::string message;
};

// report_fatal_error would end the host process.  Unwinding out of it leaks what LLVM held, which is harmless once.
[[noreturn]] void onFatalError(void*, const char* reason, bool) { throw LlvmFatalError{reason}; }

// The back end for these machines alone: each brings pages of LLVM into memory.
void initializeLlvm(const std::string& triple) {
  static std::mutex mutex;
  static std::set<std::string> known;
  const llvm::StringRef prefix = llvm::Triple::getArchTypePrefix(llvm::Triple(triple).getArch());
  const std::lock_guard lock(mutex);
  if (known.empty()) llvm::install_fatal_error_handler(onFatalError);
  if (!known.insert(prefix.str()).second) return;
#define LLVM_TARGET(name)                 \
  if (prefix.equals_insensitive(#name)) { \
    LLVMInitialize##name##TargetInfo();   \
    LLVMInitialize##name##Target();       \
    LLVMInitialize##name##TargetMC();     \
  }
#include <llvm/Config/Targets.def>
#define LLVM_ASM_PRINTER(name) \
  if (prefix.equals_insensitive(#name)) LLVMInitialize##name##AsmPrinter();
#include <llvm/Config/AsmPrinters.def>
}

Failure internal(llvm::Error error, std::string_view doing) {
  return fail(ErrorCode::kInternal, "LLVM cannot {}: {}", doing, llvm::toString(std::move(error)));
}

Result<std::unique_ptr<llvm::TargetMachine>> makeTargetMachine(const Target& target) {
  const std::string triple = target.llvmTriple();
  if (triple.empty()) return fail(ErrorCode::kUnsupported, "no code generator for this machine's architecture");
  initializeLlvm(triple);
  std::string message;
  const llvm::Target* backend = llvm::TargetRegistry::lookupTarget(triple, message);
  if (!backend)
    return fail(ErrorCode::kInvalidArgument, "LLVM has no back end for '{}'", triple).help("this build's LLVM was made without it");
  llvm::TargetOptions options;
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict;
  options.MCOptions.ABIName = target.llvmAbi();
  const char* cpu = target.arch == Arch::aarch64 ? "generic" : triple.starts_with("x86_64") ? "x86-64" : "generic";
  std::unique_ptr<llvm::TargetMachine> machine(backend->createTargetMachine(triple, cpu, target.llvmFeatures(), options, llvm::Reloc::PIC_,
                                                                            llvm::CodeModel::Small, llvm::CodeGenOptLevel::Default));
  if (!machine) return fail(ErrorCode::kInternal, "LLVM has no target machine for {}", target.str());
  return machine;
}

void collectDiagnostic(const llvm::DiagnosticInfo* info, void* sink) {
  if (info->getSeverity() != llvm::DS_Error) return;
  llvm::raw_string_ostream stream(*static_cast<std::string*>(sink));
  llvm::DiagnosticPrinterRawOStream printer(stream);
  info->print(printer);
}

struct Compiled {
  KernelObject object;
  std::string ir;
};

Result<Compiled> compile(const KernelJob& job, const Target& target, llvm::TargetMachine& machine, llvm::CodeGenFileType fileType,
                         bool wantIr) {
  const auto start = std::chrono::steady_clock::now();
  if (!job.plan) return fail(ErrorCode::kInvalidModel, "kernel '{}' has no code for this node", job.def->id).at(job.node->location());
  llvm::LLVMContext context;
  std::string diagnostics;
  context.setDiagnosticHandlerCallBack(collectDiagnostic, &diagnostics, /*RespectFilters=*/false);
  llvm::Module module(job.symbol, context);
  module.setDataLayout(machine.createDataLayout());
  module.setTargetTriple(machine.getTargetTriple().str());

  Compiled result;
  result.object.symbol = job.symbol;
  KernelEmitter emitter(module, target, *job.def, *job.node, job.symbol);
  auto shape = job.def->emit(emitter, *job.node, *job.plan);
  if (!shape) return tl::make_unexpected(std::move(shape).error().at(job.node->location()));
  result.object.shape = *shape;
  result.object.irInstructions = emitter.finish();
  llvm::raw_string_ostream irStream(result.ir);
  if (wantIr) module.print(irStream, nullptr);
  std::string broken;
  llvm::raw_string_ostream brokenStream(broken);
  if (llvm::verifyModule(module, &brokenStream))
    return fail(ErrorCode::kInternal, "kernel '{}' emits malformed code: {}", job.def->id, broken).at(job.node->location());

  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream stream(bytes);
  llvm::legacy::PassManager passes;  // the code generator alone: emitters write the code they mean
  if (machine.addPassesToEmitFile(passes, stream, nullptr, fileType))
    return fail(ErrorCode::kInternal, "LLVM cannot emit objects for {}", target.str());
  passes.run(module);
  if (!diagnostics.empty()) return fail(ErrorCode::kInternal, "kernel '{}': {}", job.def->id, diagnostics).at(job.node->location());
  result.object.bytes.assign(bytes.begin(), bytes.end());
  result.object.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Result<Compiled> compileGuarded(const KernelJob& job, const Target& target, llvm::TargetMachine& machine, llvm::CodeGenFileType fileType,
                                bool wantIr) {
  try {
    return compile(job, target, machine, fileType, wantIr);
  } catch (const LlvmFatalError& error) {
    return fail(ErrorCode::kInternal, "LLVM gives up on kernel '{}': {}", job.def->id, error.message).at(job.node->location());
  }
}

}  // namespace

Result<std::vector<KernelObject>> compileKernels(std::span<const KernelJob> jobs, const Target& target, int threads) {
  std::vector<KernelObject> objects(jobs.size());
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::optional<Error> error;
  auto work = [&] {
    auto report = [&](Error e) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::move(e);
      next = jobs.size();
    };
    auto machine = makeTargetMachine(target);
    if (!machine) return report(std::move(machine).error());
    for (size_t i = next++; i < jobs.size(); i = next++) {
      auto compiled = compileGuarded(jobs[i], target, **machine, llvm::CodeGenFileType::ObjectFile, false);
      if (!compiled) return report(std::move(compiled).error());
      objects[i] = std::move(compiled->object);
    }
  };
  const size_t wanted = std::min<size_t>(std::max(threads, 1), std::max<size_t>(jobs.size(), 1));
  std::vector<std::thread> others;
  for (size_t i = 1; i < wanted; ++i) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  if (error) return tl::make_unexpected(std::move(*error));
  return objects;
}

Result<std::string> kernelText(const KernelJob& job, const Target& target, KernelText kind) {
  QC_ASSIGN(std::unique_ptr<llvm::TargetMachine> machine, makeTargetMachine(target));
  QC_ASSIGN(Compiled compiled, compileGuarded(job, target, *machine, llvm::CodeGenFileType::AssemblyFile, kind == KernelText::ir));
  return kind == KernelText::ir ? std::move(compiled.ir) : std::move(compiled.object.bytes);
}

Result<std::string> emitObject(const Target& target, const std::string& name, const std::function<Status(llvm::Module&)>& fill) {
  QC_ASSIGN(const std::unique_ptr<llvm::TargetMachine> machine, makeTargetMachine(target));
  try {
    llvm::LLVMContext context;
    std::string diagnostics, broken;
    context.setDiagnosticHandlerCallBack(collectDiagnostic, &diagnostics, /*RespectFilters=*/false);
    llvm::Module module(name, context);
    module.setDataLayout(machine->createDataLayout());
    module.setTargetTriple(machine->getTargetTriple().str());
    QC_TRY(fill(module));
    llvm::raw_string_ostream brokenStream(broken);
    if (llvm::verifyModule(module, &brokenStream)) return fail(ErrorCode::kInternal, "the module '{}' is malformed: {}", name, broken);
    llvm::SmallVector<char, 0> bytes;
    llvm::raw_svector_ostream stream(bytes);
    llvm::legacy::PassManager passes;
    if (machine->addPassesToEmitFile(passes, stream, nullptr, llvm::CodeGenFileType::ObjectFile))
      return fail(ErrorCode::kInternal, "LLVM cannot emit objects for {}", target.str());
    passes.run(module);
    if (!diagnostics.empty()) return fail(ErrorCode::kInternal, "the module '{}': {}", name, diagnostics);
    return std::string(bytes.begin(), bytes.end());
  } catch (const LlvmFatalError& error) {
    return fail(ErrorCode::kInternal, "LLVM gives up on '{}': {}", name, error.message);
  }
}

struct Jit::Impl {
  std::unique_ptr<llvm::orc::LLJIT> jit;
};

Jit::Jit(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Jit::~Jit() = default;

Result<std::unique_ptr<Jit>> Jit::create(const Target& target) {
  initializeLlvm(target.llvmTriple());
  if (!target.runsOn(Target::host()))
    return fail(ErrorCode::kInvalidArgument, "code for {} does not run on this machine ({})", target.str(), Target::host().str());
  if (target.has(Isa::amxInt8) && !target.emulatesTiles()) QC_TRY(requestAmxPermission());
  try {
    llvm::orc::JITTargetMachineBuilder builder{llvm::Triple(target.llvmTriple())};
    auto jit = llvm::orc::LLJITBuilder().setJITTargetMachineBuilder(std::move(builder)).create();
    if (!jit) return internal(jit.takeError(), "start its JIT");
    // Errors are returned; the session would also print them.
    (*jit)->getExecutionSession().setErrorReporter([](llvm::Error error) { llvm::consumeError(std::move(error)); });
    auto impl = std::make_unique<Impl>();
    impl->jit = std::move(*jit);
    return std::unique_ptr<Jit>(new Jit(std::move(impl)));
  } catch (const LlvmFatalError& error) {
    return fail(ErrorCode::kInternal, "LLVM cannot start its JIT: {}", error.message);
  }
}

Status Jit::add(std::span<const KernelObject> objects) {
  try {
    for (const KernelObject& object : objects) {
      auto buffer = llvm::MemoryBuffer::getMemBufferCopy(object.bytes, object.symbol);
      if (llvm::Error error = impl_->jit->addObjectFile(std::move(buffer))) return internal(std::move(error), "load an object");
    }
  } catch (const LlvmFatalError& error) {
    return fail(ErrorCode::kInternal, "LLVM cannot load an object: {}", error.message);
  }
  return {};
}

Result<KernelFn> Jit::lookup(std::string_view symbol) {
  try {
    auto address = impl_->jit->lookup(llvm::StringRef(symbol.data(), symbol.size()));
    if (!address) return internal(address.takeError(), "link a kernel");
    return address->toPtr<KernelFn>();
  } catch (const LlvmFatalError& error) {
    return fail(ErrorCode::kInternal, "LLVM cannot link a kernel: {}", error.message);
  }
}

}  // namespace qc
