// What code is generated for: an architecture and a set of ISA extensions, printed and parsed as
// "x86-64+avx2+avx512vnni+amx-int8".  Detection asks the CPU (cpuid) and the OS (XGETBV), never a CPU name.
//
// Other machines are named by LLVM's triple ("riscv64-linux-gnu", or "riscv64" for short) and get plain code without extensions of its own.
//
//   Target host = Target::host();
//   Target t = host.cap(Target::parse("avx2").value());     // what both have: test a lower tier on this machine
//
// Extensions imply one another (avx512vnni -> avx512 -> avx2 with fma and f16c), so a set is always closed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "ir/status.h"

namespace qc {

enum class Arch : uint8_t { generic, x86_64, aarch64 };
std::string_view toString(Arch arch);  // "generic", "x86-64", "aarch64"

// Values index the table in target.cpp.
// amxEmulated is not an extension of a CPU: it stands for AMX whose tile operations are computed by vector code (tile_unit.h),
// so that AMX kernels can be tested to the bit on machines without it.  Detection never reports it.
enum class Isa : uint8_t { avx2, avxvnni, avx512, avx512vnni, amxInt8, amxEmulated, neon, dotprod, i8mm };

// What the costs of kernels are told apart by.
struct CpuClass {
  int vectorBytes = 0;      // Target::vectorBytes()
  bool matrixUnit = false;  // AMX
  friend bool operator==(const CpuClass&, const CpuClass&) = default;
};

using IsaSet = uint32_t;
constexpr IsaSet isaBit(Isa isa) { return IsaSet{1} << static_cast<unsigned>(isa); }

struct Target {
  Arch arch = Arch::generic;
  IsaSet isas = 0;
  std::string machine = {};  // of arch generic: LLVM's triple of another kind of machine; empty: this one

  static Target host();
  // "host", "generic", "x86-64+avx2", or extensions alone ("avx512vnni"): their architecture and all they imply; or a triple.
  static Result<Target> parse(std::string_view text);
  std::string str() const;

  bool has(Isa isa) const { return (isas & isaBit(isa)) != 0; }
  bool has(IsaSet required) const { return (isas & required) == required; }
  // This target without what `limit` lacks.  Another architecture leaves the generic target of this one.  A limit with
  // emulated AMX adds it where AVX-512-VNNI remains: whoever names it wants it.
  Target cap(const Target& limit) const;
  bool isX86() const;
  // True if code for this target runs on a machine of type `other`.
  bool runsOn(const Target& other) const;
  bool emulatesTiles() const { return has(Isa::amxEmulated); }
  int vectorBytes() const;  // of the widest vector: 64, 32 or 16
  CpuClass cpuClass() const { return {vectorBytes(), has(Isa::amxInt8)}; }

  // For LLVM.  The CPU is the architecture's baseline and every feature is stated; `tuneCpu` only guides scheduling.
  std::string llvmTriple() const;
  std::string llvmFeatures() const;
  std::string llvmTuneCpu() const;
  std::string llvmAbi() const;  // empty: the triple's own

  friend bool operator==(const Target&, const Target&) = default;
};

// One extension, for `doctor` and for the tables of kernels.
struct IsaInfo {
  Isa isa;
  std::string_view name;
  Arch arch;
  IsaSet implies;             // closed, itself included
  std::string_view features;  // LLVM's names
  std::string_view tuneCpu;   // what to schedule for when this is the highest extension
};
std::span<const IsaInfo> isaTable();

// AMX state is granted per process on request (arch_prctl); called before AMX kernels are loaded.  Target::host() asks,
// too: a machine whose operating system refuses has no AMX.
Status requestAmxPermission();

}  // namespace qc
