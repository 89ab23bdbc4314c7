#include "codegen/target.h"

#include <llvm/TargetParser/Triple.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "ir/signed_index.h"
#include "quantizer/rules/nearest.h"
#include "runtime/rt/cpu.h"

namespace qc {
namespace {

constexpr IsaSet kAvx2 = isaBit(Isa::avx2);
constexpr IsaSet kAvx512 = kAvx2 | isaBit(Isa::avx512);
constexpr IsaSet kAvx512Vnni = kAvx512 | isaBit(Isa::avx512vnni);
constexpr IsaSet kEmulatedTiles = isaBit(Isa::amxInt8) | isaBit(Isa::amxEmulated);
constexpr IsaSet kNeon = isaBit(Isa::neon);
constexpr IsaSet kDotprod = kNeon | isaBit(Isa::dotprod);

// In the order of enum Isa, lower tiers first.
constexpr std::array kTable{
    IsaInfo{Isa::avx2, "avx2", Arch::x86_64, kAvx2, "+sse4.2,+avx,+avx2,+fma,+f16c", "haswell"},
    IsaInfo{Isa::avxvnni, "avxvnni", Arch::x86_64, kAvx2 | isaBit(Isa::avxvnni), "+avxvnni", "alderlake"},
    IsaInfo{Isa::avx512, "avx512", Arch::x86_64, kAvx512, "+evex512,+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512cd", "skylake-avx512"},
    IsaInfo{Isa::avx512vnni, "avx512vnni", Arch::x86_64, kAvx512Vnni, "+avx512vnni", "icelake-server"},
    IsaInfo{Isa::amxInt8, "amx-int8", Arch::x86_64, kAvx512Vnni | isaBit(Isa::amxInt8), "+amx-tile,+amx-int8", "sapphirerapids"},
    IsaInfo{Isa::amxEmulated, "amx-emulated", Arch::x86_64, kAvx512Vnni | kEmulatedTiles, "", "icelake-server"},
    IsaInfo{Isa::neon, "neon", Arch::aarch64, kNeon, "+neon", "cortex-a72"},
    IsaInfo{Isa::dotprod, "dotprod", Arch::aarch64, kDotprod, "+dotprod", "neoverse-n1"},
    IsaInfo{Isa::i8mm, "i8mm", Arch::aarch64, kDotprod | isaBit(Isa::i8mm), "+i8mm", "neoverse-v1"},
};

struct ArchInfo {
  Arch arch;
  std::string_view name, triple;
  IsaSet baseline;  // what every CPU of it has
};
constexpr std::array kArchs{
    ArchInfo{Arch::generic, "generic", "", 0},
    ArchInfo{Arch::x86_64, "x86-64", "x86_64-unknown-linux-gnu", 0},
    ArchInfo{Arch::aarch64, "aarch64", "aarch64-unknown-linux-gnu", kNeon},
};
const ArchInfo& infoOf(Arch arch) { return nth(kArchs, arch); }

// What other programs call the same.
constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"x86_64", "x86-64"},
    {"amd64", "x86-64"},
    {"x64", "x86-64"},
    {"arm64", "aarch64"},
    {"armv8", "aarch64"},
    {"avx-vnni", "avxvnni"},
    {"avx512-vnni", "avx512vnni"},
    {"amx", "amx-int8"},
    {"amx-tile", "amx-int8"},
    {"asimd", "neon"},
    {"riscv64", "riscv64-unknown-linux-gnu"},
    {"armv7", "armv7-unknown-linux-gnueabihf"},
};
std::string_view resolved(std::string_view word) {
  for (const auto& [alias, name] : kAliases)
    if (alias == word) return name;
  return word;
}

// How code for a machine beyond the tables of extensions is generated: with what every Linux of it has.  A row is here once its objects
// gave the right bits under an emulator.  (NEON of 32 bits has no denormal numbers.)
struct MachineInfo {
  std::string_view prefix, features, abi;  // prefix: of the triple
};
constexpr std::array kMachines{
    MachineInfo{"riscv64", "+m,+a,+f,+d,+c", "lp64d"},
    MachineInfo{"armv7", "+vfp3d16,-neon", ""},
};
const MachineInfo* findMachine(std::string_view triple) {
  const auto it = std::find_if(kMachines.begin(), kMachines.end(), [&](const MachineInfo& m) { return triple.starts_with(m.prefix); });
  return it == kMachines.end() ? nullptr : &*it;
}

constexpr Arch hostArch() {
#if defined(__x86_64__)
  return Arch::x86_64;
#elif defined(__aarch64__)
  return Arch::aarch64;
#else
  return Arch::generic;
#endif
}

const IsaInfo* findIsa(std::string_view name) {
  const auto it = std::find_if(kTable.begin(), kTable.end(), [&](const IsaInfo& i) { return i.name == name; });
  return it == kTable.end() ? nullptr : &*it;
}

// As the library that models run with looks at the CPU.
bool isHere(const IsaInfo& info) { return qcrt_cpu_supports(Target{info.arch, info.implies}.str().c_str()) != 0; }

IsaSet detect() {
  IsaSet result = infoOf(hostArch()).baseline;
  for (const IsaInfo& info : kTable)
    if (info.arch == hostArch() && info.isa != Isa::amxEmulated && isHere(info)) result |= isaBit(info.isa);
  return result;
}

std::vector<std::string> knownNames() {
  std::vector<std::string> names = {"host", "generic", "riscv64", "armv7"};
  for (const ArchInfo& info : kArchs)
    if (info.arch != Arch::generic) names.emplace_back(info.name);
  for (const IsaInfo& info : kTable) names.emplace_back(info.name);
  return names;
}

Failure unknownTarget(std::string_view word, std::string_view text) {
  const std::vector<std::string> names = knownNames();
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  const std::string meant = didYouMean(word, names);
  return fail(ErrorCode::kInvalidArgument, "unknown target '{}'{}", word, word == text ? "" : fmt::format(" in '{}'", text))
      .help(fmt::format("{}{}known are: {}, joined by '+'; a triple such as riscv64-linux-gnu names its architecture", meant,
                        meant.empty() ? "" : " ", known));
}

// A triple names a machine; those of the architectures above mean them.  Nothing where there is no code for it.
std::optional<Target> ofTriple(std::string_view triple) {
  if (triple.find('-') == std::string_view::npos || !llvm::Triple(llvm::Triple::normalize(triple)).isOSLinux()) return std::nullopt;
  const std::string_view first = triple.substr(0, triple.find('-'));
  const auto arch = std::find_if(kArchs.begin(), kArchs.end(), [&](const ArchInfo& a) { return a.name == resolved(first); });
  if (arch != kArchs.end()) return Target{arch->arch, arch->baseline};
  if (!findMachine(first)) return std::nullopt;
  return Target{Arch::generic, 0, llvm::Triple::normalize(triple)};
}

}  // namespace

std::string_view toString(Arch arch) { return infoOf(arch).name; }

std::span<const IsaInfo> isaTable() { return kTable; }

Target Target::host() {
  static const Target target{hostArch(), detect()};
  return target;
}

Result<Target> Target::parse(std::string_view text) {
  if (text == "host" || text == "native") return host();
  Target target;
  bool archGiven = false, first = true;
  for (size_t begin = 0; begin <= text.size(); first = false) {
    const size_t end = std::min(text.find('+', begin), text.size());
    const std::string_view word = resolved(text.substr(begin, end - begin));
    begin = end + 1;
    const auto arch = std::find_if(kArchs.begin(), kArchs.end(), [&](const ArchInfo& a) { return a.name == word; });
    if (first && arch != kArchs.end()) {
      target.arch = arch->arch;
      target.isas = arch->baseline;
      archGiven = true;
      continue;
    }
    const IsaInfo* info = findIsa(word);
    if (!info) {
      const std::optional<Target> other = first ? ofTriple(word) : std::nullopt;
      if (!other) return unknownTarget(word, text);
      target = *other;
      archGiven = true;
      continue;
    }
    if (!target.machine.empty())
      return fail(ErrorCode::kInvalidArgument, "target '{}': {} belongs to {}", text, word, toString(info->arch)).help("leave it out");
    if (archGiven && info->arch != target.arch)
      return fail(ErrorCode::kInvalidArgument, "target '{}': {} belongs to {}", text, word, toString(info->arch));
    target.arch = info->arch;
    archGiven = true;
    target.isas |= info->implies | infoOf(info->arch).baseline;
  }
  return target;
}

std::string Target::str() const {
  if (!machine.empty()) return machine;
  std::string text(toString(arch));
  for (const IsaInfo& info : kTable) {
    // avx512 goes without saying where avx512vnni stands; the others are named, as users know them.
    const bool unsaid = (info.isa == Isa::avx512 && has(Isa::avx512vnni)) || (infoOf(arch).baseline & isaBit(info.isa));
    if (has(info.isa) && !unsaid) text += fmt::format("+{}", info.name);
  }
  return text;
}

Target Target::cap(const Target& limit) const {
  if (limit.arch != arch) return {arch, infoOf(arch).baseline};
  const IsaSet emulated = limit.emulatesTiles() && has(Isa::avx512vnni) ? kEmulatedTiles : 0;
  return {arch, (isas & limit.isas) | emulated};
}

bool Target::isX86() const { return arch == Arch::x86_64 || (arch == Arch::generic && machine.empty() && hostArch() == Arch::x86_64); }

bool Target::runsOn(const Target& other) const {
  if (arch == Arch::generic) return isas == 0 && machine.empty();
  return arch == other.arch && other.has(emulatesTiles() ? isas & ~kEmulatedTiles : isas);
}

int Target::vectorBytes() const { return has(Isa::avx512) ? 64 : has(Isa::avx2) ? 32 : 16; }

std::string Target::llvmTriple() const {
  if (!machine.empty()) return machine;
  return std::string(infoOf(arch == Arch::generic ? hostArch() : arch).triple);
}

std::string Target::llvmAbi() const { return machine.empty() ? "" : std::string(findMachine(machine)->abi); }

std::string Target::llvmFeatures() const {
  if (!machine.empty()) return std::string(findMachine(machine)->features);
  std::string features;
  for (const IsaInfo& info : kTable)
    if (has(info.isa) && !info.features.empty() && !(info.isa == Isa::amxInt8 && emulatesTiles()))
      features += (features.empty() ? "" : ",") + std::string(info.features);
  return features;
}

std::string Target::llvmTuneCpu() const {
  std::string_view cpu = "generic";
  for (const IsaInfo& info : kTable)
    if (has(info.isa)) cpu = info.tuneCpu;
  return std::string(cpu);
}

Status requestAmxPermission() {
  if (isHere(*findIsa("amx-int8"))) return {};
  return fail(ErrorCode::kInternal, "the operating system refuses the AMX tile state to this process")
      .help("cap BuildOptions::target avx512vnni");
}

}  // namespace qc
