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
  int64_t limit = -1;
  std::optional<int64_t> weightBits = {};  // none: as the rules say
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
  double learningRate(int bits) const;
  std::string checkpoint() const { return output + ".partial"; }
  // Errors: options that would have no effect.
  Status checkEffects(const CLI::App& verb) const;
  Result<QConfigMapping> mapping() const;
  // Without labels.  bits: those of weights, where --lr and --scales leave it to them.
  Result<FinetuneOptions> options(int bits) const;
};

// Of the integers that the weights of most layers become; 0: of none.
int bitsOfMost(const Graph& observed);

}  // namespace qc::tools
