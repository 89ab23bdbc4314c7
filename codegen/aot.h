// Ahead-of-time compilation: a whole model as one relocatable object with C linkage, and the header to call it with.  The object holds
// kernels, constants, one function that runs them in order, and one that says what its status means; it needs qcompile_rt (the thread pool
// and the check of the CPU) and nothing else.  It may hold the model at several sizes of its free dims, its buckets, which share weights
// and code: then one more function says which bucket runs given sizes, and what is to be padded for it.
#pragma once

#include <string>
#include <vector>

#include "codegen/program.h"

namespace qc {

struct AotModel {
  std::string object;                // ELF
  std::string header;                // C
  std::vector<std::string> exports;  // functions, without the prefix: "run", ..
};

// One bucket: the model at these sizes of its free dims.
struct AotBucket {
  Graph graph;
  std::vector<int64_t> sizes;  // one for each symbol
};
struct AotBuckets {
  std::vector<std::string> symbols;
  std::vector<AotBucket> buckets;  // the smaller ones first: the first that fits is taken
  // Of graphs that are bound from one: packed weights of all.  May be null.
  std::shared_ptr<ProgramParts> parts = {};
};

// `name` prefixes all symbols and is a C identifier.  The target may be another machine's.  Errors: steps without a kernel, by name, since
// the reference evaluation of an op is not part of qcompile_rt.
struct AotOptions {
  bool needsRt = true;  // whether the header says that qcompile_rt is to be linked; a shared library brings it
  // Constants of integers that 4 bits hold stand two to a byte, and each step that reads them unpacks them into memory of the run: weights
  // of 4 bits take half as much of the object, and the memory of a run is larger by those of the largest step.
  bool packsNibbles = false;
};
Result<AotModel> compileToObject(Graph graph, const Target& target, const std::string& name, const AotOptions& options = {});
Result<AotModel> compileToObject(AotBuckets buckets, const Target& target, const std::string& name, const AotOptions& options = {});

// A static library (ar) with that object as its one member.
Result<std::string> archiveOf(const std::string& object, const std::string& member);

}  // namespace qc
