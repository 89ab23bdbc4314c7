// Looks at values inside a model while samples run through it: the named values become outputs of a copy.
//
//   QC_ASSIGN(Taps taps, Taps::open(graph, {"conv1", "conv2_dq"}));
//   QC_TRY(taps.run(inputs));
//   taps.value(0)          // of "conv1", in the layout of the graph as given
//
// A graph with free dims takes samples of any shape; what runs them is made once per combination of shapes.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/executable.h"
#include "runtime/workflow/per_shapes.h"

namespace qc {

class Taps {
 public:
  // A graph in any form that compiles: float, with observers, or with quantize/dequantize pairs.  Error: no such value.
  static Result<Taps> open(const Graph& graph, const std::vector<std::string>& values, const SessionOptions& options = {});

  Status run(const TensorMap& sample);
  size_t size() const { return values_; }
  const Tensor& value(size_t i) const { return here_->outputs[first_ + i]; }
  std::span<const Tensor> values() const { return std::span(here_->outputs).subspan(first_, values_); }

 private:
  // What runs samples of one combination of shapes.
  struct Runner {
    Session session;
    std::vector<Port> inputs;
    std::vector<Tensor> outputs;
  };
  Result<Runner> runnerOf(Graph lowered) const;

  Graph lowered_;
  // Of all runners.
  std::shared_ptr<ProgramParts> parts_;
  std::shared_ptr<Workspace> workspace_;
  bool free_ = false;
  PerShapes<Runner> runners_;
  Runner* here_ = nullptr;  // of the last sample
  size_t first_ = 0, values_ = 0;
};

}  // namespace qc
