#include <llvm/Config/llvm-config.h>
#include <llvm/Support/xxhash.h>

#include "codegen/jit.h"

namespace qc {
namespace {

// Bumped when the same node would give other code, so that cached objects are not reused.
constexpr int kEmitterVersion = 3;

// Work is cut by what it costs, so that other constants give other code, too.
uint64_t hashOfCosts() {
  std::string text;
  for (const KernelCost& cost : kernelCosts()) {
    text += fmt::format("{} {} {}", cost.kernel, cost.cpu.vectorBytes, cost.cpu.matrixUnit);
    for (const WorkItem& item : cost.nanoseconds) text += fmt::format(" {}={}", item.what, item.count);
  }
  return llvm::xxh3_64bits(text);
}

}  // namespace

std::string codegenVersion() {
  static const std::string version = fmt::format("qcompile-{}-{:x}-llvm-{}", kEmitterVersion, hashOfCosts(), LLVM_VERSION_STRING);
  return version;
}

}  // namespace qc
