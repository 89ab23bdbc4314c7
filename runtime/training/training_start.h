// Where a training begins, which is where `quantize` ends: the model with its recipes and ranges.
#pragma once

#include <atomic>

#include "frontend/data/dataset.h"
#include "passes/training/prepare_qat.h"
#include "runtime/workflow/prepared_model.h"
#include "runtime/workflow/quantize.h"
#include "runtime/workflow/recover.h"

namespace qc {

struct TrainingStart {
  PreparedModel model;       // to be trained: where scales follow the weights, these are not rounded yet
  PreparedModel recovered;   // with all recipes; `quantized` in floats
  GroupParams params;        // of the observers of both
  QuantizedModel quantized;  // what calibrateAndQuantize() gives for the same samples: what a training has to be better than
};

struct StartOptions {
  RecoverOptions recover = {};
  QatOptions qat = {};
  bool movesChannels = true;  // whether recipes may change values inside
  int threads = 1;
  const std::atomic<bool>* stop = nullptr;
};

Result<TrainingStart> startTraining(const PreparedModel& model, const Dataset& samples, const StartOptions& options);

}  // namespace qc
