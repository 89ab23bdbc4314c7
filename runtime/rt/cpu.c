#define _GNU_SOURCE /* syscall */
#include "runtime/rt/cpu.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)

static const char* const kArch = "x86-64";

typedef struct {
  const char* isa;
  unsigned leaf, subleaf, reg, bit;
  uint64_t state; /* of XCR0, kept by the system */
} Bit;

static const Bit kBits[] = {
    {"avx2", 7, 0, 1, 5, 0x6},          {"avx2", 1, 0, 2, 12, 0x6},         {"avx2", 1, 0, 2, 29, 0x6},
    {"avxvnni", 7, 1, 0, 4, 0x6},       {"avx512", 7, 0, 1, 16, 0xe6},      {"avx512", 7, 0, 1, 17, 0xe6},
    {"avx512", 7, 0, 1, 28, 0xe6},      {"avx512", 7, 0, 1, 30, 0xe6},      {"avx512", 7, 0, 1, 31, 0xe6},
    {"avx512vnni", 7, 0, 1, 16, 0xe6},  {"avx512vnni", 7, 0, 1, 17, 0xe6},  {"avx512vnni", 7, 0, 1, 28, 0xe6},
    {"avx512vnni", 7, 0, 1, 30, 0xe6},  {"avx512vnni", 7, 0, 1, 31, 0xe6},  {"avx512vnni", 7, 0, 2, 11, 0xe6},
    {"amx-int8", 7, 0, 3, 24, 0x60000}, {"amx-int8", 7, 0, 3, 25, 0x60000},
};

static uint64_t systemState(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return ((uint64_t)high << 32) | low;
}

static bool has(const char* isa, size_t length) {
  bool known = false;
  const uint64_t state = systemState();
  for (size_t i = 0; i < sizeof kBits / sizeof *kBits; ++i) {
    const Bit* bit = &kBits[i];
    if (strlen(bit->isa) != length || memcmp(bit->isa, isa, length) != 0) continue;
    unsigned r[4] = {0};
    known = true;
    if (!__get_cpuid_count(bit->leaf, bit->subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
    if (!((r[bit->reg] >> bit->bit) & 1u) || (state & bit->state) != bit->state) return false;
  }
  if (known && length == 8 && memcmp(isa, "amx-int8", 8) == 0)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;  /* ARCH_REQ_XCOMP_PERM, tile data */
  return known;
}

#elif defined(__aarch64__)

static const char* const kArch = "aarch64";

static bool is(const char* isa, size_t length, const char* name) { return strlen(name) == length && memcmp(isa, name, length) == 0; }

static bool has(const char* isa, size_t length) {
  if (is(isa, length, "neon")) return true;
  if (is(isa, length, "dotprod")) return getauxval(AT_HWCAP) & (1ul << 20);
  if (is(isa, length, "i8mm")) return getauxval(AT_HWCAP2) & (1ul << 13);
  return false;
}

#else

static const char* const kArch = "generic";
static bool has(const char* isa, size_t length) {
  (void)isa;
  (void)length;
  return false;
}

#endif

int qcrt_cpu_supports(const char* target) {
  if (strcmp(target, "generic") == 0) return 1; /* what every CPU of the architecture has */
  const size_t arch = strcspn(target, "+");
  if (strlen(kArch) != arch || memcmp(kArch, target, arch) != 0) return 0;
  for (const char* at = target + arch; *at == '+';) {
    const size_t length = strcspn(at + 1, "+");
    if (!has(at + 1, length)) return 0;
    at += 1 + length;
  }
  return 1;
}
