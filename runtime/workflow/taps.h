// Looks at values inside a model while samples run through it: the named values become outputs of a copy.
//
//   QC_ASSIGN(Taps taps, Taps::open(graph, {"conv1", "conv2_dq"}));
//   QC_TRY(taps.run(inputs));
//   taps.value(0)          // of "conv1", in the layout of the graph as given
//
// A graph with free dims takes samples of any shape; what runs them is made once per combination of shapes.  A value of a branch that a
// sample does not take has no elements.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/workflow/sample_runs.h"

namespace qc {

class Taps {
 public:
  // A graph in any form that compiles: float, with observers, or with quantize/dequantize pairs.  Error: no such value.
  static Result<Taps> open(const Graph& graph, const std::vector<std::string>& values, const SessionOptions& options = {});

  Status run(const TensorMap& sample, const Session::StepHook& hook = {}) { return runs_->run(sample, hook); }
  size_t size() const { return values_; }
  const Tensor& value(size_t i) const { return runs_->output(first_ + i); }
  std::span<const Tensor> values() const { return runs_->outputs().subspan(first_, values_); }

 private:
  std::unique_ptr<SampleRuns> runs_;
  size_t first_ = 0, values_ = 0;
};

// With bytes of its own: those of taps are written again by the next sample.
Tensor ownCopy(const Tensor& value);

}  // namespace qc
