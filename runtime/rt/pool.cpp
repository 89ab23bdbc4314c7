#include "runtime/rt/pool.h"

#include <pthreadpool.h>

#include <new>

struct qcrt_pool {
  pthreadpool_t threads;  // null: the caller alone
  int count;
};

namespace {

struct Call {
  qcrt_kernel kernel;
  void* const* buffers;
  int64_t units, chunks;
  char* scratch;
  int64_t scratchStride;
};

void runChunk(void* context, size_t index) {
  const Call& call = *static_cast<const Call*>(context);
  const auto c = static_cast<int64_t>(index);
  call.kernel(call.buffers, call.units * c / call.chunks, call.units * (c + 1) / call.chunks, call.scratch + c * call.scratchStride);
}

}  // namespace

qcrt_pool* qcrt_pool_create(int threads) {
  auto* pool = new (std::nothrow) qcrt_pool{nullptr, threads};
  if (!pool || threads <= 1) return pool;
  pool->threads = pthreadpool_create(static_cast<size_t>(threads));
  if (!pool->threads) {
    delete pool;
    return nullptr;
  }
  return pool;
}

void qcrt_pool_destroy(qcrt_pool* pool) {
  if (!pool) return;
  if (pool->threads) pthreadpool_destroy(pool->threads);
  delete pool;
}

int qcrt_pool_threads(const qcrt_pool* pool) { return pool->count; }

void qcrt_pool_run(qcrt_pool* pool, qcrt_kernel kernel, void* const* buffers, int64_t units, int64_t chunks, void* scratch,
                   int64_t scratch_stride) {
  if (chunks <= 1 || !pool->threads) {
    kernel(buffers, 0, units, scratch);
    return;
  }
  Call call{kernel, buffers, units, chunks, static_cast<char*>(scratch), scratch_stride};
  pthreadpool_parallelize_1d(pool->threads, runChunk, &call, static_cast<size_t>(chunks), 0);
}
