// Samples of a source run several at a time (--batch), each with the answer that it has alone.
#pragma once

#include <functional>

#include "frontend/data/dataset.h"
#include "runtime/any_batch.h"

namespace qc::tools {

using RunFn = std::function<Result<TensorMap>(const TensorMap&)>;
using TakeFn = std::function<Status(int64_t sample, const TensorMap& outputs)>;

class SampleBatches {
 public:
  // A model that is made for one sample is taken at any number of them, where there are to be several.
  static Result<SampleBatches> of(Model& model, int64_t batch);

  // The samples [0, count) in their order; those that follow one another and have one shape together.  Errors name the first of a batch.
  Status run(const Dataset& data, int64_t count, const RunFn& engine, const TakeFn& take);
  double seconds() const { return seconds_; }  // in the engine

 private:
  Status runTogether(const Dataset& data, int64_t first, const std::vector<TensorMap>& samples, const RunFn& engine, const TakeFn& take);

  size_t batch_ = 1;
  BatchPlaces places_;
  double seconds_ = 0;
};

}  // namespace qc::tools
