/* Floating-point state of the threads that run a model, a C interface.  Kernels are defined for rounding to nearest with
   denormal numbers kept and no traps; a program that was linked with -ffast-math, or changed the rounding, leaves its threads
   in another state, in which the same model would compute other bits. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Puts this thread into the state that kernels are defined for; returns the former one. */
uint64_t qcrt_fp_enter(void);
/* Puts back a state that qcrt_fp_enter returned. */
void qcrt_fp_leave(uint64_t state);

#ifdef __cplusplus
}
#endif
