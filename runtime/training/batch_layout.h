// Where the samples of a batch lie in the inputs of a model, which its exporter decided: in front, or behind layers or time steps in the
// states and sequences of a recurrent model; and what is the same for all of them, as a sampling rate is.
#pragma once

#include <map>
#include <string>

#include "ir/graph.h"
#include "runtime/model.h"

namespace qc {

struct BatchLayout {
  static constexpr int kShared = -1;
  std::map<std::string, int> dims;  // by input; kShared: it has no dim for samples

  // sample: shapes of one, of which dims that hold samples are 1; empty: not known, samples lie in front.  Error: no input has a free dim
  // for them, and more than one is asked for.
  static Result<BatchLayout> of(const Graph& model, const Shapes& sample, int64_t batch);
  // The sizes of a batch.  Error: a free dim whose size no sample says.
  Result<Shapes> shapes(const Graph& model, const Shapes& sample, int64_t batch) const;
};

}  // namespace qc
