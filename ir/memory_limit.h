// How much memory an evaluation may take.  Sizes come from models, so they are compared with a limit before anything is allocated: a model
// that asks for more is answered with an error that says so, not by the kernel's out-of-memory killer.
#pragma once

#include <cstdint>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ir/status.h"

namespace qc {

// Three quarters of the memory this process may use (the machine's, or its control group's), or what QC_MEMORY_LIMIT says, as bytesIn()
// reads it.
int64_t memoryLimit();
// What QC_MEMORY_LIMIT holds where that is not a size above 0, and so sets nothing; else empty.
std::string unusedMemoryLimit();

// "2G", "500M", "64K" or plain bytes; nothing: it is not such a size.
std::optional<int64_t> bytesIn(std::string_view text);

// The bytes that tensors hold in this process.
int64_t memoryInUse();
void countMemory(int64_t bytes);  // allocated, or given back if negative

// An error if `bytes` more than what is in use pass memoryLimit(); `what` names what needs them.
Status checkMemory(int64_t bytes, std::string_view what);

// Memory that is not a tensor's, counted while this lives.
class MemoryClaim {
 public:
  static Result<MemoryClaim> make(int64_t bytes, std::string_view what) {
    QC_TRY(checkMemory(bytes, what));
    return MemoryClaim(bytes);
  }
  MemoryClaim(MemoryClaim&& other) noexcept : bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryClaim& operator=(MemoryClaim&&) = delete;
  ~MemoryClaim() { countMemory(-bytes_); }

 private:
  explicit MemoryClaim(int64_t bytes) : bytes_(bytes) { countMemory(bytes); }
  int64_t bytes_;
};

// What a tensor throws that nobody checked before: the last line of defence, before the system's.
class MemoryExceeded : public std::bad_alloc {
 public:
  const char* what() const noexcept override { return "a tensor passes the limit of memory"; }
};

// For programs: what is not a tensor meets the limit as well, with an allowance for code and tables, as std::bad_alloc.
void limitMemoryOfProcess();

// The error in place of the exception that says that there is no memory (ir/guarded.h).
Error memoryExhausted();

}  // namespace qc
