#define _GNU_SOURCE /* sched_getaffinity, syscall */
#include "runtime/rt/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/rt/fp_state.h"

#if !defined(SYS_futex) /* 32-bit systems that never had a 32-bit time */
#define SYS_futex SYS_futex_time64
#endif

/* One word, `unclaimed`, carries everything: the caller stores the number of chunks there, and whoever lowers it by one owns
   a chunk.  So the caller takes whatever no other thread came for, and waits only for chunks that are being run: threads that
   the system does not schedule, because other programs hold the cores, cost nothing.  Nobody spins without bound. */

enum { kStop = -1, kCacheLine = 64 };
/* In nanoseconds.  The gap between the split steps of one run is rarely longer; a sleeping thread takes about as long to wake. */
static const int64_t kLongestSpin = 60000, kShortestSpin = 2000;

typedef struct {
  qcrt_kernel kernel;
  void* const* buffers;
  int64_t units;
  int32_t chunks;
  char* scratch;
  int64_t scratch_stride;
} Call;

struct qcrt_pool {
  int threads; /* as asked for */
  int num_workers;
  pthread_t* workers;
  Call call;
  _Alignas(kCacheLine) _Atomic int32_t unclaimed;
  _Alignas(kCacheLine) _Atomic int32_t unfinished;
  _Atomic int32_t refused; /* of a call: set before its chunk counts as finished */
  /* Who is asleep or about to be: read after the word that they sleep on was changed, so that none is left sleeping. */
  _Alignas(kCacheLine) _Atomic int32_t sleeping_workers;
  _Atomic int32_t sleeping_caller;
};

static void sleepWhile(_Atomic int32_t* word, int32_t old, _Atomic int32_t* sleepers) {
  atomic_fetch_add(sleepers, 1);
  while (atomic_load(word) == old) syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
  atomic_fetch_sub(sleepers, 1);
}

static void wake(_Atomic int32_t* word, int32_t most, _Atomic int32_t* sleepers) {
  if (atomic_load(sleepers) > 0) syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Polls until the word is no longer `old`; false when the time is up. */
static bool spinWhile(_Atomic int32_t* word, int32_t old, int64_t budget) {
  enum { kPollsPerLook = 16 };
  const int64_t end = now() + budget;
  do {
    for (int i = 0; i < kPollsPerLook; ++i) {
      if (atomic_load_explicit(word, memory_order_relaxed) != old) return true;
      relax();
    }
  } while (now() < end);
  return false;
}

static int usableProcessors(void) {
  cpu_set_t set;
  CPU_ZERO(&set);
  /* On machines with more processors than the set can name the call fails: then there is nothing to clamp to. */
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : CPU_SETSIZE;
}

/* Runs chunks as long as any is left; returns how many. */
static int32_t runChunks(qcrt_pool* pool) {
  int32_t done = 0;
  int32_t left = atomic_load_explicit(&pool->unclaimed, memory_order_acquire);
  while (left > 0) {
    if (!atomic_compare_exchange_weak_explicit(&pool->unclaimed, &left, left - 1, memory_order_acq_rel, memory_order_acquire)) continue;
    const Call* call = &pool->call;
    const int64_t c = call->chunks - left;
    const int64_t begin = call->units * c / call->chunks, end = call->units * (c + 1) / call->chunks;
    char* scratch = call->scratch ? call->scratch + c * call->scratch_stride : NULL;
    if (call->kernel(call->buffers, begin, end, scratch) != 0) atomic_store_explicit(&pool->refused, 1, memory_order_relaxed);
    ++done;
    left = atomic_load_explicit(&pool->unclaimed, memory_order_acquire);
  }
  return done;
}

static void finish(qcrt_pool* pool, int32_t done) {
  if (done > 0 && atomic_fetch_sub(&pool->unfinished, done) == done) wake(&pool->unfinished, 1, &pool->sleeping_caller);
}

static void* work(void* argument) {
  qcrt_pool* pool = argument;
  qcrt_fp_enter();
  int64_t budget = kLongestSpin;
  for (;;) {
    finish(pool, runChunks(pool));
    const int64_t idle = now();
    if (!spinWhile(&pool->unclaimed, 0, budget)) sleepWhile(&pool->unclaimed, 0, &pool->sleeping_workers);
    if (atomic_load_explicit(&pool->unclaimed, memory_order_acquire) == kStop) return NULL;
    /* Spinning pays where work follows soon; where it does not, the core belongs to somebody else. */
    const int64_t half = budget / 2 > kShortestSpin ? budget / 2 : kShortestSpin;
    budget = now() - idle < kLongestSpin ? kLongestSpin : half;
  }
}

static void awaitOthers(qcrt_pool* pool) {
  for (;;) {
    const int32_t left = atomic_load_explicit(&pool->unfinished, memory_order_acquire);
    if (left == 0) return;
    if (!spinWhile(&pool->unfinished, left, kLongestSpin)) sleepWhile(&pool->unfinished, left, &pool->sleeping_caller);
  }
}

static bool start(qcrt_pool* pool, int count) {
  pool->workers = malloc((size_t)count * sizeof *pool->workers);
  if (!pool->workers) return false;
  for (; pool->num_workers < count; ++pool->num_workers)
    if (pthread_create(&pool->workers[pool->num_workers], NULL, work, pool) != 0) return false;
  return true;
}

qcrt_pool* qcrt_pool_create(int threads) {
  qcrt_pool* pool = aligned_alloc(kCacheLine, sizeof *pool);
  if (!pool) return NULL;
  *pool = (qcrt_pool){.threads = threads > 1 ? threads : 1};
  /* More threads than processors only take turns: their chunks are run by those that there is room for. */
  const int processors = usableProcessors();
  const int workers = (pool->threads < processors ? pool->threads : processors) - 1;
  if (workers > 0 && !start(pool, workers)) {
    qcrt_pool_destroy(pool);
    return NULL;
  }
  return pool;
}

void qcrt_pool_destroy(qcrt_pool* pool) {
  if (!pool) return;
  atomic_store(&pool->unclaimed, kStop);
  wake(&pool->unclaimed, pool->num_workers, &pool->sleeping_workers);
  for (int i = 0; i < pool->num_workers; ++i) pthread_join(pool->workers[i], NULL);
  free(pool->workers);
  free(pool);
}

int qcrt_pool_threads(const qcrt_pool* pool) { return pool ? pool->threads : 1; }

int32_t qcrt_pool_run(qcrt_pool* pool, qcrt_kernel kernel, void* const* buffers, int64_t units, int64_t chunks, void* scratch,
                      int64_t scratch_stride) {
  if (chunks <= 1) return kernel(buffers, 0, units, scratch) != 0;
  const int32_t count = (int32_t)chunks;
  pool->call = (Call){kernel, buffers, units, count, scratch, scratch_stride};
  atomic_store_explicit(&pool->refused, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->unfinished, count, memory_order_relaxed);
  atomic_store(&pool->unclaimed, count);
  const int32_t helpers = count - 1 < pool->num_workers ? count - 1 : pool->num_workers;
  if (helpers > 0) wake(&pool->unclaimed, helpers, &pool->sleeping_workers);
  finish(pool, runChunks(pool));
  awaitOthers(pool);
  return atomic_load_explicit(&pool->refused, memory_order_relaxed);
}
