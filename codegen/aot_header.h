// The C header of a model that is compiled ahead of time.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "codegen/program.h"

namespace qc {

inline constexpr int64_t kAotAlignment = 64;  // of constants and of the memory of a run

// What stands in an object: one program, or one for each bucket with the sizes of the symbols.  Without symbols there is one.
struct AotContent {
  std::vector<Program> programs;
  std::vector<std::string> symbols;
  std::vector<std::vector<int64_t>> sizes;

  bool hasBuckets() const { return !symbols.empty(); }
};

std::string aotHeader(const AotContent& content, const std::string& name, bool needsRt);

}  // namespace qc
