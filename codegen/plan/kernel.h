// Kernels: pieces of machine code that each compute one node.  A kernel is one row of kernels.def; selection,
// code generation, tests and benchmarks all walk that table.
//
// The compiled function:
//
//   int32_t fn(void* const* buffers, int64_t begin, int64_t end, void* scratch)
//
//   buffers   the node's operands in order (absent: null), then its results, then the parameter block
//   begin/end a range of the node's work units.  Units are independent, write disjoint bytes and may run on any thread.
//   scratch   KernelShape::scratchBytes of 64-byte aligned memory that belongs to the calling thread
//   returns   0, or 1 where the data is bad (an index out of range): then the results are of no use, and the op's reference evaluation
//             is what says why
//
// Code depends only on the node's signature (kernelKey): op, attributes, types and storage types.  It never depends
// on the values of constants, scales or zero points, so equal signatures are compiled once.  Those values reach the
// code as data in the parameter block, one ParamRecord per operand and result in order (kernelParams builds it from
// the types of the node; records of plain values and of per-channel ones are zero except for the bounds).
// Buffers may end at a guard page: a kernel reads and writes nothing outside its operands.  It calls no library,
// allocates nothing, assumes no alignment of buffers beyond that of their elements and no aliasing of any two.
//
// How a pass uses the table:
//   const KernelDef* k = selectKernel(node, target);            // cheapest row that supports the node, or null
//   QC_ASSIGN(Node* final, k->pack ? k->pack(*k, node, builder) : &node);   // packs weights: creates a k.* node in front of it
//   final->attrs().set("kernel", std::string(k->id));
// How a runtime uses it (jit.h):  compileKernels({{findKernel(id), node}, ...}, target, threads) -> objects; Jit::add; Jit::lookup.
//
// To add a kernel: write a function `Result<KernelShape> emitFoo(KernelEmitter&, const Node&)` in codegen/emit/foo.cpp
// on top of emit.h, plus supports/cost functions, declare them in families.h and list a row in kernels.def.  tests/kernels picks the row
// up.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "codegen/target.h"
#include "ir/graph.h"

namespace qc {

class KernelEmitter;  // emit.h, needs LLVM
struct KernelDef;

using KernelFn = int32_t (*)(void* const* buffers, int64_t begin, int64_t end, void* scratch);

// What the emitter says about the code: how far it can be split and what it needs.
struct KernelShape {
  int64_t units = 1;
  int64_t scratchBytes = 0;
};

// Quantization parameters of one operand or result, as the code reads them.
struct ParamRecord {
  float scale = 0;
  float inverseScale = 0;  // f32(1 / scale)
  int32_t zeroPoint = 0;
  int32_t qmin = 0, qmax = 0;  // of the storage range, narrowed for results by attributes clamp_min / clamp_max
  int32_t reserved[3] = {};
};
static_assert(sizeof(ParamRecord) == 32);
enum class ParamField : uint8_t { scale, inverseScale, zeroPoint, qmin, qmax };  // offsets in words

// One per operand, then one per result.
std::vector<ParamRecord> kernelParams(const Node& node);

struct KernelDef {
  std::string_view id;                // "conv_u8s8_6x4_avx512vnni"
  std::vector<std::string_view> ops;  // the ops it can compute, before packing
  IsaSet isas = 0;                    // all required; 0: any target
  bool (*supports)(const KernelDef&, const Node&, const Target&);
  double (*cost)(const KernelDef&, const Node&, const Target&);  // estimated cycles on one thread, warm caches
  // Emits the body of the function.  `node` is what `pack` made, or the node itself without `pack`.
  Result<KernelShape> (*emit)(KernelEmitter&, const Node& node);
  // Creates the packed k.* node in front of `node` (its location, same result type); the caller replaces the uses.
  Result<Node*> (*pack)(const KernelDef&, const Node& node, Builder& builder) = nullptr;
  const void* traits = nullptr;  // a row's own table, e.g. GemmIsa; see the family's header
};

std::span<const KernelDef> kernelTable();
const KernelDef* findKernel(std::string_view id);
// The cheapest row that the target has and that supports the node; null if none.
const KernelDef* selectKernel(const Node& node, const Target& target);
// All rows that could compute the node here, cheapest first: for --explain, tuning, tests.
std::vector<const KernelDef*> candidateKernels(const Node& node, const Target& target);

// The signature that the code depends on, as text.  Nodes with equal keys share code.
std::string kernelKey(const KernelDef& def, const Node& node, const Target& target);

}  // namespace qc
