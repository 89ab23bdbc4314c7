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

// Multiplications and additions of a node's products; 0 where it has none.
int64_t operationsOf(const Node& node);

}  // namespace qc
