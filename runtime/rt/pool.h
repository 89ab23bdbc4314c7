/* Thread pool of compiled models, a C interface.  Work is split statically: chunk c of n runs units [units*c/n, units*(c+1)/n),
   so a model's results do not depend on timing, and the chunks of one call may run on any threads.

   The pool is a good neighbour: idle threads spin for microseconds and then sleep, the caller runs every chunk that no other
   thread has come for, and there are never more threads than processors that this process may use.  Where other programs hold
   the cores, a call takes about as long as on one thread.  Its threads run in the state of fp_state.h; the caller's is its own. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t (*qcrt_kernel)(void* const* buffers, int64_t begin, int64_t end, void* scratch);
typedef struct qcrt_pool qcrt_pool;

/* threads, the caller's included (below 1: 1): how many chunks may run at a time.  Null when threads cannot be made. */
qcrt_pool* qcrt_pool_create(int threads);
void qcrt_pool_destroy(qcrt_pool* pool);
/* 1 where there is no pool (null): then a model runs on the thread of its caller alone. */
int qcrt_pool_threads(const qcrt_pool* pool);

/* Runs all units and returns when they are done: 0, or 1 if the kernel returned anything but 0 for some of them.  1 <= chunks < 2^31; chunk
 * c gets scratch + c * scratch_stride.  One call at a time. */
int32_t qcrt_pool_run(qcrt_pool* pool, qcrt_kernel kernel, void* const* buffers, int64_t units, int64_t chunks, void* scratch,
                      int64_t scratch_stride);

#ifdef __cplusplus
}
#endif
