// Where the time of a model goes: every step with its time, kernel, and how much arithmetic and memory traffic that time bought.
#pragma once

#include <string>
#include <vector>

#include "runtime/model_run.h"

namespace qc {

// Runs `runs` times, after two more to warm up.  In the order of execution.
Result<std::vector<StepProfile>> profile(ModelRun& run, int runs);
// The same of a program on these inputs, in port order.
Result<std::vector<StepProfile>> profile(const Executable& exe, std::span<const Tensor> inputs, int runs,
                                         const SessionOptions& options = {});

// Several models side by side: what else the machine does meets all alike.
struct TimedModel {
  std::vector<double> runs;        // seconds of each, in their order
  std::vector<StepProfile> steps;  // the least of each, of runs of their own, since taking times costs time
};
// In turns, for so many seconds and at least so many rounds; a fifth of that for the steps, where they are wanted.  They should share a
// workspace: where memory and threads lie on the machine would count more than what is compared.
struct TurnOptions {
  double seconds = 1;
  int rounds = 10;
  bool steps = false;
};
Result<std::vector<TimedModel>> profileInTurns(std::span<ModelRun> models, const TurnOptions& options = {});

}  // namespace qc
