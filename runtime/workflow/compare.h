// Float and int8 side by side, layer by layer: what rounding costs on given samples.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "frontend/data/dataset.h"
#include "ir/graph.h"

namespace qc {

// Signal to noise in dB at the result of every int8 layer that holds floats: float model against int8 model, both on the same samples.
struct LayerNoise {
  std::string node, op;
  double total = 0;  // noise of everything up to here
  double own = 0;    // of rounding this very result alone
};
struct Comparison {
  std::vector<LayerNoise> layers;  // the outputs of the model last, as ops called "output"
  int64_t samples = 0;             // that were compared; 0: none has the shapes of the graph
  double outputs() const;          // mean over the outputs; 0: there are none
  bool hasOutputs() const;         // that hold floats
};
struct CompareOptions {
  int64_t samples = 16;  // at most so many, evenly spread
  int threads = 1;
  bool outputsAlone = false;
  const Graph* original = nullptr;  // whose outputs count where values inside of `prepared` were changed on purpose; none: its own
  std::function<void(int64_t done, int64_t total)> progress = {};
};
Result<Comparison> compareLayers(const Graph& prepared, const Graph& quantized, const Dataset& samples, const CompareOptions& options);

}  // namespace qc
