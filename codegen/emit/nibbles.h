// Constants of small integers two to a byte, for objects that are to be small: what 4-bit weights are once they are packed for a kernel.
#pragma once

#include <optional>
#include <span>
#include <string>

#include <llvm/IR/Module.h>

#include "codegen/target.h"

namespace qc {

inline constexpr int64_t kNibbleBlock = 128;  // bytes that are unpacked together

// The bytes as integers from -8 to 7, filled up to whole blocks: of 64 packed bytes of a block the low halves are its first 64, the high
// ones the rest.  Nothing where a byte holds another number.
std::optional<std::string> packNibbles(std::span<const int8_t> bytes);

// A function of the form of kernels (runtime/rt/pool.h), with a block as its unit: buffer 0 receives the bytes of buffer 1.
llvm::Function* emitUnpackNibbles(llvm::Module& module, const Target& target, const std::string& symbol);

}  // namespace qc
