// A program that needs the runtime library alone.
#include <cstdio>

#include <qcompile/runtime/rt/cpu.h>
#include <qcompile/runtime/rt/pool.h>

int main() {
  if (qcrt_cpu_supports("no-such-machine")) return 1;
  qcrt_pool* pool = qcrt_pool_create(2);
  if (!pool) return 1;
  const int threads = qcrt_pool_threads(pool);
  qcrt_pool_destroy(pool);
  std::printf("%d threads\n", threads);
  return threads == 2 ? 0 : 1;
}
