// Calibration as a job: a part of a set, with checkpoints, that can be stopped anywhere and gives the same bytes however often it was.
//
//   CalibrateOptions options{.shard = {0, 4}, .checkpoint = "m.qcal.partial", .resume = true};
//   QC_ASSIGN(Ranges ranges, calibrate(model, rules, samples, options));
//   QC_ASSIGN(Convergence verdict, assess(ranges));
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "frontend/data/dataset.h"
#include "quantizer/quantizer.h"
#include "quantizer/ranges.h"
#include "quantizer/rules/qconfig.h"
#include "runtime/model.h"
#include "runtime/workflow/layer_observer.h"
#include "runtime/workflow/prepared_model.h"

namespace qc {

// Part `index` of `count` equal stretches of the set.
struct Shard {
  int64_t index = 0, count = 1;
};

struct CalibrateOptions {
  int64_t limit = -1;  // samples of the whole set; -1: all
  int threads = 1;
  Shard shard = {};
  std::string checkpoint = {};              // file that holds the state while the run lasts; empty: none
  double checkpointSeconds = 30;            // 0: after every sample
  bool resume = false;                      // from the checkpoint, if there is one
  int64_t memoryLimit = 0;                  // bytes of the process, 0: none; a run that passes it stops at a checkpoint
  LayerObserver* layers = nullptr;          // sees the samples as well; of a part of the set, or a resumed run, it sees nothing
  const std::atomic<bool>* stop = nullptr;  // set: stops at a checkpoint with an error
  std::function<void(int64_t done, int64_t total)> progress = {};
};

// Runs the samples through the float model and collects the range of every value that the rules want observed.
// Memory does not grow with the number of samples.  Samples may have any shape that the model takes: free
// dims have the sizes of each.
Result<Ranges> calibrate(const Model& model, const QConfigMapping& rules, const Dataset& samples, const CalibrateOptions& options = {});
// The same with a quantizer of one's own in place of rules (X86Quantizer, ComposableQuantizer, ...).
Result<Ranges> calibrate(const Model& model, Quantizer& quantizer, const Dataset& samples, const CalibrateOptions& options = {});

// Of a model that is prepared already.
Result<Ranges> calibrate(const PreparedModel& model, const Dataset& samples, const CalibrateOptions& options = {});

// Memory of this process without the files it maps, in bytes; the largest it has been; 0 where the system does not say.
int64_t residentBytes();
int64_t peakResidentBytes();

}  // namespace qc
