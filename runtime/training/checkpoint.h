// What a training leaves on disk to go on from.
#pragma once

#include <string>
#include <vector>

#include "runtime/training/finetune.h"

namespace qc {

struct TrainingCheckpoint {
  TrainState now, best;
  int64_t bestEpoch = 0;
  double bestCheck = 0;
  double lossOfEpoch = 0;  // sum over the steps of the epoch that is under way
  int64_t right = 0;       // of its samples
  std::vector<FinetuneEpoch> epochs;
  std::vector<double> before;  // losses of what is held out, by group, before training
};

// What a checkpoint has to be of: model, data and options.
std::string checkpointIdentity(const PreparedModel& model, const Dataset& samples, const FinetuneOptions& options);
// Written whole or not at all.
Status writeCheckpoint(const std::string& path, const std::string& identity, const TrainingCheckpoint& checkpoint);
// Error: it is of something else, or damaged.
Result<TrainingCheckpoint> readCheckpoint(const std::string& path, const std::string& identity);

}  // namespace qc
