// What calibration samples can win back of the accuracy that rounding costs: better integers for weights, biases that keep the means.
// Each is a pass of its own (passes/round_weights.cpp, correct_bias.cpp); here the samples run and the passes get what they need.
// And the comparison that shows what is left: float and int8 side by side, layer by layer.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "frontend/dataset.h"
#include "passes/group_params.h"
#include "passes/pass.h"
#include "quantizer/qconfig.h"
#include "runtime/layer_observer.h"
#include "runtime/model.h"

namespace qc {

// fast: for the error of the weights alone, from the means of the float model.  full: one layer after the other, from runs of the int8
// model; as many runs as there are layers.
enum class BiasCorrection { off, fast, full };

struct RecoverOptions {
  bool smoothQuant = true;
  bool equalize = true;
  bool roundWeights = true;
  BiasCorrection biasCorrection = BiasCorrection::fast;
  int64_t samples = 128;     // at most so many of the calibration samples, evenly spread
  int64_t positions = 8192;  // of every layer, at least, over all samples
  int threads = 1;
  LayerObserver* observer = nullptr;  // that calibration of the same model and samples carried: they need not run for it again
  std::function<void(const char* stage, int64_t done, int64_t total)> progress = {};

  void tell(const char* stage, size_t done, size_t total) const {
    if (progress) progress(stage, static_cast<int64_t>(done), static_cast<int64_t>(total));
  }
  bool looksAtLayers() const { return roundWeights || biasCorrection != BiasCorrection::off; }
  LayerObserverOptions layers() const { return {.samples = samples, .positions = positions, .gram = roundWeights}; }
};

// The same function, easier to quantize: channels that are much larger than the rest are moved into the weights that read them
// (passes/smooth_quant.cpp, equalize_layers.cpp).  To be calibrated and quantized in the model's place; the model itself when there is
// nothing to move.
// Rules that make no layer int8 leave it alone as well.
Result<Model> eased(const Model& model, const QConfigMapping& rules, const Dataset& samples, const RecoverOptions& options);

// Edits a graph with observers (after `prepare`) whose parameters are known.  Memory does not grow with the number of samples.
Status recover(Graph& prepared, const GroupParams& params, const Dataset& samples, const RecoverOptions& options, PassContext& cx);

// Signal to noise in dB at the result of every int8 layer: float model against int8 model, both on the same samples.
struct LayerNoise {
  std::string node, op;
  double total = 0;  // noise of everything up to here
  double own = 0;    // of rounding this very result alone
};
Result<std::vector<LayerNoise>> compareLayers(const Graph& prepared, const Graph& quantized, const Dataset& samples, int64_t limit,
                                              const RecoverOptions& options);

}  // namespace qc
