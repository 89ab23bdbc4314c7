// Looks at values inside a model while samples run through it: the named values become outputs of a copy.
//
//   QC_ASSIGN(Taps taps, Taps::open(graph, {"conv1", "conv2_dq"}));
//   QC_TRY(taps.run(inputs));
//   taps.value(0)          // of "conv1", in the layout of the graph as given
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime/executable.h"

namespace qc {

class Taps {
 public:
  // A graph in any form that compiles: float, with observers, or with quantize/dequantize pairs.  Error: no such value.
  static Result<Taps> open(const Graph& graph, const std::vector<std::string>& values, const SessionOptions& options = {});

  Status run(const TensorMap& sample);
  size_t size() const { return values_; }
  const Tensor& value(size_t i) const { return outputs_[first_ + i]; }
  std::span<const Tensor> values() const { return std::span(outputs_).subspan(first_, values_); }

 private:
  Taps(Session session, std::vector<Port> inputs) : session_(std::move(session)), inputs_(std::move(inputs)) {}
  Session session_;
  std::vector<Port> inputs_;
  std::vector<Tensor> outputs_;
  size_t first_ = 0, values_ = 0;
};

}  // namespace qc
