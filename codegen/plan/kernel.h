// Kernels: pieces of machine code that each compute one node.  A kernel is one row of a family that kernels.def names; selection,
// code generation, tests and benchmarks all walk the table of all rows.
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
// the types of the node; records of plain values and of per-channel ones are zero except for the bounds).  So do, for
// families that can (number.h), numbers that come from dims that were free before bind-shapes: then one piece of code
// serves all their sizes.
// Buffers may end at a guard page: a kernel reads and writes nothing outside its operands.  It calls no library,
// allocates nothing, assumes no alignment of buffers beyond that of their elements and no aliasing of any two.
//
// How a pass uses the table:
//   if (const auto k = selectKernel(node, target)) {                 // cheapest row that supports the node, and its plan of it
//     QC_ASSIGN(Node* final, packKernel(*k, node, builder));         // packs weights: creates a k.* node in front of it
//     final->attrs().set("kernel", std::string(k->def->id));
//   }
// How a runtime uses it (jit.h):  compileKernels({{def, node, plan, symbol}, ...}, target, threads) -> objects; Jit::add; Jit::lookup.
//
// To add a kernel: a family in a file of codegen/emit/, on top of emit.h and kernel_family.h, and its name in kernels.def.  tests/kernels
// picks the rows up.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "codegen/plan/cost.h"
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

// One per operand, then one per result; then the numbers of the plan, four in the room of a record.
std::vector<ParamRecord> kernelParams(const Node& node, const std::vector<int64_t>& numbers = {});

// What a row works out about one node: how the work is cut, and what that costs.  Only its family looks inside (kernel_family.h).
struct KernelPlan {
  double nanoseconds = 0;  // on one thread with warm caches, on the CPU that the constants of cost.h come from
  // What rows are chosen by: the same, or where dims were free what it is for usual sizes of them, so that all sizes have one choice and
  // weights one form.  Of plans by KernelDef::supports.
  double usualNanoseconds = 0;
  bool isForAllSizes = false;  // the latter
  // Of code for any size of dims that were free (number.h): what it reads at the end of the parameter block, what it is made from instead
  // of the shapes, and how it is split for these sizes.
  std::vector<int64_t> numbers;
  std::string form;     // empty: of the shapes
  KernelShape shape{};  // scratchBytes < 0: as the code says
  // Of code with the given one, which may have been made for other sizes.
  KernelShape shapeOf(const KernelShape& code) const {
    if (form.empty()) return code;
    return {shape.units, shape.scratchBytes < 0 ? code.scratchBytes : shape.scratchBytes};
  }
  virtual ~KernelPlan() = default;
};
using KernelPlanPtr = std::shared_ptr<const KernelPlan>;

struct KernelDef {
  std::string_view id;                // "conv_u8s8_6x4_avx512vnni"
  std::vector<std::string_view> ops;  // the ops it can compute, before packing
  IsaSet isas = 0;                    // all required; 0: any target
  // The plan of a node that the row can compute, before packing; else null.
  std::function<KernelPlanPtr(const Node&, const Target&)> supports = {};
  // The same for a node that it was chosen for: what `pack` made, or the node itself without `pack`.
  std::function<KernelPlanPtr(const Node&, const Target&)> plan = {};
  // What the code does, counted: what the time of a plan comes from.
  std::function<Work(const Node&, const Target&, const KernelPlan&)> work = {};
  // Creates the packed k.* node in front of `node` (its location, same result type); the caller replaces the uses.  Empty: nothing to pack.
  std::function<Result<Node*>(const Node& node, const KernelPlan&, Builder&)> pack = {};
  // The form that `pack` brings constants into: all it reads beside the node's attributes, constants and quantization parameters.
  std::function<std::string(const KernelPlan&)> packing = {};
  // Emits the body of the function, of the node as `plan` takes it.
  std::function<Result<KernelShape>(KernelEmitter&, const Node& node, const KernelPlan&)> emit = {};
};

struct KernelChoice {
  const KernelDef* def = nullptr;
  KernelPlanPtr plan;
};

std::span<const KernelDef> kernelTable();
const KernelDef* findKernel(std::string_view id);
bool isPackedBySome(std::string_view op);  // whether a row that computes it packs, on any target
// The cheapest row that the target has and that supports the node, with its plan; nothing if there is none.
std::optional<KernelChoice> selectKernel(const Node& node, const Target& target);
// All rows that could compute the node here, cheapest first: for --explain, tuning, tests.
std::vector<KernelChoice> candidateKernels(const Node& node, const Target& target);
// The node that is compiled: the packed one in front of the builder's position, or `node` itself where the kernel packs nothing.
Result<Node*> packKernel(const KernelChoice& choice, Node& node, Builder& builder);
struct SelectedKernel {
  std::optional<KernelChoice> choice;  // nothing: no kernel computes the node
  Node* node;                          // the one that is compiled
};
Result<SelectedKernel> selectAndPack(Node& node, const Target& target, Builder& builder);

// The signature that plan and code depend on, as text.
std::string kernelKey(const KernelDef& def, const Node& node, const Target& target);
// That of the code alone, which a plan with numbers shares with those of other sizes.  Nodes with equal keys share code.
std::string codeKey(const KernelDef& def, const Node& node, const Target& target, const KernelPlan& plan);

// Plans of the nodes of a graph, as kernels were chosen by them: what selection hands on to the generation of code.
using KernelPlans = std::unordered_map<const Node*, KernelPlanPtr>;

}  // namespace qc
