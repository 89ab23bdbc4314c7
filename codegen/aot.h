// Ahead-of-time compilation: a whole model as one relocatable object with C linkage, and the header to call it with.  The object holds
// kernels, constants, one function that runs them in order, and one that says what its status means; it needs qcompile_rt (the thread pool
// and the check of the CPU) and nothing else.
#pragma once

#include <string>

#include "codegen/program.h"

namespace qc {

struct AotModel {
  std::string object;  // ELF
  std::string header;  // C
};

// `name` prefixes all symbols and is a C identifier.  The target may be another machine's.  Errors: steps without a kernel, by name, since
// the reference evaluation of an op is not part of qcompile_rt.
struct AotOptions {
  bool needsRt = true;  // whether the header says that qcompile_rt is to be linked; a shared library brings it
};
Result<AotModel> compileToObject(Graph graph, const Target& target, const std::string& name, const AotOptions& options = {});

// A static library (ar) with that object as its one member.
Result<std::string> archiveOf(const std::string& object, const std::string& member);

}  // namespace qc
