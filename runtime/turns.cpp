#include "runtime/turns.h"

#include <chrono>

namespace qc {

Result<std::vector<std::vector<double>>> timeInTurns(size_t programs, const Turns& turns,
                                                     const std::function<Status(size_t program)>& run) {
  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  std::vector<std::vector<double>> times(programs);
  const double end = now() + turns.seconds;
  for (int round = 0; round < turns.least || (round < turns.most && now() < end); ++round)
    for (size_t i = 0; i < programs; ++i) {
      const size_t k = round % 2 == 0 ? i : programs - 1 - i;
      const double start = now();
      QC_TRY(run(k));
      times[k].push_back(now() - start);
    }
  return times;
}

}  // namespace qc
