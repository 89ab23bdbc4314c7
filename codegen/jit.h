// Machine code from kernels: LLVM code generation into object files, and the one OrcJIT that loads them.
// LLVM is entered only here and in the emitters; its errors and fatal errors come back as qc::Error.
//
//   std::vector<KernelJob> jobs = {{def, node, plan, "k0"}, ...};
//   QC_ASSIGN(std::vector<KernelObject> objects, compileKernels(jobs, target, 2));     // cacheable bytes
//   QC_ASSIGN(std::unique_ptr<Jit> jit, Jit::create(target));
//   QC_TRY(jit->add(objects));
//   KernelFn fn = jit->lookup("k0").value();
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "codegen/plan/kernel.h"

namespace qc {

struct KernelJob {
  const KernelDef* def = nullptr;
  const Node* node = nullptr;  // packed, where the kernel packs
  KernelPlanPtr plan;          // of that node, or the one it was packed by
  std::string symbol;          // name of the function; [A-Za-z_0-9]
};

// A relocatable object with one function, free of pointers into this process: may be cached or linked.
struct KernelObject {
  std::string symbol;
  std::string bytes;
  KernelShape shape;
  int irInstructions = 0;
  double seconds = 0;  // of code generation
};

// Compiles every job, on up to `threads` threads.  The first error wins.
Result<std::vector<KernelObject>> compileKernels(std::span<const KernelJob> jobs, const Target& target, int threads = 1);

// What a kernel looks like, for tests and --dump: LLVM IR or assembly.
enum class KernelText { ir, assembly };
Result<std::string> kernelText(const KernelJob& job, const Target& target, KernelText kind);

// Version of LLVM and of the emitters, part of every cache key.
std::string codegenVersion();

// Owns loaded code; functions live as long as it.
class Jit {
 public:
  static Result<std::unique_ptr<Jit>> create(const Target& target);
  ~Jit();
  Status add(std::span<const KernelObject> objects);
  Result<KernelFn> lookup(std::string_view symbol);

 private:
  struct Impl;
  explicit Jit(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qc
