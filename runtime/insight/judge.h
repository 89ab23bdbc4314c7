// Samples that a model has not been calibrated with, and what the float model makes of them: what quantized models of it are measured on.
//
//   QC_ASSIGN(Judge judge, Judge::open(*prepared.observed, heldOut));
//   QC_ASSIGN(Judgement found, judge.of(quantized.model.graph()));        // found.decibels() at the outputs
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "frontend/data/dataset.h"
#include "ir/graph.h"
#include "runtime/insight/ways.h"

namespace qc {

struct Judgement {
  struct Output {
    double signal = 0, noise = 0;  // sums of squares of the float model's values, and of what differs
  };
  std::vector<Output> outputs;   // at the values that are measured (measuredEnds())
  std::vector<double> bySample;  // noise against the signal of each sample, mean over its outputs
  double decibels() const;       // mean over them
  double noise() const;          // against the signal, mean over them
};

struct JudgeOptions {
  int64_t samples = 16;  // at most so many, evenly spread
  int threads = 1;
  std::function<void(int64_t done, int64_t total)> progress = {};  // of every run over them, the float model's when it opens included
};

class Judge {
 public:
  // Sees the outputs of the model for one sample.
  using See = std::function<Status(int64_t sample, std::span<const Tensor> outputs)>;

  // reference: a float graph, with observers or without.  Error: there are no samples.
  static Result<Judge> open(const Graph& reference, const Dataset& samples, const JudgeOptions& options = {});

  // Of a graph with the same outputs.
  Result<Judgement> of(const Graph& quantized, const See& see = {}) const;
  Status seeReference(const See& see) const;  // what the float model makes of them
  const Dataset& samples() const { return samples_; }
  int64_t size() const { return static_cast<int64_t>(indices_.size()); }
  int64_t index(int64_t i) const { return nth(indices_, i); }  // of the i-th in samples()

  // Of the samples those that times are taken on, with the share that each stands for.
  std::span<const Way> ways() const { return ways_; }
  // Mean milliseconds of each over these: minima over many runs in turns, so that what else the machine does meets all alike.
  Result<std::vector<double>> milliseconds(const std::vector<const Graph*>& graphs) const;

 private:
  void tell(size_t done) const {
    if (progress_) progress_(static_cast<int64_t>(done), size());
  }

  Dataset samples_;
  std::vector<int64_t> indices_;
  std::vector<std::vector<Tensor>> outputs_;  // of the float model, by sample: its outputs, then what is measured in their place
  std::vector<size_t> measured_;              // for each output, among these
  std::vector<Way> ways_;
  int threads_ = 1;
  std::function<void(int64_t done, int64_t total)> progress_;
};

}  // namespace qc
