#include <llvm/Config/llvm-config.h>

#include "codegen/jit.h"

namespace qc {
namespace {

// Bumped when the same node would give other code, so that cached objects are not reused.
constexpr int kEmitterVersion = 2;

}  // namespace

std::string codegenVersion() { return fmt::format("qcompile-{}-llvm-{}", kEmitterVersion, LLVM_VERSION_STRING); }

}  // namespace qc
