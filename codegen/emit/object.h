// A whole LLVM module as an object file.  Internal to codegen; includes LLVM.
#pragma once

#include <llvm/IR/Module.h>

#include <functional>
#include <string>

#include "codegen/target.h"

namespace qc {

// `fill` writes the module, whose data layout and triple are set.  LLVM's errors come back as qc::Error.
Result<std::string> emitObject(const Target& target, const std::string& name, const std::function<Status(llvm::Module&)>& fill);

}  // namespace qc
