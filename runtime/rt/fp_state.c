#include "runtime/rt/fp_state.h"

#if defined(__x86_64__)

/* Every exception masked, round to nearest, no flush to zero, denormal operands kept. */
static const uint32_t kDefined = 0x1f80;

uint64_t qcrt_fp_enter(void) {
  const uint32_t former = __builtin_ia32_stmxcsr();
  if (former != kDefined) __builtin_ia32_ldmxcsr(kDefined);
  return former;
}

void qcrt_fp_leave(uint64_t state) {
  if (__builtin_ia32_stmxcsr() != (uint32_t)state) __builtin_ia32_ldmxcsr((uint32_t)state);
}

#elif defined(__aarch64__)

/* FPCR: rounding, flush to zero, default NaN and traps, all 0 in the defined state.  The flags of FPSR are put back as well. */
uint64_t qcrt_fp_enter(void) {
  uint64_t control, status;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  __asm__ volatile("mrs %0, fpsr" : "=r"(status));
  if (control != 0) __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
  return (status << 32) | (uint32_t)control;
}

void qcrt_fp_leave(uint64_t state) {
  __asm__ volatile("msr fpsr, %0" : : "r"(state >> 32) : "memory");
  if ((uint32_t)state != 0) __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)(uint32_t)state) : "memory");
}

#elif defined(__riscv) && defined(__riscv_flen)

/* fcsr: flags in bits 0 to 4, rounding in bits 5 to 7 (0: nearest, ties to even).  There are neither traps nor a flush to zero. */
uint64_t qcrt_fp_enter(void) {
  unsigned long former;
  __asm__ volatile("frcsr %0" : "=r"(former));
  __asm__ volatile("fscsr zero" : : : "memory");
  return former;
}

void qcrt_fp_leave(uint64_t state) { __asm__ volatile("fscsr %0" : : "r"((unsigned long)state) : "memory"); }

#elif defined(__arm__) && defined(__ARM_FP)

/* FPSCR: rounding, flush to zero, default NaN, traps, flags, vector length; all 0 in the defined state. */
uint64_t qcrt_fp_enter(void) {
  uint32_t former;
  __asm__ volatile("vmrs %0, fpscr" : "=r"(former));
  __asm__ volatile("vmsr fpscr, %0" : : "r"(0) : "memory");
  return former;
}

void qcrt_fp_leave(uint64_t state) { __asm__ volatile("vmsr fpscr, %0" : : "r"((uint32_t)state) : "memory"); }

#else
#include <fenv.h>

/* What C says of it: the rounding.  Traps and a flush to zero, where this machine has them, stay the caller's. */
uint64_t qcrt_fp_enter(void) {
  const int former = fegetround();
  fesetround(FE_TONEAREST);
  return (uint64_t)(uint32_t)former;
}

void qcrt_fp_leave(uint64_t state) { fesetround((int)state); }

#endif
