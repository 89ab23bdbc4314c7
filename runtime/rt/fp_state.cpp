#include "runtime/rt/fp_state.h"

#if defined(__x86_64__)
#include <immintrin.h>

// Every exception masked, round to nearest, no flush to zero, denormal operands kept.
constexpr unsigned kDefined = 0x1f80;

uint64_t qcrt_fp_enter(void) {
  const unsigned former = _mm_getcsr();
  if (former != kDefined) _mm_setcsr(kDefined);
  return former;
}

void qcrt_fp_leave(uint64_t state) {
  if (state != kDefined) _mm_setcsr(static_cast<unsigned>(state));
}

#elif defined(__aarch64__)

uint64_t qcrt_fp_enter(void) {
  uint64_t former = 0;
  asm volatile("mrs %0, fpcr" : "=r"(former));
  if (former != 0) asm volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
  return former;
}

void qcrt_fp_leave(uint64_t state) {
  if (state != 0) asm volatile("msr fpcr, %0" : : "r"(state));
}

#else
#error "the floating-point state of this processor is not known"
#endif
