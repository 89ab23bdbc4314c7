// What splitting costs: time of runs that consist of short steps, on the thread pool and on one thread.
//
//   bench_pool [--threads N] [--busy P] [--step US] [--steps S] [--runs R]
//
// A run is S steps (default 50) of US microseconds of work each (default 100) split in N chunks (default 2).  With --busy, P other
// processes hold processors in the meantime (one per processor is the hard case).  Prints milliseconds of a run, with the pool
// and without, turn by turn.
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "runtime/rt/pool.h"

namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One unit of work: a chain of additions, about a microsecond.
int32_t kernel(void* const*, int64_t begin, int64_t end, void*) {
  for (int64_t unit = begin; unit < end; ++unit)
    for (int i = 0; i < 1000; ++i) asm volatile("" : : "r"(i));
  return 0;
}

double run(qcrt_pool* pool, int steps, int64_t units, int chunks) {
  const double start = now();
  for (int s = 0; s < steps; ++s) qcrt_pool_run(pool, kernel, nullptr, units, chunks, nullptr, 0);
  return (now() - start) * 1e3;
}

double at(std::vector<double>& sorted, double share) { return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))]; }

void show(const char* name, std::vector<double>& times) {
  std::sort(times.begin(), times.end());
  fmt::print("{:<10} min {:8.3f}  median {:8.3f}  p90 {:8.3f}  max {:8.3f} ms\n", name, times.front(), at(times, 0.5), at(times, 0.9),
             times.back());
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, int> options = {{"--threads", 2}, {"--busy", 0}, {"--step", 100}, {"--steps", 50}, {"--runs", 200}};
  for (int i = 1; i < argc; i += 2) {
    if (!options.contains(argv[i]) || i + 1 >= argc) {
      fmt::print(stderr, "unknown option '{}', or without its value\n", argv[i]);
      return 2;
    }
    options[argv[i]] = std::atoi(argv[i + 1]);
  }
  const int threads = options["--threads"];
  std::vector<pid_t> busy;
  for (int i = 0; i < options["--busy"]; ++i) {
    const pid_t child = fork();
    if (child == 0)
      for (;;) asm volatile("");
    busy.push_back(child);
  }
  qcrt_pool* pool = qcrt_pool_create(threads);
  qcrt_pool* alone = qcrt_pool_create(1);
  std::vector<double> split, single;
  for (int r = 0; r < options["--runs"]; ++r) {
    split.push_back(run(pool, options["--steps"], options["--step"], threads));
    single.push_back(run(alone, options["--steps"], options["--step"], 1));
  }
  show("pool", split);
  show("one thread", single);
  qcrt_pool_destroy(pool);
  qcrt_pool_destroy(alone);
  for (const pid_t child : busy) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
}
