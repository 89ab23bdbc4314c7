// Where the time of a model goes: every step with its time, kernel, and how much arithmetic and memory traffic that time bought.
#pragma once

#include <string>
#include <vector>

#include "runtime/executable.h"

namespace qc {

struct StepProfile {
  std::string node;        // the user's name
  std::string op, kernel;  // no kernel: the op's reference evaluation
  std::string result;      // type
  double seconds = 0;      // median over the runs
  double share = 0;        // of the sum
  int64_t operations = 0;  // multiplications and additions of products (conv, linear, matmul, recurrent); 0 elsewhere
  int64_t bytes = 0;       // of all operands and results, each once
};

// Runs `runs` times on the inputs (in port order), after two more to warm up.  In the order of execution.
Result<std::vector<StepProfile>> profile(const Executable& exe, std::span<const Tensor> inputs, int runs,
                                         const SessionOptions& options = {});

// All but the time, without a run.
std::vector<StepProfile> stepsOf(const Program& program);

// Several models side by side: what else the machine does meets all alike.
struct TimedModel {
  std::vector<double> runs;        // seconds of each, in their order
  std::vector<StepProfile> steps;  // the least of each, of runs of their own, since taking times costs time
};
// In turns, each on its own inputs, for so many seconds and at least so many rounds; a fifth of that for the steps, where they are wanted.
struct TurnOptions {
  double seconds = 1;
  int rounds = 10;
  bool steps = false;
  SessionOptions session = {};
};
Result<std::vector<TimedModel>> profileInTurns(std::span<const Executable> models, std::span<const std::vector<Tensor>> inputs,
                                               const TurnOptions& options = {});

// Multiplications and additions of a node's products (OpDef::products), whose sizes are known; 0 where it has none.
int64_t operationsOf(const Node& node);

}  // namespace qc
