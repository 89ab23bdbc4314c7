// A fuzzing target: bytes in, and nothing but a return.  libFuzzer drives it, or replay.cpp over files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace qc::testing {

inline std::string_view bytesOf(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

inline void complain(const std::string& complaint) {
  if (complaint.empty()) return;
  std::fprintf(stderr, "%s\n", complaint.c_str());
  std::abort();
}

// What a target's own mutator gives back.
inline size_t put(const std::string& bytes, uint8_t* data, size_t maxSize) {
  const size_t size = bytes.size() <= maxSize ? bytes.copy(reinterpret_cast<char*>(data), maxSize) : 0;
  return size;
}

}  // namespace qc::testing

// libFuzzer's own mutation, for a target that has another besides.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t maxSize);
