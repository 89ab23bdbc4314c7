// One step of training as one graph (pass train-step): what the pass says of its result in names.
#pragma once

#include <string>
#include <vector>

#include "ir/graph.h"
#include "passes/training/optimizer.h"

namespace qc {

struct TrainStepOptions {
  std::string of = {};                 // an output, the loss; the only one where it is empty
  std::string with = {};               // constants, with commas between them; empty: weights, biases and scales
  std::vector<std::string> also = {};  // constants beside these
  std::vector<std::string> only = {};  // these constants and no others, as far as the loss depends on them
  OptimizerSpec optimizer = {};
  ScheduleSpec schedule = {};
};
struct TrainStep {
  std::vector<std::string> parameters;  // inputs by now, each with an output "next.NAME", as the states of the optimizer have
  std::string step;                     // an input, the number of the step
  std::string learningRate = "learning_rate";
};
Result<TrainStep> makeTrainStep(Graph& graph, const TrainStepOptions& options);

}  // namespace qc
