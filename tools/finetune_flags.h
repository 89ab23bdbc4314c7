// The options of `finetune`: what they mean together, and which of them would have no effect.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/training/finetune.h"
#include "tools/common.h"

namespace qc::tools {

struct FinetuneFlags {
  ModelOptions model;
  DataOptions data;
  RulesOptions rules;
  std::string labels, scores, output, mode = "int8";
  int64_t limit = -1, weightBits = 8;
  std::string scales = "auto", ranges = "auto";
  // training
  int64_t epochs = 10, batch = 32, seed = 0, disableObserversAfter = -1, freezeBatchNormAfter = -1, warmup = 0, stepSize = 0;
  int threads = 1;
  std::string optimizer = "adam", schedule = "cosine";
  std::optional<double> rate = {};  // of steps; by the bits of weights
  double momentum = 0.9, weightDecay = 0, clipNorm = 0, gamma = 0.1;
  // targets
  std::string loss = "auto", augment;
  double teacherShare = 0, temperature = 1, holdOut = 0.1;
  std::vector<std::string> match;
  // what is kept
  std::vector<std::string> check;
  std::string checkLabels, metric = "top1", memoryLimit;
  double checkpointSeconds = 30;
  bool freeBatch = false, resume = false, json = false;

  void addTo(CLI::App& verb);
  bool quantizes() const { return mode == "int8"; }
  double learningRate() const;
  std::string checkpoint() const { return output + ".partial"; }
  // Errors: options that would have no effect.
  Status checkEffects(const CLI::App& verb) const;
  Result<QConfigMapping> mapping() const;
  Result<FinetuneOptions> options() const;  // without labels
};

}  // namespace qc::tools
