// The samples of a training as batches: in an order of their own in every epoch, images changed at random, and a share of them held out,
// on which nothing is trained.
#pragma once

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "runtime/executable.h"
#include "runtime/training/augment.h"
#include "runtime/training/batch_layout.h"

namespace qc {

struct BatchOptions {
  int64_t batch = 32;
  uint64_t seed = 0;
  double heldOutShare = 0;  // of the samples, in whole batches; none where fewer than kFewestBatches are left
  std::string augment = {};
  std::vector<int64_t> labels = {};  // of every sample, or none
};

class Batches {
 public:
  static constexpr int64_t kFewestBatches = 4;
  static constexpr int64_t kFewestHeldOut = 8;  // samples, where there are as many
  // Samples of which some can be held out; of one nothing tells a gain from luck.
  static int64_t fewestToHoldOutOf(int64_t batch) { return kFewestBatches * batch + std::max<int64_t>(batch, 2); }

  // Errors: the samples do not fill a batch, or are of several shapes; an augmentation that there is none of.
  static Result<Batches> of(const Dataset& samples, BatchOptions options);
  // What a batch is to bring, the inputs of the model among it, and where its samples lie in these; the name of the labels, where they are
  // read.  Error: nothing is there to change at random.
  Status bind(const std::vector<Port>& ports, BatchLayout layout, std::string labels);

  int64_t perEpoch() const { return static_cast<int64_t>(trained_.size()) / o_.batch; }
  int64_t heldOut() const { return static_cast<int64_t>(heldOut_.size()); }  // samples
  Result<TensorMap> at(int64_t epoch, int64_t place);
  Result<TensorMap> heldOutAt(int64_t first, int64_t count) const;
  const Shapes& sample() const { return sample_; }                // shapes of one
  Dataset trained() const { return samples_->chosen(trained_); }  // all but those held out
  int64_t labelAt(int64_t epoch, int64_t place, int64_t sample);

 private:
  Batches(const Dataset& samples, BatchOptions options) : samples_(&samples), o_(std::move(options)) {}
  Result<TensorMap> of(std::span<const int64_t> indices, int64_t changedIn) const;
  const int64_t* orderAt(int64_t epoch, int64_t place);

  const Dataset* samples_;
  BatchOptions o_;
  std::vector<int64_t> trained_, heldOut_, order_;  // samples
  int64_t ordered_ = -1;                            // the epoch that order_ is of
  Result<TensorMap> ofOneShape(int64_t index) const;
  Result<TensorMap> sampleAt(int64_t index, int64_t changedIn) const;
  Status checkShared(const TensorMap& sample, const TensorMap& first, int64_t index) const;

  std::set<std::string> ports_;  // inputs of the model that are read
  BatchLayout layout_;
  Shapes sample_;
  std::string labels_;
  Augmentation augmentation_;
  std::set<std::string> images_;
};

}  // namespace qc
