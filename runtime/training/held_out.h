// What a training is worth on the samples that it never sees: their losses in small groups, so that a gain can be told from luck.  Of ten
// epochs the one of the least loss on a few dozen samples is often one that these happen to favour; and where the float model teaches, a
// few loud samples, of which rounding changed much, make up most of the loss: it can fall while it rises for nearly all others.
#pragma once

#include <span>
#include <vector>

#include "runtime/training/batches.h"
#include "runtime/training/targets.h"
#include "runtime/training/trainer.h"

namespace qc {

// The mean of the groups' differences, and what of it luck explains: as large a gain comes about by it with this chance (Student's t of
// paired differences).
struct Gain {
  double mean = 0, luck = 0;
  bool isReal() const { return mean > luck; }
};
inline constexpr double kOneOfTen = 0.1;
Gain gainOf(std::span<const double> before, std::span<const double> after, double chance = kOneOfTen);  // requires: as many, two or more
// The same of logarithms: factors, in which a quiet group counts like a loud one.  Losses are taken to be 1e-6 of their mean before at
// least.  Of so many tries, all together, one is that good by luck in one of ten cases.
Gain gainInFactors(std::span<const double> before, std::span<const double> after, int64_t tries);

class HeldOut {
 public:
  // So many that there are enough groups, a divisor of the batch.
  static int64_t groupOf(int64_t samples, int64_t batch);

  // batches: with the inputs of a step bound; targets: for a group.
  HeldOut(const Batches& batches, Targets targets, int64_t group) : batches_(&batches), targets_(std::move(targets)), group_(group) {}
  // By group, of a trainer whose evaluationBatch is a group.
  Result<std::vector<double>> losses(Trainer& trainer);

 private:
  const Batches* batches_;
  Targets targets_;
  int64_t group_;
};

}  // namespace qc
