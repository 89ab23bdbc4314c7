// A shared library from an object, by the C compiler or linker of this machine (or one for the target's machine).
#pragma once

#include <string>
#include <vector>

#include "codegen/target.h"

namespace qc::tools {

struct LinkOptions {
  std::string linker;  // a C compiler or linker; empty: the first of the usual ones that is here
  std::string rt;      // libqcompile_rt.a of the target's machine; empty: the one that came with this program
};

// The bytes of a library that holds the object and qcompile_rt and exports these functions and qcrt_*.  `soname` is the name it is to be
// known by. Errors say which program or file is missing and where it is looked for.
Result<std::string> sharedLibrary(const std::string& object, const std::vector<std::string>& functions, const std::string& soname,
                                  const Target& target, const LinkOptions& options);

}  // namespace qc::tools
