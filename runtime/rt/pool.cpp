#include "runtime/rt/pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <new>

#include "runtime/rt/fp_state.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// One word, `unclaimed`, carries everything: the caller stores the number of chunks there, and whoever lowers it by one owns
// a chunk.  So the caller takes whatever no other thread came for, and waits only for chunks that are being run: threads that
// the system does not schedule, because other programs hold the cores, cost nothing.  Nobody spins without bound.

namespace {

using Clock = std::chrono::steady_clock;

constexpr int32_t kStop = -1;
// The gap between the split steps of one run is rarely longer; a sleeping thread takes about as long to wake.
constexpr std::chrono::nanoseconds kLongestSpin = std::chrono::microseconds(60);
constexpr std::chrono::nanoseconds kShortestSpin = std::chrono::microseconds(2);
constexpr size_t kCacheLine = 64;

struct Call {
  qcrt_kernel kernel;
  void* const* buffers;
  int64_t units;
  int32_t chunks;
  char* scratch;
  int64_t scratchStride;
};

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Polls until the word is no longer `old`; false when the time is up.
bool spinWhile(const std::atomic<int32_t>& word, int32_t old, std::chrono::nanoseconds budget) {
  constexpr int kPollsPerLook = 16;
  const Clock::time_point end = Clock::now() + budget;
  do {
    for (int i = 0; i < kPollsPerLook; ++i) {
      if (word.load(std::memory_order_relaxed) != old) return true;
      pause();
    }
  } while (Clock::now() < end);
  return false;
}

int usableProcessors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // On machines with more processors than the set can name the call fails: then there is nothing to clamp to.
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : CPU_SETSIZE;
}

}  // namespace

struct qcrt_pool {
  int threads = 1;  // as asked for
  int numWorkers = 0;
  std::unique_ptr<pthread_t[]> workers;
  Call call{};
  alignas(kCacheLine) std::atomic<int32_t> unclaimed{0};
  alignas(kCacheLine) std::atomic<int32_t> unfinished{0};
  std::atomic<int32_t> refused{0};  // of a call: set before its chunk counts as finished

  // Runs chunks as long as any is left; returns how many.
  int32_t runChunks() {
    int32_t done = 0;
    int32_t left = unclaimed.load(std::memory_order_acquire);
    while (left > 0) {
      if (!unclaimed.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      const int64_t c = call.chunks - left;
      const int64_t begin = call.units * c / call.chunks, end = call.units * (c + 1) / call.chunks;
      if (call.kernel(call.buffers, begin, end, call.scratch + c * call.scratchStride) != 0) refused.store(1, std::memory_order_relaxed);
      ++done;
      left = unclaimed.load(std::memory_order_acquire);
    }
    return done;
  }

  void finish(int32_t done) {
    if (done > 0 && unfinished.fetch_sub(done, std::memory_order_acq_rel) == done) unfinished.notify_one();
  }

  void work() {
    qcrt_fp_enter();
    std::chrono::nanoseconds budget = kLongestSpin;
    for (;;) {
      finish(runChunks());
      const Clock::time_point idle = Clock::now();
      if (!spinWhile(unclaimed, 0, budget)) unclaimed.wait(0, std::memory_order_acquire);
      if (unclaimed.load(std::memory_order_acquire) == kStop) return;
      // Spinning pays where work follows soon; where it does not, the core belongs to somebody else.
      budget = Clock::now() - idle < kLongestSpin ? kLongestSpin : std::max(budget / 2, kShortestSpin);
    }
  }

  void awaitOthers() {
    for (;;) {
      const int32_t left = unfinished.load(std::memory_order_acquire);
      if (left == 0) return;
      if (!spinWhile(unfinished, left, kLongestSpin)) unfinished.wait(left, std::memory_order_acquire);
    }
  }

  bool start(int count) {
    workers.reset(new (std::nothrow) pthread_t[static_cast<size_t>(count)]);
    if (!workers) return false;
    const auto entry = [](void* pool) -> void* {
      static_cast<qcrt_pool*>(pool)->work();
      return nullptr;
    };
    for (; numWorkers < count; ++numWorkers)
      if (pthread_create(&workers[static_cast<size_t>(numWorkers)], nullptr, entry, this) != 0) return false;
    return true;
  }

  ~qcrt_pool() {
    unclaimed.store(kStop, std::memory_order_release);
    unclaimed.notify_all();
    for (int i = 0; i < numWorkers; ++i) pthread_join(workers[static_cast<size_t>(i)], nullptr);
  }
};

qcrt_pool* qcrt_pool_create(int threads) {
  std::unique_ptr<qcrt_pool> pool(new (std::nothrow) qcrt_pool);
  if (!pool) return nullptr;
  pool->threads = std::max(threads, 1);
  // More threads than processors only take turns: their chunks are run by those that there is room for.
  const int workers = std::min(pool->threads, usableProcessors()) - 1;
  if (workers > 0 && !pool->start(workers)) return nullptr;
  return pool.release();
}

void qcrt_pool_destroy(qcrt_pool* pool) { delete pool; }

int qcrt_pool_threads(const qcrt_pool* pool) { return pool->threads; }

int32_t qcrt_pool_run(qcrt_pool* pool, qcrt_kernel kernel, void* const* buffers, int64_t units, int64_t chunks, void* scratch,
                      int64_t scratch_stride) {
  if (chunks <= 1) return kernel(buffers, 0, units, scratch) != 0;
  const auto count = static_cast<int32_t>(chunks);
  pool->call = {kernel, buffers, units, count, static_cast<char*>(scratch), scratch_stride};
  pool->refused.store(0, std::memory_order_relaxed);
  pool->unfinished.store(count, std::memory_order_relaxed);
  pool->unclaimed.store(count, std::memory_order_release);
  for (int i = 0; i < std::min(count - 1, pool->numWorkers); ++i) pool->unclaimed.notify_one();
  pool->finish(pool->runChunks());
  pool->awaitOthers();
  return pool->refused.load(std::memory_order_relaxed);
}
