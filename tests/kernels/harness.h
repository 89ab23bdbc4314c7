// Runs rows of the kernel table against the reference evaluation: operands and results end at guard pages, units are
// executed in uneven pieces and in reverse, and results are compared byte for byte.  Rows for AArch64 are compiled,
// linked and run under an emulator once at the end of the test program, where a cross compiler and qemu are installed.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "codegen/jit.h"
#include "codegen/plan/kernel.h"
#include "ir/interp.h"

namespace qc::testing {

// `bytes` of memory whose end (or nearly: `misalign` keeps element alignment) touches an inaccessible page.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(int64_t bytes);
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer(GuardedBuffer&& other) noexcept;
  ~GuardedBuffer();
  void* data() const { return data_; }

 private:
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
  void* data_ = nullptr;
};

// The smallest target that has the row's extensions; with emulated tiles where this machine has no matrix unit.
Target targetOf(const KernelDef& def);
// Rows that compute `op` and that this machine can run or emulate; the others are printed as left out.
std::vector<const KernelDef*> rowsFor(std::string_view op);

// Compiled code of one node, packed already if the row packs.
struct CompiledKernel {
  const Node* node = nullptr;
  KernelShape shape;
  KernelFn fn = nullptr;
  std::shared_ptr<Jit> jit;
  int irInstructions = 0;
  std::vector<int64_t> numbers;  // that the code reads
  // The same code for another node of its key.
  CompiledKernel forNode(const Node& other, const KernelPlan& plan) const;
};
Result<CompiledKernel> compilePacked(const KernelDef& def, const Node& node, const Target& target);
// Whether the row computes the node on the smallest target that has its extensions.
bool takes(const KernelDef& def, const Node& node);

struct KernelRun {
  int32_t status = 0;                         // what any of the calls returned
  std::vector<std::vector<uint8_t>> results;  // their bytes
};

// Operands in the order of kernel.node's operands; constants are filled in where null.
KernelRun runGuardedAll(const CompiledKernel& kernel, const std::vector<const Tensor*>& operands);
// The bytes of a node with one result, and no bad data.
std::vector<uint8_t> runGuarded(const CompiledKernel& kernel, const std::vector<const Tensor*>& operands);

// Compares row `def` on `node` with the reference evaluation of the node; with `anySizes`, where one piece of code can serve any sizes,
// that code too. `operands` as for evaluateNode.
void expectExact(const KernelDef& def, Node& node, const std::vector<const Tensor*>& operands, const std::string& what,
                 bool anySizes = true);

// Every row for the op of the last node of a graph text against the reference evaluation, for random and for extreme operands; a row
// for any target at every vector width, or on what this machine has of `targets`, and on AArch64 where that can be emulated.  At least one
// row must support the node unless `mayBeNone`.
inline const std::vector<const char*> kEveryWidth = {"generic", "avx2", "avx512vnni"};
void checkRows(const std::string& text, bool mayBeNone = false, const std::vector<const char*>& targets = kEveryWidth);
// The same for operands that are given.
void checkRowsOn(const std::string& text, const std::vector<const Tensor*>& operands);

// Code and evaluation refuse the last node of a graph text for each of the values `bad`, in any one place of an operand of indices, and no
// index of 0; the code reads and writes nothing outside.
void expectRefused(const std::string& text, int indexOperand, const std::vector<int64_t>& bad);

// Integers in [low, high], in the text form's list.
std::string someIntegers(int64_t count, int64_t low, int64_t high);

// Values over the whole range of a storage type; `extremes` picks only the ends.
Tensor randomTensor(DType dtype, std::vector<int64_t> sizes, std::mt19937& rng, bool extremes = false);

}  // namespace qc::testing
