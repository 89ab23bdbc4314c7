// A model under other rules, again and again, without calibrating each time: the ranges that one set of rules needs are kept, by value and
// observer, for the next, and so are the weights that recipes rounded.  Values that a new set wants observed and no other did are observed
// in a run of their own.
//
//   QC_ASSIGN(Trials trials, Trials::open(prepared, samples));
//   QC_ASSIGN(QuantizedModel less, trials.quantized(withFloat(*prepared.rules, {&unit})));
#pragma once

#include <memory>
#include <vector>

#include "runtime/workflow/quantize.h"

namespace qc {

class Trials {
 public:
  // recover.check: samples by which recipes of channels are decided, once, under the rules of `model`; they hold for all others.
  static Result<Trials> open(PreparedModel model, const Dataset& calibration, const RecoverOptions& recover = {});
  Trials(Trials&&) noexcept;
  Trials& operator=(Trials&&) noexcept;
  ~Trials();

  // With the channels moved that recipes move.
  const PreparedModel& model() const;
  bool movedChannels() const;  // whether any recipe that moves them is in use
  const Dataset& calibration() const;
  // Observes what these will need, in one run.
  Status expect(const std::vector<QConfigMapping>& rules);
  // As quantize() makes it of this calibration; compared with nothing, and without integer ends.  What recipes made of a layer is taken
  // from other rules under which it had the same weights: near to it where they go from layer to layer.
  Result<QuantizedModel> quantized(const QConfigMapping& rules);
  // The same to the bit in every case, with the work of all recipes.
  Result<QuantizedModel> quantizedAnew(const QConfigMapping& rules);
  Result<bool> goesInTurn(const QConfigMapping& rules) const;  // whether the two may differ
  Result<PreparedModel> prepared(const QConfigMapping& rules) const;
  // Of the observers of a model that was prepared so, by id.
  Result<GroupParams> params(const PreparedModel& model);
  int64_t runs() const;  // of the calibration samples

 private:
  struct Impl;
  explicit Trials(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace qc
