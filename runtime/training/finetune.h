// The whole of a training: order of the samples, targets from labels and from the float model, epochs, checks, and a state on disk from
// which a run that was killed goes on to the same end.
//
//   QC_ASSIGN(Finetuned done, finetune(prepared, samples, {.epochs = 10}));        // done.model: as quantize() would give it
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "runtime/training/trainer.h"

namespace qc {

// What the results of the rounded model are to come near to.
struct FinetuneTargets {
  std::vector<int64_t> labels = {};  // of every sample; empty: the float model alone teaches
  std::string output = {};           // that the labels are of; the first where it is empty
  double teacherShare = 0;           // beside labels: the part of the loss that the float model's results make
  std::string loss = "auto";  // of the float model's results: kl, mse, l1; auto: kl of what a softmax reads or labels are of, else mse
  double temperature = 1;     // of kl
  std::vector<std::string> match = {};  // values inside the model that are to come near the float model's as well
};

struct FinetuneProgress {
  int64_t epoch = 0, epochs = 0, step = 0, steps = 0;  // done; of all
  double loss = 0, lossOfStep = 0;                     // mean over the epoch so far; of the last step
  std::optional<double> accuracy = {};                 // the same, where there are labels
  double samplesPerSecond = 0, secondsLeft = 0;
};
// What came out at the end of an epoch; epoch 0: what quantize() gives for the same samples, or the float model.
struct FinetuneEpoch {
  int64_t epoch = 0;
  double loss = 0;
  std::optional<double> accuracy = {}, check = {};
  std::optional<double> luck = {};  // so much less loss than before training the samples held out may have by luck
  // Where the float model alone teaches: whether their losses fell as factors, too, by more than luck, and not of a few loud ones alone.
  std::optional<bool> ofMost = {};
};

struct FinetuneOptions {
  // Its loss is made of the targets; a schedule over steps has all of them where it says none; ranges that are `auto` stay as
  // calibrated where the float model alone teaches and values have 7 bits or more.
  TrainerOptions trainer = {};
  FinetuneTargets targets = {};
  int64_t epochs = 10;
  uint64_t seed = 0;
  RecoverOptions recover = {};         // where it begins: recipes of channels count where `match` names no values
  int64_t disableObserversAfter = -1;  // steps; -1: never
  // Steps in which BatchNorm takes the statistics of the batch; -1: it is folded into the layers beforehand.
  int64_t freezeBatchNormAfter = -1;
  std::string augment = {};                 // of images: "flip", "crop" or "flip,crop"; the float model sees the same
  std::string checkpoint = {};              // file; empty: none
  double checkpointSeconds = 30;            // 0: after every step
  bool resume = false;                      // from the checkpoint, if there is one
  const std::atomic<bool>* stop = nullptr;  // set: stops at a checkpoint with an error
  // How good a model is, more is better; asked before the first epoch, of what quantize() gives for the same samples, and after each.  The
  // best is what is returned.  Without, it is the loss, negative, on samples that are held out of training and calibration: this share of
  // them, in whole batches, where they fill more than Batches::kFewestBatches; an epoch then has to be better than luck alone makes one.
  // 0: the last epoch is returned.
  double heldOut = 0.1;
  std::function<Result<double>(const QuantizedModel&)> check = {};
  std::string checkName = {};  // of what it measures, with which data: a state that was measured otherwise is not gone on from
  std::function<void(const FinetuneProgress&)> progress = {};
  std::function<void(const FinetuneEpoch&)> epochEnded = {};
};

struct Finetuned {
  QuantizedModel model;
  std::vector<FinetuneEpoch> epochs;
  int64_t best = 0;     // the epoch that the model is of; 0: it is quantize()'s
  int64_t heldOut = 0;  // samples
  int64_t trained = 0, steps = 0, stepsByEvaluation = 0;
  double seconds = 0;
};

Result<Finetuned> finetune(const PreparedModel& model, const Dataset& samples, const FinetuneOptions& options);

}  // namespace qc
