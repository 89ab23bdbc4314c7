// Times of several programs side by side.
//
//   QC_ASSIGN(const auto times, timeInTurns(2, {.seconds = 1}, [&](size_t k) { return sessions[k].run(inputs[k], outputs[k]); }));
//   *std::min_element(times[0].begin(), times[0].end())
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "ir/status.h"

namespace qc {

// So many seconds in all, but at least and at most so many rounds, in each of which every program runs once.
struct Turns {
  double seconds = 1;
  int least = 10, most = std::numeric_limits<int>::max();
};

// Of each program the seconds of its runs, in their order.  What else the machine does meets all alike; and as the first of a round finds
// the caches as the last one left them, the order turns round every time.
Result<std::vector<std::vector<double>>> timeInTurns(size_t programs, const Turns& turns, const std::function<Status(size_t program)>& run);

}  // namespace qc
